"""Listens for mail clients, limits how many may connect, and drains their sessions.

Draining: stop accepting, answer idle clients 421, let transactions finish, then close the rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xoauth2_proxy import log, replies
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.submission.acceptor import BACKLOG, Acceptor
from xoauth2_proxy.submission.address_table import client_block
from xoauth2_proxy.submission.admission import Admission, Decision, Verdict
from xoauth2_proxy.submission.arrivals import Arrivals
from xoauth2_proxy.submission.pace import SLOW_SECONDS, TRUSTED_SECONDS, RecentClients
from xoauth2_proxy.submission.policy import ListenerTls
from xoauth2_proxy.submission.session import ClientSession

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.relay import Relay
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.submission.acceptor import ClientCounter
    from xoauth2_proxy.submission.address_table import AddressTable
    from xoauth2_proxy.submission.arrivals import Arrival
    from xoauth2_proxy.submission.authenticator import Authenticator
    from xoauth2_proxy.submission.buffer_budget import BufferBudget
    from xoauth2_proxy.submission.policy import SessionPolicy

_COMPLAINT_SECONDS = 60.0  # between two lines about the same
_LAST_REPLIES_SECONDS = 2.0  # for clients to read their last replies
_log = log.logger("listener")

_REFUSALS = {
    Verdict.ADMITTED: None,
    Verdict.LISTENER_FULL: replies.TOO_MANY_CONNECTIONS,
    Verdict.ADDRESS_FULL: replies.TOO_MANY_FROM_ADDRESS,
}


@dataclass(frozen=True, slots=True)
class Places:
    """How many clients a listener has room for."""

    in_all: int
    for_address: int
    here: int  # in this process, whose descriptors are limited
    last_descriptor: int  # from it on, clients are turned away whatever their number
    addresses: AddressTable  # who has them


class _Alone:
    """The clients of a process that shares its ports with no other."""

    def count(self, clients: int) -> int:
        return clients

    def is_ahead(self, clients: int) -> bool:
        return False


class Listener:
    """Accepts clients and counts their sessions."""

    def __init__(
        self,
        policy: SessionPolicy,
        places: Places,
        authenticator: Authenticator,
        relay: Relay,
        metrics: Metrics,
        budget: BufferBudget,
    ) -> None:
        self.budget = budget
        self.slow_clients = RecentClients(SLOW_SECONDS)
        self.trusted_clients = RecentClients(TRUSTED_SECONDS)
        self._policy = policy
        self._admission: Admission[ClientSession | Arrival] = Admission(
            places.in_all,
            places.for_address,
            places.addresses,
            self._count,
            places.here,
        )
        self._last_descriptor = places.last_descriptor
        self._complains_again_at = 0.0
        self._authenticator = authenticator
        self._relay = relay
        self._metrics = metrics
        self._sessions: set[ClientSession] = set()  # whose connections are open
        self._running: set[ClientSession] = set()  # those that have not said their last words
        self._servers: list[asyncio.Server] = []
        self._acceptor: Acceptor | None = None
        self._client_counts: ClientCounter | None = None  # None: there are no other workers
        self._arrivals = Arrivals(lambda: self._policy, self._new_session, self, relay.observer)
        self._is_draining = False
        self._has_changed = asyncio.Event()  # a session has ended, or its connection is closed

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._policy.listener

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Use a context for the handshakes of the sessions that begin from now on."""
        self._policy = replace(self._policy, tls_context=context)

    def offer(self, mechanisms: tuple[str, ...]) -> None:
        """Offer these mechanisms in the sessions that begin from now on."""
        if mechanisms != self._policy.mechanisms:
            self._policy = replace(self._policy, mechanisms=mechanisms)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept clients from listening sockets that no other process has. Raises `OSError`."""
        if self._policy.looks_first:
            self._acceptor = Acceptor(sockets, self._receive, self._admission.__len__, _Alone())
            return
        loop = asyncio.get_running_loop()
        for one in sockets:
            self._servers.append(
                await loop.create_server(self._new_session, sock=one, backlog=BACKLOG)
            )

    def start_on(self, sockets: Sequence[socket.socket], client_counts: ClientCounter) -> None:
        """Accept clients from sockets that are already listening, shared with other processes."""
        self._client_counts = client_counts
        self._acceptor = Acceptor(sockets, self._receive, self._admission.__len__, client_counts)

    def _count(self, clients: int) -> int:
        return clients if self._client_counts is None else self._client_counts.count(clients)

    async def drain(self, deadline_seconds: float) -> int:
        """Stop accepting, let the sessions end, and return how many had to be cut off.

        Cancelling the call leaves the sessions running.
        """
        self._is_draining = True
        for server in self._servers:
            server.close()
        if self._acceptor is not None:
            self._acceptor.close()
        for session in list(self._running):
            session.drain_session()
        await self._wait_until_empty(self._running, deadline_seconds)
        cut = list(self._running)
        for session in cut:
            session.cut()
        # Wait briefly for the last replies to be read, then close the connections.
        await self._wait_until_empty(self._sessions, _LAST_REPLIES_SECONDS)
        for session in list(self._sessions):
            session.abort()
        return len(cut)

    async def _wait_until_empty(self, sessions: set[ClientSession], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while sessions:
                    self._has_changed.clear()
                    await self._has_changed.wait()

    def _new_session(self, arrival: Arrival | None = None) -> ClientSession:
        return ClientSession(
            self._policy, self._authenticator, self._relay, self._metrics, self, arrival
        )

    def admit(self, session: ClientSession, address: str) -> Reply | None:
        """Count a new session; return the reply if there are too many, or draining has begun."""
        arrival = session.arrival
        if self._is_draining:
            refusal: Reply | None = replies.SHUTTING_DOWN
        elif session.descriptor >= self._last_descriptor:
            refusal = replies.TOO_MANY_CONNECTIONS
            self._complain()
        elif arrival is None and not self._policy.may_connect(address):
            refusal = replies.NETWORK_NOT_ALLOWED
        elif arrival is None:
            refusal = self._decide(self._admission.arrive, session, address)
        else:
            refusal = arrival.refusal
            arrival.session = session  # which has the arrival's place from now on
        self._metrics.client_connections.labels("refused" if refusal else "accepted").inc()
        if refusal is None:
            self._sessions.add(session)
            self._running.add(session)
            self._metrics.client_sessions.inc()
        return refusal

    def _complain(self) -> None:
        """Log, once a minute at most, that few descriptors are left."""
        now = time.monotonic()
        if now >= self._complains_again_at:
            self._complains_again_at = now + _COMPLAINT_SECONDS
            _log.event(
                logging.ERROR,
                "nearly out of file descriptors; new clients are told to come back",
                listener=self.name,
                remedy="raise the limit of open files: ulimit -n, or LimitNOFILE= of systemd",
            )

    # Connections that are looked at before their sessions begin.

    def arrive(self, arrival: Arrival, address: str, *, is_balancer: bool) -> Reply | None:
        """Count a connection; return the reply if there are too many.

        A load balancer's is counted for its client's address later: `identify`.
        """
        if is_balancer:
            return _REFUSALS[self._admission.arrive_unnamed(arrival)]
        if not self._policy.may_connect(address):
            return replies.NETWORK_NOT_ALLOWED
        return self._decide(self._admission.arrive, arrival, address)

    def identify(self, arrival: Arrival, address: str) -> Reply | None:
        """The PROXY header has named the client; return as `arrive`."""
        if not self._policy.may_connect(address):
            self._admission.leave(arrival)
            return replies.NETWORK_NOT_ALLOWED
        return self._decide(self._admission.identify, arrival, address)

    def gone(self, arrival: Arrival) -> None:
        """There will be no session."""
        self._admission.leave(arrival)
        self._metrics.client_connections.labels("not greeted").inc()

    async def _receive(self, connection: socket.socket) -> None:
        await self._arrivals.receive(connection)

    def _decide(
        self,
        decide: Callable[..., Decision[ClientSession | Arrival]],
        client: ClientSession | Arrival,
        address: str,
    ) -> Reply | None:
        # Programs of this machine do as they like, and often for many: a tunnel, a container.
        is_own = is_loopback(address) or self._policy.speaks_proxy(address)
        decision = decide(client, client_block(address), time.monotonic(), is_limited=not is_own)
        if decision.displaced is not None:
            self._metrics.client_connections.labels("displaced").inc()
            decision.displaced.displace()
        return _REFUSALS[decision.verdict]

    def logged_in(self, session: ClientSession) -> None:
        """Keep the session's place for it, and know its address from now on."""
        self._admission.log_in(session.arrival or session, time.monotonic())

    def ended(self, session: ClientSession) -> None:
        """Remove a session from the count once its connection is closed and its work is done.

        A client that disappeared may have left a message that is still being sent. The session
        counts until that is done.
        """
        self._running.discard(session)
        if session in self._sessions and session.is_gone:
            self._sessions.remove(session)
            self._admission.leave(session.arrival or session)
            if self._policy.tls is ListenerTls.AUTO:
                self._note_habit(session)
            self._metrics.client_sessions.dec()
        self._has_changed.set()

    def _note_habit(self, session: ClientSession) -> None:
        """Remember whether the session's client began with TLS."""
        client, habits = session.client, self._arrivals.habits
        if session.spoke_tls_unasked:
            habits.began_too_late(client.address)
        elif not session.began_with_tls and (client.account or client.tls):
            habits.used_clear(client.address)
