"""Shares each mailbox's upstream connections and rate limit among worker processes.

A connection needs a slot, which is a lock on its own file. The kernel releases the lock when the
process that holds it ends, for whatever reason.
I1: all workers together never hold more of a mailbox's slots than its limit.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import random
import struct
import time
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.upstream.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = log.logger("slots")

_NAME_BYTES = 16  # of the mailbox's digest: does not reveal the mailbox, and does not collide
_RATE_RETRY_SECONDS = 0.001  # the file is locked for some microseconds
_FLOAT = struct.Struct("d")


class WorkerSlots:
    """One worker's view of the slots of all mailboxes."""

    def __init__(self, directory: Path, rates: Path, tell: Callable[[str], None]) -> None:
        """`tell` sends a line to the other workers, which pass it to `heard`.

        `rates` must not outlive the machine's monotonic clock. Raises `OSError`.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._rates = rates
        self._tell = tell
        self._mailboxes: dict[str, MailboxSlots] = {}

    def of(
        self, mailbox: object, give_way: Callable[[int], None], retry: Callable[[], None]
    ) -> MailboxSlots:
        """Return the slots of a mailbox, identified by `repr(mailbox)`.

        `give_way` is called with the number another worker holds when it wants a slot; `retry` when
        another worker has just released one for us.
        """
        name = hashlib.sha256(repr(mailbox).encode()).hexdigest()[: 2 * _NAME_BYTES]
        slots = MailboxSlots(
            self._directory / name, self._rates / name, give_way, retry, self._tell
        )
        self._mailboxes[name] = slots
        return slots

    def forget(self, slots: MailboxSlots) -> None:
        """Remove a mailbox that is no longer in use."""
        self._mailboxes.pop(slots.name, None)

    def heard(self, line: str) -> None:
        """Handle a line from another worker."""
        word, name, *number = line.split()
        slots = self._mailboxes.get(name)
        if slots is None:
            return
        if word == "wanted":
            slots.give_way(int(number[0]))
        elif word == "freed":
            slots.retry()


class MailboxSlots:
    """One mailbox's slots. They are interchangeable."""

    def __init__(
        self,
        file: Path,
        rate_file: Path,
        give_way: Callable[[int], None],
        retry: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self.name = file.name
        self.give_way = give_way
        self.retry = retry
        self._file = file
        self._rate_file = rate_file
        self._tell = tell
        self._held: dict[int, int] = {}  # the locked file's descriptor, by the slot's number

    @property
    def held(self) -> int:
        """The number of slots that this worker holds."""
        return len(self._held)

    def take(self, number: int) -> bool:
        """Take one of the first `number` slots; False if all are taken. Never blocks."""
        first = random.randrange(number)  # noqa: S311 - workers rarely try the same slot
        for slot in (*range(first, number), *range(first)):
            if slot in self._held:
                continue
            try:
                descriptor = _locked(f"{self._file}.{slot}")
            except OSError as error:
                _log.error("a slot cannot be locked: %s", error)
                return False
            if descriptor is not None:
                self._held[slot] = descriptor
                return True
        return False

    def give_back(self) -> None:
        """Release one of the slots held."""
        # The highest: if the limit was lowered, it is beyond the limit.
        os.close(self._held.pop(max(self._held)))

    def want(self) -> None:
        """Ask the other workers for a slot."""
        self._tell(f"wanted {self.name} {self.held}")

    def tell_freed(self) -> None:
        """Tell the worker that wants a slot that one is free."""
        self._tell(f"freed {self.name}")

    async def reserve(self, per_minute: float, patience_seconds: float) -> float | None:
        """Reserve the mailbox's next turn among all workers; otherwise as `RateLimit.reserve`."""
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                descriptor = _locked(self._rate_file)
                if descriptor is not None:
                    return _reserve(descriptor, per_minute, patience_seconds)
            except OSError as error:
                _log.error("a mailbox's rate cannot be read: %s", error)
                return None
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_RATE_RETRY_SECONDS)


def _locked(file: Path | str) -> int | None:
    """Return a descriptor that holds the lock on `file`; None if another holder has it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _reserve(descriptor: int, per_minute: float, patience_seconds: float) -> float | None:
    """Reserve a turn in a locked rate file, then release the lock."""
    try:
        octets = os.pread(descriptor, _FLOAT.size, 0)
        rate_limit = RateLimit(_FLOAT.unpack(octets)[0] if octets else 0.0)
        delay = rate_limit.reserve(time.monotonic(), per_minute, patience_seconds)
        os.pwrite(descriptor, _FLOAT.pack(rate_limit.whole_at), 0)
        return delay
    finally:
        os.close(descriptor)
