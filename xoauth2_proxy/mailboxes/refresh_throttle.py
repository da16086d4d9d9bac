"""Limits how often an operator can have a provider asked for a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.mailboxes.interface import RefreshTooSoon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAUSE_SECONDS = 60.0  # a provider that is asked too often refuses the mailbox, or the client


class RefreshThrottle:
    """Allows each mailbox one requested refresh a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked_at: dict[str, float] = {}

    def note(self, keys: Iterable[str]) -> None:
        """Record a request for each of these mailboxes. Raises `RefreshTooSoon`: for none."""
        wanted, now = set(keys), self._clock()
        self._asked_at = {key: at for key, at in self._asked_at.items() if now - at < PAUSE_SECONDS}
        if busy := wanted & self._asked_at.keys():
            last = max(busy, key=lambda key: self._asked_at[key])
            wait_seconds = self._asked_at[last] + PAUSE_SECONDS - now
            raise RefreshTooSoon(
                f"the provider was asked for a token of {last} less than a minute ago; wait "
                f"{wait_seconds:.0f} s",
                wait_seconds,
            )
        self._asked_at |= dict.fromkeys(wanted, now)

    def forget(self, key: str) -> None:
        """Allow a request at once, for a mailbox whose grant has changed."""
        self._asked_at.pop(key, None)
