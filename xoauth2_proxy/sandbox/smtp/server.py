"""The sandbox's SMTP server: it listens, bounds connections and ends idle ones."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.dialects import spoken
from xoauth2_proxy.sandbox.refusals import told_address
from xoauth2_proxy.sandbox.smtp.connection import (
    HANDSHAKE_SECONDS,
    SHUTDOWN_SECONDS,
    SandboxConnection,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Iterator

    from xoauth2_proxy.sandbox.provider_state import ProviderState

_BACKLOG = 1024
_STOP_SECONDS = 5.0
_ACCEPT_AGAIN_SECONDS = 1.0  # after running out of file descriptors, as asyncio's servers do
_SWEEP_SECONDS = 5.0  # how late an idle or old connection may be ended


class SmtpServer:
    """Accepts connections for one provider."""

    def __init__(self, provider: ProviderState, ssl_context: ssl.SSLContext) -> None:
        self.provider = provider
        self.ssl_context = ssl_context
        self._connections: set[SandboxConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unopened: set[socket.socket] = set()  # accepted, in no transport yet
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None  # done when the last connection is gone

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
        """Forget a connection that is gone."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self.provider.counters.connections_open -= 1
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` as a task that `stop` ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def shaking_hands(self, client: str) -> Iterator[None]:
        """Note that a TLS handshake failed, which is the client's doing, and go on."""
        try:
            yield
        except OSError as error:  # TLS errors included
            why = f"the TLS handshake failed: {error}; does the client trust ca.pem?"
            self.provider.refusals.add(client, "", "TLS", b"(closed)", why)

    def close_connections(self, farewell: bytes) -> None:
        """Say `farewell` on every connection and close it."""
        for connection in tuple(self._connections):
            connection.farewell(farewell, "IDLE", "the sandbox was asked to close connections")

    def end_delays(self) -> None:
        """Answer now on every connection whose answer is being delayed."""
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
        with contextlib.suppress(OSError):  # it has gone already
            client = told_address(peer.getpeername())
        with self.shaking_hands(client):
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
        now = loop.time()
        for connection in tuple(self._connections):
            if connection.is_deserted:
                connection.abort()
            elif not connection.waits_for_client:
                continue
            elif connection.last_active < now - behaviour.idle_seconds:
                why = behaviour.told_limit("idle_seconds")
                connection.farewell(dialect.worded(spoken(dialect.idle)), "IDLE", why)
            elif (
                0.0 < behaviour.session_seconds < now - connection.opened_at
                and connection.is_between_messages
            ):
                self.provider.counters.limit_met("session_seconds")
                why = behaviour.told_limit("session_seconds")
                connection.farewell(dialect.worded(spoken(dialect.session_over)), "IDLE", why)
        shortest = min(behaviour.idle_seconds, behaviour.session_seconds or math.inf)
        self._sweep = loop.call_later(min(_SWEEP_SECONDS, shortest / 2), self._end_idle)
