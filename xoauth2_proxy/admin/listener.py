"""Accepts the clients of the admin server, whose HTTP library is imported for the first of them.

That library is a third of the proxy's start and a sixth of its idle memory. Mail does not need it.
"""

from __future__ import annotations

import asyncio
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from xoauth2_proxy import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.admin.server import AdminServer

_log = log.logger("admin")


class AdminListener:
    """The socket of one relay's admin server."""

    def __init__(self, make_server: Callable[[], AdminServer]) -> None:
        self._make_server = make_server
        self._host = ""
        self._listening: asyncio.Server | None = None
        self._server: AdminServer | None = None
        self._new_protocol: Callable[[], asyncio.Protocol] | None = None  # of the server
        self._loading: asyncio.Task[None] | None = None
        self._waiting: list[_Waiting] = []  # the clients that came before the server

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address and port in use. Raises `OSError`."""
        self._host = host
        self._listening = await asyncio.get_running_loop().create_server(self._protocol, host, port)
        address = self._listening.sockets[0].getsockname()
        return address[0], address[1]

    async def stop(self) -> None:
        """Stop listening and end running requests."""
        if self._listening is not None:
            self._listening.close()
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError):
                await self._loading
        self._turn_away()
        if self._server is not None:
            await self._server.stop()

    def _protocol(self) -> asyncio.Protocol:
        return _Waiting(self._wait) if self._new_protocol is None else self._new_protocol()

    def _wait(self, client: _Waiting) -> None:
        if self._new_protocol is not None:  # since this client was accepted
            client.go_on_with(self._new_protocol())
            return
        self._waiting.append(client)
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="admin server")

    async def _load(self) -> None:
        try:
            # In a thread, so that mail does not wait.
            await asyncio.to_thread(importlib.import_module, "xoauth2_proxy.admin.server")
            self._server = self._make_server()
            self._new_protocol = await self._server.open(self._host)
        except Exception:
            _log.exception("the admin server cannot start")
            self._turn_away()
            self._loading = None  # the next client is another try
            return
        for client in self._waiting:
            client.go_on_with(self._new_protocol())
        self._waiting.clear()

    def _turn_away(self) -> None:
        for client in self._waiting:
            client.transport.abort()
        self._waiting.clear()


class _Waiting(asyncio.Protocol):
    """A client's protocol until there is a server."""

    def __init__(self, wait: Callable[[_Waiting], None]) -> None:
        self._wait = wait
        self._early = b""  # one read at most
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._wait(self)

    def data_received(self, data: bytes) -> None:
        self._early += data
        self.transport.pause_reading()

    def go_on_with(self, protocol: asyncio.Protocol) -> None:
        """Pass the connection to the server's protocol."""
        if self.transport.is_closing():
            return
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._early:
            protocol.data_received(self._early)
            self.transport.resume_reading()
