"""How often an operator may have a provider asked for a token that nobody needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.mailboxes.ports import TooSoon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAUSE_SECONDS = 60.0  # a provider that is asked on and on refuses the mailbox, or the client


class Forced:
    """When each mailbox's provider was last asked at an operator's wish."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked_at: dict[str, float] = {}

    def note(self, keys: Iterable[str]) -> None:
        """Note that these are asked for now. Raises `TooSoon`: nothing was noted."""
        wanted, now = set(keys), self._clock()
        self._asked_at = {key: at for key, at in self._asked_at.items() if now - at < PAUSE_SECONDS}
        if busy := wanted & self._asked_at.keys():
            last = max(busy, key=lambda key: self._asked_at[key])
            wait_seconds = self._asked_at[last] + PAUSE_SECONDS - now
            raise TooSoon(
                f"the provider was asked for a token of {last} less than a minute ago; wait "
                f"{wait_seconds:.0f} s",
                wait_seconds,
            )
        self._asked_at |= dict.fromkeys(wanted, now)

    def forget(self, key: str) -> None:
        """Start anew with a mailbox whose grant is another now."""
        self._asked_at.pop(key, None)
