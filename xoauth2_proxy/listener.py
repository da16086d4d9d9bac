"""The socket that mail clients connect to: a cap on connections, and an orderly end.

Draining: stop accepting, tell idle clients 421, let transactions finish, then cut what is left.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.session import ClientSession, SessionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xoauth2_proxy.authentication import Authenticator
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.relay import Relay

_BACKLOG = 1024  # connections the kernel holds while the event loop is busy
_LAST_WORDS_SECONDS = 2.0  # for clients to take what was still said to them
_OUT_OF_FILES_SECONDS = 1.0  # a pause when the system has no file descriptor for one more client

_log = log.logger("listener")


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address of `host`, for processes to share.

    Raises:
        OSError: an address cannot be listened on.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(socket.socket(family, kind, protocol))
            _listen(sockets[-1], address)
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets


def _listen(unbound: socket.socket, address: object) -> None:
    unbound.setblocking(False)
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if unbound.family == socket.AF_INET6:
        unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        unbound.bind(address)  # type: ignore[arg-type]
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    unbound.listen(_BACKLOG)


def _only_mine(clients: int) -> int:
    return clients


class Listener:
    """Accepts clients and keeps count of them."""

    def __init__(
        self,
        policy: SessionPolicy,
        max_connections: int,
        authenticator: Authenticator,
        relay: Relay,
        metrics: Metrics,
    ) -> None:
        # Notes how many clients are here, and returns how many there are in all workers.
        self.count: Callable[[int], int] = _only_mine
        self._policy = policy
        self._max_connections = max_connections
        self._authenticator = authenticator
        self._relay = relay
        self._metrics = metrics
        self._sessions: set[ClientSession] = set()
        self._server: asyncio.Server | None = None
        self._shared: list[socket.socket] = []
        self._arriving: set[asyncio.Task[object]] = set()
        self._is_draining = False
        self._is_empty = asyncio.Event()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address and port in use. Raises `OSError`."""
        self._server = await asyncio.get_running_loop().create_server(
            self._new_session, host, port, backlog=_BACKLOG
        )
        address = self._server.sockets[0].getsockname()
        return address[0], address[1]

    def start_on(self, sockets: Sequence[socket.socket]) -> None:
        """Accept clients from sockets that other processes accept from as well.

        One client at a time, so that a burst is shared out: the loops' own servers accept as many
        as there are.
        """
        self._shared = list(sockets)
        for one in self._shared:
            self._accept_from(one)

    def _accept_from(self, one: socket.socket) -> None:
        if one in self._shared:
            asyncio.get_running_loop().add_reader(one, self._accept, one)

    def _accept(self, one: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            client, _ = one.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the client is gone
        except OSError as error:
            _log.error("cannot accept clients: %s", error)
            loop.remove_reader(one)
            loop.call_later(_OUT_OF_FILES_SECONDS, self._accept_from, one)
            return
        client.setblocking(False)
        task = loop.create_task(self._receive(client))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _receive(self, client: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._new_session, client)
        except OSError:
            client.close()  # it left before it was greeted

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
        sockets, self._shared = self._shared, []
        for one in sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()

    async def drain(self, deadline_seconds: float) -> int:
        """Let every session come to its end, and return how many had to be cut.

        Accepts nothing from here on. Cancelling the call leaves the sessions running.
        """
        self._is_draining = True
        self._stop_accepting()
        for session in list(self._sessions):
            session.drain_session()
        tasks = [session.task for session in self._sessions]
        if not tasks:
            return 0
        _, running = await asyncio.wait(tasks, timeout=deadline_seconds)
        for task in running:
            task.cancel()
        await self._close_all()
        return len(running)

    async def _close_all(self) -> None:
        """Wait a moment for last words to leave, then cut."""
        self._is_empty.clear()
        if not self._sessions:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._is_empty.wait()
        for session in list(self._sessions):
            session.abort()

    def _new_session(self) -> ClientSession:
        return ClientSession(self._policy, self._authenticator, self._relay, self._metrics, self)

    def admit(self, session: ClientSession) -> bool:
        """Count a session in, unless there are too many or the end has begun."""
        clients = len(self._sessions)
        if self._is_draining or self.count(clients + 1) > self._max_connections:
            self.count(clients)
            self._metrics.client_connections.labels("refused").inc()
            return False
        self._sessions.add(session)
        self._metrics.client_connections.labels("accepted").inc()
        self._metrics.client_sessions.inc()
        return True

    def leave(self, session: ClientSession) -> None:
        """Count a session out: its connection is closed."""
        if session in self._sessions:
            self._sessions.remove(session)
            self.count(len(self._sessions))
            self._metrics.client_sessions.dec()
        if not self._sessions:
            self._is_empty.set()
