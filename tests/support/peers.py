"""The provider's end of a connection, played line by line by a test.

A flight is proved by reading all of it before anything is answered.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from tests.support.listening import stop_listening
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.upstream.connection import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

_SILENCE_SECONDS = 0.01  # what leaves in one flight arrives in one read


class Peer:
    """One connection as the provider sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.lines: list[bytes] = []  # read with `line`, without CRLF

    async def expects(self, octets: bytes) -> None:
        """Read as many octets, which must be these."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await self.reader.readexactly(len(octets)) == octets

    async def expects_flight(self, octets: bytes) -> None:
        """Read these octets, behind which nothing comes before an answer."""
        await self.expects(octets)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SILENCE_SECONDS):
                raise AssertionError(f"more came unasked: {await self.reader.read(100)!r}")

    async def line(self) -> bytes:
        """Return the next line without CRLF; b"" at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self.reader.readline()
        assert line.endswith(b"\r\n") or not line
        if line:
            self.lines.append(line[:-2])
        return line[:-2]

    async def rest(self) -> bytes:
        """Return all octets until the other end hangs up, in whatever way."""
        read = bytearray()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionError):
                while octets := await self.reader.read(65_536):
                    read += octets
        return bytes(read)

    def says(self, *lines: str) -> None:
        """Send lines, CRLF added."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def starts_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.writer.start_tls(context)

    def hangs_up(self) -> None:
        """Close in good order."""
        self.writer.close()

    def breaks(self) -> None:
        """Close at once."""
        self.writer.transport.abort()


@asynccontextmanager
async def serving(
    script: Callable[[Peer], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Run `script` for every connection to the port given; what it raises, the test raises.

    A script that is waiting for the other end when the test ends is cancelled.
    """
    failures: list[BaseException] = []
    running: set[asyncio.Task[None]] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await script(Peer(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            running.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await stop_listening(server)
        for task in tuple(running):
            task.cancel()
        if running:
            await asyncio.wait(tuple(running), timeout=PATIENCE_SECONDS)
    if failures:
        raise failures[0]


class Upstreams:
    """Connections of ours to a listener on loopback, with the peers at their other ends."""

    def __init__(self, port: int, arrivals: dict[object, asyncio.Future[Peer]]) -> None:
        self._port = port
        self._arrivals = arrivals  # by the address of our end
        self._transports: list[asyncio.Transport] = []

    async def connect(self, extensions: Mapping[str, str] | None = None) -> tuple[Connection, Peer]:
        """Return a new connection and its other end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, "127.0.0.1", self._port
            )
            peer = await _arrival(self._arrivals, transport.get_extra_info("sockname"))
        self._transports.append(transport)
        return Connection(transport, extensions or {}), peer

    def abort(self) -> None:
        for transport in self._transports:
            transport.abort()


def _arrival(arrivals: dict[object, asyncio.Future[Peer]], address: object) -> asyncio.Future[Peer]:
    if address not in arrivals:
        arrivals[address] = asyncio.get_running_loop().create_future()
    return arrivals[address]


@asynccontextmanager
async def upstreams() -> AsyncIterator[Upstreams]:
    """Listen for connections made with `Upstreams.connect`; all end with the block."""
    arrivals: dict[object, asyncio.Future[Peer]] = {}
    peers: list[Peer] = []

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(Peer(reader, writer))
        _arrival(arrivals, writer.get_extra_info("peername")).set_result(peers[-1])

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    made = Upstreams(server.sockets[0].getsockname()[1], arrivals)
    try:
        yield made
    finally:
        await stop_listening(server)
        made.abort()
        for peer in peers:
            peer.writer.transport.abort()
        for peer in peers:
            with suppress(ConnectionError):
                await peer.writer.wait_closed()
