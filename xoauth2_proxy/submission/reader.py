"""Buffers what a client has sent until the session reads it, with back-pressure.

When more than `_HIGH_BYTES` are waiting, the transport stops reading, and TCP's flow control slows
the client down. No compliant client is ever disconnected for sending fast.
"""

from __future__ import annotations

import asyncio
import math

_HIGH_BYTES = 65_536  # reading pauses above it; one read of an event loop may exceed it
_LOW_BYTES = 16_384
_MAX_PROXY_LINE_BYTES = 256  # a version 1 header has 107 octets at most
_START_BYTES = 16  # kept of a line that is too long: enough to recognize its command


class EndOfInput(Exception):
    """The client will send no more octets."""


class Interrupted(Exception):
    """A wait for the client was ended by `Reader.interrupt`."""


class LineTooLong(Exception):
    """A line exceeded its limit and was discarded. `start` holds its first octets."""

    def __init__(self, start: bytes) -> None:
        super().__init__()
        self.start = start


class Reader:
    """A buffer between a transport and its only reader.

    Every wait ends with `TimeoutError` after `idle_seconds` without an octet.
    """

    __slots__ = (
        "_buffer",
        "_idle_seconds",
        "_interrupted",
        "_is_paused",
        "_loop",
        "_saw_eof",
        "_start",
        "_timer",
        "_transport",
        "_waiter",
        "_waiting_since",
    )

    def __init__(self, transport: asyncio.Transport, idle_seconds: float = math.inf) -> None:
        self._buffer = b""
        self._start = 0  # everything before it has been read
        self._transport = transport
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._waiting_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._saw_eof = False
        self._interrupted = False

    @property
    def has_octets(self) -> bool:
        """Whether anything is waiting to be read."""
        return self._start < len(self._buffer)

    @property
    def has_line(self) -> bool:
        """Whether a whole line is waiting to be read."""
        return self._buffer.find(b"\n", self._start) >= 0

    def feed(self, octets: bytes) -> None:
        """Append octets from the transport."""
        self._buffer = self._buffer[self._start :] + octets if self.has_octets else octets
        self._start = 0
        if len(self._buffer) > _HIGH_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        """Record that no more octets will come; those waiting can still be read."""
        self._saw_eof = True
        self._wake()

    def interrupt(self) -> None:
        """Make the current wait, or the next one, raise `Interrupted`."""
        self._interrupted = True
        self._wake()

    def close(self) -> None:
        """Cancel the timer; nothing may be read afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def move_to(self, transport: asyncio.Transport) -> None:
        """Switch to another transport of the connection (STARTTLS); the buffer must be empty."""
        self._transport = transport
        self._is_paused = False

    async def line(self, max_bytes: int) -> bytes:
        """Return the next line with its LF.

        Raises:
            LineTooLong: it was longer than `max_bytes` and was discarded.
            EndOfInput: no line is left.
            Interrupted: see `interrupt`.
            TimeoutError: the client was silent for too long.
        """
        searched = 0  # how many of the unread octets are known to hold no LF
        while (end := self._buffer.find(b"\n", self._start + searched)) < 0:
            searched = len(self._buffer) - self._start
            if searched > max_bytes:
                raise LineTooLong(await self._discard_line())
            await self._more()
        line = self._take(end + 1 - self._start)
        if len(line) > max_bytes:
            raise LineTooLong(line[:_START_BYTES])
        return line

    async def octets(self, max_bytes: int) -> bytes:
        """Return the waiting octets, at least one and at most `max_bytes`.

        Raises:
            EndOfInput: nothing is left.
            Interrupted: see `interrupt`.
            TimeoutError: the client was silent for too long.
        """
        while not self.has_octets:
            await self._more()
        return self._take(max_bytes)

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` octets, for aiosmtpd's reader of PROXY headers.

        Raises as `octets` does, and `asyncio.IncompleteReadError` at the end of input.
        """
        taken = b""
        while len(taken) < n:
            try:
                taken += await self.octets(n - len(taken))
            except EndOfInput:
                raise asyncio.IncompleteReadError(taken, n) from None
        return taken

    async def read(self, n: int = _HIGH_BYTES) -> bytes:
        """Return up to `n` octets, b"" at the end of input."""
        try:
            return await self.octets(n)
        except EndOfInput:
            return b""

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return the octets up to and including `separator`, which ends in LF.

        Raises as `line` does, and `asyncio.IncompleteReadError` at the end of input.
        """
        taken = b""
        while not taken.endswith(separator):
            try:
                taken += await self.line(_MAX_PROXY_LINE_BYTES)
            except EndOfInput:
                raise asyncio.IncompleteReadError(taken, None) from None
        return taken

    def put_back(self, octets: bytes) -> None:
        """Put back octets that were read but not used."""
        self._buffer = octets + self._buffer[self._start :]
        self._start = 0

    async def _discard_line(self) -> bytes:
        start = self._buffer[self._start : self._start + _START_BYTES]
        while (end := self._buffer.find(b"\n", self._start)) < 0:
            self._take(len(self._buffer))
            await self._more()
        self._take(end + 1 - self._start)
        return start

    def _take(self, count: int) -> bytes:
        end = self._start + count
        taken = self._buffer[self._start : end]
        self._start = end
        if end >= len(self._buffer):
            self._buffer, self._start = b"", 0
        if self._is_paused and len(self._buffer) - self._start <= _LOW_BYTES:
            self._is_paused = False
            self._transport.resume_reading()
        return taken

    async def _more(self) -> None:
        if self._saw_eof:
            raise EndOfInput
        if self._interrupted:
            raise Interrupted
        self._waiter = self._loop.create_future()
        self._waiting_since = self._loop.time()
        if self._timer is None and self._idle_seconds != math.inf:
            self._timer = self._loop.call_later(self._idle_seconds, self._check_deadline)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _check_deadline(self) -> None:
        """End a wait that has lasted too long. One timer, moved forward, serves many waits."""
        self._timer = None
        if self._waiter is None:
            return
        remaining = self._waiting_since + self._idle_seconds - self._loop.time()
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._check_deadline)
        elif not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
