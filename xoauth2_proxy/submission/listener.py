"""Listens for mail clients, limits how many may connect, and drains their sessions.

Draining: stop accepting, answer idle clients 421, let transactions finish, then close the rest.

A limit for each client address has to wait for `ClientSession._greet`: behind a load balancer, the
address is known only once the PROXY header has been read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from xoauth2_proxy.submission.acceptor import BACKLOG, Acceptor
from xoauth2_proxy.submission.session import ClientSession

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.relay import Relay
    from xoauth2_proxy.submission.acceptor import ClientCounter
    from xoauth2_proxy.submission.authenticator import Authenticator
    from xoauth2_proxy.submission.policy import SessionPolicy

_LAST_REPLIES_SECONDS = 2.0  # for clients to read their last replies


class Listener:
    """Accepts clients and counts their sessions."""

    def __init__(
        self,
        policy: SessionPolicy,
        max_connections: int,
        authenticator: Authenticator,
        relay: Relay,
        metrics: Metrics,
    ) -> None:
        self._policy = policy
        self._max_connections = max_connections
        self._authenticator = authenticator
        self._relay = relay
        self._metrics = metrics
        self._sessions: set[ClientSession] = set()  # those that count
        self._running: set[ClientSession] = set()  # those that have not said their last words
        self._servers: list[asyncio.Server] = []
        self._acceptor: Acceptor | None = None
        self._client_counts: ClientCounter | None = None  # None: there are no other workers
        self._is_draining = False
        self._has_changed = asyncio.Event()  # a session has ended, or its connection is closed

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._policy.name

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept clients from listening sockets that no other process has. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        for one in sockets:
            self._servers.append(
                await loop.create_server(self._new_session, sock=one, backlog=BACKLOG)
            )

    def start_on(self, sockets: Sequence[socket.socket], client_counts: ClientCounter) -> None:
        """Accept clients from sockets that are already listening, shared with other processes."""
        self._client_counts = client_counts
        self._acceptor = Acceptor(sockets, self._new_session, self._sessions.__len__, client_counts)

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

    def _new_session(self) -> ClientSession:
        return ClientSession(self._policy, self._authenticator, self._relay, self._metrics, self)

    def admit(self, session: ClientSession) -> bool:
        """Count a new session; False if there are too many or draining has begun."""
        clients = len(self._sessions)
        if self._is_draining or self._count(clients + 1) > self._max_connections:
            self._count(clients)
            self._metrics.client_connections.labels("refused").inc()
            return False
        self._sessions.add(session)
        self._running.add(session)
        self._metrics.client_connections.labels("accepted").inc()
        self._metrics.client_sessions.inc()
        return True

    def ended(self, session: ClientSession) -> None:
        """Remove a session from the count once its connection is closed and its work is done.

        A client that disappeared may have left a message that is still being sent. The session
        counts until that is done.
        """
        self._running.discard(session)
        if session in self._sessions and session.is_gone:
            self._sessions.remove(session)
            self._count(len(self._sessions))
            self._metrics.client_sessions.dec()
        self._has_changed.set()
