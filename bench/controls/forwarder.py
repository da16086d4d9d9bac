"""The minimal relay: passes octets between a client and the provider without reading them.

No TLS, no parsing, no accounts: the client talks to the provider itself. Reading pauses while the
other side is not ready to receive.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import cast

from bench.process.open_files import raise_open_file_limit
from bench.process.server_process import run, stop_signal, write_ready_file

_CONNECT_SECONDS = 10.0
_BACKLOG = 1024


class _Side(asyncio.Protocol):
    """One end of a forwarded connection."""

    __slots__ = ("_early", "_has_ended", "_other", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None  # None: not connected yet, or closed
        self._other: _Side | None = None
        self._early = b""  # read before the other end was connected: one or two reads at most
        self._has_ended = False  # the peer sends no more

    def join(self, other: _Side) -> None:
        """Forward to `other` from now on, beginning with the octets already read."""
        self._other = other
        if self._early:
            self._pass_on(self._early)
            self._early = b""
            if self.transport is not None:
                self.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._pass_on(data)
            return
        self._early += data
        if self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._has_ended = True
        other = self._other
        if other is None or other.transport is None or other.transport.is_closing():
            return False
        other.transport.write_eof()
        # Once both have ended, the event loop closes neither by itself.
        return not other._has_ended

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._other is not None and self._other.transport is not None:
            self._other.transport.close()

    def pause_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.write(data)


class _ClientSide(_Side):
    """The client's end; it opens the connection of the other end."""

    __slots__ = ("_opening", "_upstream")

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__()
        self._upstream = upstream
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        side = _Side()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_connection(lambda: side, *self._upstream)
        except OSError:  # TimeoutError included
            if self.transport is not None:
                self.transport.abort()
            return
        if self.transport is None:  # the client has disconnected meanwhile
            if side.transport is not None:
                side.transport.abort()
            return
        side.join(self)
        self.join(side)


async def _serve(port: int, upstream: tuple[str, int], ready_file: Path) -> None:
    stop = stop_signal()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _ClientSide(upstream), "127.0.0.1", port, backlog=_BACKLOG
    )
    host, port = server.sockets[0].getsockname()[:2]
    write_ready_file(ready_file, {"smtp": f"{host}:{port}"})
    await stop.wait()
    server.close()


def main() -> None:
    """Forward until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m bench.controls.forwarder", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--ready-file", type=Path, required=True)
    arguments = parser.parse_args()
    host, _, upstream_port = arguments.upstream.rpartition(":")
    raise_open_file_limit()
    run(_serve(arguments.port, (host, int(upstream_port)), arguments.ready_file))


if __name__ == "__main__":
    main()
