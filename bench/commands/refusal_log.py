"""Prints the sandbox's refusals at a limited rate, to keep a load test's output readable."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.sandbox.refusals import ProviderRefusal

MAX_LINES = 20  # a minute
_MINUTE_SECONDS = 60.0


class RefusalLog:
    """Prints the first 20 refusals of each minute and the number of further ones."""

    def __init__(
        self,
        where: str,
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where = where  # all of them are shown
        self._write = write or _write
        self._clock = clock
        self._begun = -_MINUTE_SECONDS
        self._count = 0  # since then

    def __call__(self, refusal: ProviderRefusal) -> None:
        """Print a refusal, or only count it."""
        now = self._clock()
        if now - self._begun >= _MINUTE_SECONDS:
            unsaid = self._count - MAX_LINES
            self._begun, self._count = now, 0
            if unsaid > 0:
                self._write(f"… and {unsaid} more: {self._where}")
        self._count += 1
        if self._count <= MAX_LINES:
            self._write(refusal_line(refusal))
        if self._count == MAX_LINES:
            self._write(f"Further refusals of this minute are only counted: {self._where}")


def refusal_line(refusal: ProviderRefusal) -> str:
    """Return a refusal as one line."""
    whose = f" {refusal.mailbox}" if refusal.mailbox else ""
    reply = refusal.reply.partition("\n")[0]
    moment = time.strftime("%H:%M:%S", time.localtime(refusal.at))
    return f"{moment} {refusal.client}{whose} {refusal.step}: {refusal.reason} – {reply}"


def _write(line: str) -> None:
    """Write to standard error unless that would block: the reader may never read."""
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stderr, select.POLLOUT)
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            print(line, file=sys.stderr, flush=True)  # noqa: T201
