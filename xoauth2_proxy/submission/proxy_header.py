"""Reads a load balancer's PROXY header (versions 1 and 2) with aiosmtpd's parser, without I/O."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

from aiosmtpd.proxy_protocol import get_proxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from aiosmtpd.proxy_protocol import ProxyData

_MAX_LINE_BYTES = 256  # a version 1 header has 107 octets at most


class ProxyHeader:
    """The header that precedes everything a client says.

    The parser is a coroutine that reads from a stream. Here it is advanced by hand, and reads from
    this object, which suspends it while octets are missing.
    """

    def __init__(self) -> None:
        self._unread = b""
        self._parsing = get_proxy(self)

    def feed(self, octets: bytes) -> ProxyData | None:
        """Take octets; return the header once it is complete or known to be malformed."""
        self._unread += octets
        try:
            self._parsing.send(None)
        except StopIteration as done:
            header: ProxyData = done.value
            return header
        return None

    def close(self) -> None:
        """Give up; nothing may be fed afterwards."""
        self._parsing.close()

    @property
    def rest(self) -> bytes:
        """What the client itself has sent behind the header."""
        return self._unread

    # The stream that the parser reads.

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` octets."""
        while len(self._unread) < n:
            await _more()
        return self._take(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return the octets up to and including `separator`. Raises `ValueError` if too many."""
        while (end := self._unread.find(separator)) < 0:
            if len(self._unread) > _MAX_LINE_BYTES:
                raise ValueError("the line is too long")
            await _more()
        return self._take(end + len(separator))

    async def read(self, n: int = -1) -> bytes:
        """Return between one and `n` octets."""
        while not self._unread:
            await _more()
        return self._take(n if n >= 0 else len(self._unread))

    def _take(self, count: int) -> bytes:
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken


@types.coroutine
def _more() -> Generator[None, None, None]:
    """Suspend the parser until the next `feed`."""
    yield
