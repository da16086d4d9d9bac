"""The sandbox's SMTP server: listens, limits the connections and ends idle ones."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.refusals import format_address
from xoauth2_proxy.sandbox.smtp.connection import (
    HANDSHAKE_SECONDS,
    SHUTDOWN_SECONDS,
    SandboxConnection,
    record_failed_handshake,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

    from xoauth2_proxy.sandbox.provider_state import ProviderState

_BACKLOG = 1024
_STOP_SECONDS = 5.0
_ACCEPT_AGAIN_SECONDS = 1.0  # after running out of file descriptors, as asyncio's servers do
_SWEEP_SECONDS = 5.0  # how late an idle or old connection may be ended


class SmtpServer:
    """Accepts the connections of one provider."""

    def __init__(self, provider: ProviderState, ssl_context: ssl.SSLContext) -> None:
        self.provider = provider
        self.ssl_context = ssl_context
        self._connections: set[SandboxConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unopened: set[socket.socket] = set()  # accepted, without a transport so far
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None  # done when the last connection is lost

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address bound."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        listening.setblocking(False)
        address = listening.getsockname()
        if self.provider.behaviour.tls is TlsMode.IMPLICIT:
            self.own(self._accept(listening))
        else:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: SandboxConnection(self), sock=listening, backlog=_BACKLOG
            )
        self._end_idle()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Stop listening and abort every connection; bounded in time."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        self.abort_connections()
        async with asyncio.timeout(_STOP_SECONDS):
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for peer in self._unopened:
                peer.close()
            if self._connections:
                self._empty = asyncio.get_running_loop().create_future()
                await self._empty
            if self._server is not None:
                await self._server.wait_closed()

    def enter(self, connection: SandboxConnection) -> bool:
        """Count a new connection; return whether there is room for it."""
        counters = self.provider.counters
        counters.connections_opened += 1
        counters.connections_open += 1
        counters.connections_peak = max(counters.connections_peak, counters.connections_open)
        self._connections.add(connection)
        return len(self._connections) <= self.provider.behaviour.max_connections

    def leave(self, connection: SandboxConnection) -> None:
        """Forget a connection that is lost."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self.provider.counters.connections_open -= 1
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` as a task that `stop` cancels."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close_connections(self, farewell: bytes) -> None:
        """Write `farewell` on every connection and close it."""
        for connection in tuple(self._connections):
            connection.farewell(farewell, "IDLE", "the sandbox was asked to close connections")

    def end_delays(self) -> None:
        """Send all delayed replies now."""
        for connection in tuple(self._connections):
            connection.end_delay()

    def abort_connections(self) -> None:
        """Close every connection without a word."""
        for connection in tuple(self._connections):
            connection.abort()

    async def _accept(self, listening: socket.socket) -> None:
        # `create_server(ssl=…)` would shake hands where `stop` cannot reach.
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    peer, _ = await loop.sock_accept(listening)
                except OSError:
                    await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                    continue
                self._unopened.add(peer)
                self.own(self._shake_hands(peer))

    async def _shake_hands(self, peer: socket.socket) -> None:
        self._unopened.remove(peer)  # the transport closes it from here on
        loop = asyncio.get_running_loop()
        client = ""
        with contextlib.suppress(OSError):  # the client has left already
            client = format_address(peer.getpeername())
        with record_failed_handshake(self.provider.refusals, client):
            await loop.connect_accepted_socket(
                lambda: SandboxConnection(self),
                peer,
                ssl=self.ssl_context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )

    def _end_idle(self) -> None:
        loop = asyncio.get_running_loop()
        behaviour, dialect = self.provider.behaviour, self.provider.dialect
        now, oldest = loop.time(), behaviour.session_seconds or math.inf
        for connection in tuple(self._connections):
            if connection.is_deserted:
                connection.abort()
            elif not connection.waits_for_client:
                continue
            elif connection.last_active < now - behaviour.idle_seconds:
                self._end_for(connection, "idle_seconds", dialect.idle)
            elif connection.opened_at < now - oldest and connection.is_between_messages:
                self.provider.counters.limit_met("session_seconds")
                self._end_for(connection, "session_seconds", dialect.session_over)
        interval = min(_SWEEP_SECONDS, behaviour.idle_seconds / 2, oldest / 2)
        self._sweep = loop.call_later(interval, self._end_idle)

    def _end_for(self, connection: SandboxConnection, limit: str, farewell: str) -> None:
        octets = self.provider.dialect.encode(farewell)
        connection.farewell(octets, "IDLE", self.provider.behaviour.describe_limit(limit))
