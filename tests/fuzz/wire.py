"""One end of a connection without a socket, so that thousands a second can be had.

It keeps to what an event loop promises a protocol, and notes what a real one would take ill.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable


class Wire(asyncio.Transport):
    """A transport whose other end is a test."""

    _start_tls_compatible = True  # asyncio asks for this before it lays TLS over a transport

    def __init__(self, hears: Callable[[bytes], None]) -> None:
        super().__init__({"peername": ("192.0.2.1", 25), "sockname": ("192.0.2.2", 25)})
        self.faults: list[str] = []
        self._hears = hears
        self._protocol: asyncio.BaseProtocol | None = None
        self._is_closing = False
        self._is_reading = True
        self._saw_eof = False
        self._loop = asyncio.get_running_loop()

    # What the protocol sees.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self.get_protocol().connection_lost, None)

    def abort(self) -> None:
        self.close()

    def _force_close(self, error: Exception | None) -> None:  # what asyncio's TLS calls
        self.close()

    def write(self, data: Any) -> None:
        if self._is_closing:
            self.faults.append("something was written to a closed connection")
        else:
            self._hears(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_reading and self._saw_eof:
            # A socket that is at its end says so to whoever reads next.
            self._loop.call_soon(self.feed_eof)
        self._is_reading = True

    # What the other end does.

    def feed(self, octets: bytes) -> None:
        """Let the protocol have octets, as a loop does: never while it asked for a pause."""
        assert self._is_reading
        assert not self._is_closing
        protocol = self.get_protocol()
        if not isinstance(protocol, asyncio.BufferedProtocol):
            cast("asyncio.Protocol", protocol).data_received(octets)
            return
        while octets:
            space = cast("memoryview", protocol.get_buffer(len(octets)))
            taken = min(len(space), len(octets))
            space[:taken] = octets[:taken]
            protocol.buffer_updated(taken)
            octets = octets[taken:]

    def feed_eof(self) -> None:
        """Let the other end say that it has said everything."""
        if self._is_closing:
            return
        self._saw_eof = True
        keeps_open = cast("asyncio.Protocol", self.get_protocol()).eof_received()
        if not keeps_open:
            self.close()
