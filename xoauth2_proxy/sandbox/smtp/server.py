"""The sandbox's SMTP server: its connections, with TLS, timers and back-pressure around a session.

A connection writes the session's replies and does what its ending says. The server limits the
connections and ends idle ones. Works with asyncio and with uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.refusals import format_address
from xoauth2_proxy.sandbox.smtp.session import Session
from xoauth2_proxy.sandbox.smtp.session_state import Ending

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Iterator

    from xoauth2_proxy.sandbox.provider_state import ProviderState
    from xoauth2_proxy.sandbox.refusals import Refusals

HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 5.0  # for the client's share of ending TLS
_MAX_FLIGHTS = 256  # held back by `rtt_seconds`
_NOT_READING = (Ending.UPGRADE, Ending.FREEZE)
_MAX_BACKLOG_BYTES = 64 * 1024  # read ahead while a reply is being delayed
_LINGER_ZERO = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds; closing sends RST
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)  # Linux's; elsewhere only a reset is seen unread

_BACKLOG = 1024
_STOP_SECONDS = 5.0
_ACCEPT_AGAIN_SECONDS = 1.0  # after running out of file descriptors, as asyncio's servers do
_SWEEP_SECONDS = 5.0  # how late an idle or old connection may be ended


class SandboxConnection(asyncio.Protocol):
    """One client connection of the server."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._rtt_seconds = server.provider.behaviour.rtt_seconds
        is_encrypted = server.provider.behaviour.tls is TlsMode.IMPLICIT
        self._session = Session(server.provider, is_encrypted=is_encrypted)
        self._transport: asyncio.Transport | None = None  # None: not yet, or lost
        self._flights: deque[tuple[bytes, Ending]] = deque()  # held back by `rtt_seconds`
        # What came through TLS before `start_tls` returned: a client's EHLO may travel with the
        # last flight of the handshake. None: no handshake is under way.
        self._early: bytearray | None = None
        self._hold: asyncio.TimerHandle | None = None
        self._is_paused_by_peer = False
        # Since when the server has been waiting for the client, if it is.
        self._last_active = self._opened_at = self._loop.time()

    @property
    def _waits_for_client(self) -> bool:
        """Whether it is the client's turn: it has every reply that it will get."""
        transport, session = self._transport, self._session
        if transport is None or transport.is_closing() or session.is_silent:
            return False
        return not (session.is_held or self._flights)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; under implicit TLS, the handshake is over."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        # asyncio sets it only where the listening socket names its protocol, and ours does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session.client = format_address(transport.get_extra_info("peername"))
        if not self._server.enter(self):
            provider = self._server.provider
            why = provider.behaviour.describe_limit("max_connections")
            self.farewell(provider.dialect.encode("421 4.3.2 Too many connections"), "CONNECT", why)
        else:
            self._session.greet()
            self._settle()

    def data_received(self, data: bytes) -> None:
        """Let the session act on octets."""
        session = self._session
        self._last_active = self._loop.time()
        if self._early is not None:
            self._early += data
            return
        if self._flights and session.must_wait:  # it did not wait for the reply
            session.violate()
        else:
            session.receive(data)
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything."""
        self._transport = None
        self._flights.clear()
        if self._hold is not None:
            self._hold.cancel()
        self._session.abandon()
        self._server.leave(self)

    def pause_writing(self) -> None:
        """The client does not read its replies: read no more commands."""
        self._is_paused_by_peer = True
        self._pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_paused_by_peer = False
        self._resume_reading()

    def farewell(self, octets: bytes, step: str, why: str) -> None:
        """Write `octets`, unless the client gets no more replies, and close."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._session.is_silent:
            octets = b""
        self._session.close()
        if self._early is not None:  # no reply can be sent during a TLS handshake
            self.abort()
            return
        if octets:
            self._server.provider.counters.count_replies((octets,))
        said = octets or b"(closed without a word)"
        refusals, session = self._server.provider.refusals, self._session
        refusals.add(session.client, session.mailbox, step, said, why)
        self._deliver(octets, Ending.CLOSE)

    def end_if_idle(self) -> None:
        """Close if the client has been idle for too long, is too old, or has left."""
        now, provider, session = self._loop.time(), self._server.provider, self._session
        behaviour, dialect = provider.behaviour, provider.dialect
        if self._is_deserted():
            self.abort()
        elif not self._waits_for_client:
            return
        elif self._last_active < now - behaviour.idle_seconds:
            why = behaviour.describe_limit("idle_seconds")
            self.farewell(dialect.encode(dialect.idle), "IDLE", why)
        elif session.transaction is None and self._opened_at < now - (
            behaviour.session_seconds or math.inf
        ):
            provider.counters.refused_by_limit["session_seconds"] += 1
            why = behaviour.describe_limit("session_seconds")
            self.farewell(dialect.encode(dialect.session_over), "IDLE", why)

    def abort(self) -> None:
        """Close at once, without a reply."""
        if self._transport is not None:
            self._transport.abort()

    def _is_deserted(self) -> bool:
        """Return whether the client has left a frozen connection; the loop does not report that."""
        if self._transport is None or self._session.ending is not Ending.FREEZE:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _PEER_CLOSED)
        return bool(poll.poll(0))

    def _settle(self) -> None:
        """Do what the session has decided."""
        session = self._session
        octets, ending = session.take_replies(), session.ending
        if octets and not session.is_mid_flight:
            self._server.provider.counters.turns += 1
        if ending in _NOT_READING:
            self._pause_reading()  # nothing slips in between STARTTLS and the handshake
        if self._rtt_seconds and (octets or ending is not Ending.NONE):
            self._flights.append((octets, ending))
            self._loop.call_later(self._rtt_seconds, self._deliver_next)
            if len(self._flights) > _MAX_FLIGHTS:
                self._pause_reading()
        elif octets or ending is not Ending.NONE:
            self._deliver(octets, ending)
        if session.is_held and self._hold is None:
            self._hold = self._loop.call_later(session.hold_seconds, self._release)
        if session.is_held and session.backlog_bytes > _MAX_BACKLOG_BYTES:
            self._pause_reading()

    def _deliver_next(self) -> None:
        if self._flights:
            self._deliver(*self._flights.popleft())
            self._resume_reading()

    def _deliver(self, octets: bytes, ending: Ending) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if ending is Ending.ABORT:
            with contextlib.suppress(OSError):
                peer = transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            transport.abort()
            return
        if octets:
            transport.write(octets)
            self._last_active = self._loop.time()
        if ending is Ending.CLOSE:
            transport.close()
        elif ending is Ending.UPGRADE:
            self._pause_reading()
            self._early = bytearray()
            self._server.own(self._start_tls())

    def _release(self) -> None:
        self._hold = None
        # Also if there is no reply: content may be delayed too.
        self._last_active = self._loop.time()
        self._session.release()
        self._resume_reading()
        self._settle()

    def _pause_reading(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._is_paused_by_peer:
            return
        if not transport.is_reading() and self._session.ending not in _NOT_READING:
            transport.resume_reading()

    async def _start_tls(self) -> None:
        plain = self._transport
        if plain is None:
            return
        self._session.abandon()
        provider, client = self._server.provider, self._session.client
        encrypted: asyncio.Transport | None = None
        try:
            with record_failed_handshake(provider.refusals, client):
                encrypted = await self._loop.start_tls(
                    plain,
                    self,
                    self._server.ssl_context,
                    server_side=True,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
        finally:
            if encrypted is None or encrypted.is_closing():
                # The loop does not report the loss of a connection that is shaking hands.
                plain.abort()
                self.connection_lost(None)
        if self._transport is None or encrypted is None:
            return
        self._transport = encrypted
        # RFC 3207 §4.2: what was said before the handshake is forgotten.
        self._session = Session(provider, is_encrypted=True, client=client)
        early, self._early = self._early, None
        if early:
            self.data_received(bytes(early))


@contextlib.contextmanager
def record_failed_handshake(refusals: Refusals, client: str) -> Iterator[None]:
    """Record that a TLS handshake failed, which is no error of the server, and go on."""
    try:
        yield
    except OSError as error:  # TLS errors included
        why = f"the TLS handshake failed: {error}; does the client trust ca.pem?"
        refusals.add(client, "", "TLS", b"(closed)", why)


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
        for connection in tuple(self._connections):
            connection.abort()
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
        for connection in tuple(self._connections):
            connection.end_if_idle()
        behaviour = self.provider.behaviour
        oldest_seconds = behaviour.session_seconds or math.inf
        interval = min(_SWEEP_SECONDS, behaviour.idle_seconds / 2, oldest_seconds / 2)
        self._sweep = asyncio.get_running_loop().call_later(interval, self._end_idle)
