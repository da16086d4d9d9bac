"""Accepts clients from a port that several processes share.

It accepts one client at a time, which spreads a burst over the processes. The event loops' own
servers accept as many as are waiting.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy import log
from xoauth2_proxy.network import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

BACKLOG = 1024  # connections the kernel holds while the event loops are busy
_HEAD_START_SECONDS = 0.002  # the head start of workers with fewer clients
_PORT_ATTEMPTS = 5  # to find a port that is free on all addresses
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_OUT_OF_FILES_SECONDS = 1.0  # the pause when no file descriptor is left for a client
_COMPLAINT_SECONDS = 60.0  # between two lines about that

_log = log.logger("acceptor")


class ClientCounter(Protocol):
    """Counts the clients of all workers."""

    def count(self, clients: int) -> int:
        """Record the number of clients here, and return the number in all workers."""
        ...

    def is_ahead(self, clients: int) -> bool:
        """Whether a worker with this many clients should leave the next one to the others."""
        ...


def listening_sockets(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return listening sockets on every address of `hosts`, which processes can share.

    With port 0 all have the same port, one that was free. `localhost` is 127.0.0.1 and ::1, the
    latter where the machine has it.

    Raises:
        OSError: an address cannot be listened on.
    """
    for _ in range(_PORT_ATTEMPTS - 1):
        try:
            return _all_listening(hosts, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _all_listening(hosts, port)


def _all_listening(hosts: Sequence[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            is_localhost = host.lower() == "localhost"
            for one in LOCALHOST if is_localhost else (host,):
                try:
                    for found in _listening_on(one, port):
                        sockets.append(found)
                        port = port or found.getsockname()[1]
                except OSError as error:
                    error.filename = one  # for who explains it
                    if not (is_localhost and sockets and error.errno in _NO_SUCH_ADDRESS):
                        raise
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _listening_on(host: str, port: int) -> Iterator[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        made = socket.socket(family, kind, protocol)
        try:
            _listen(made, (address[0], port or address[1], *address[2:]))
        except BaseException:
            made.close()
            raise
        port = port or made.getsockname()[1]
        yield made


class Acceptor:
    """Accepts clients from listening sockets until it is closed."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        receive: Callable[[socket.socket], Coroutine[None, None, object]],
        clients: Callable[[], int],
        client_counts: ClientCounter,
    ) -> None:
        """`receive` takes a connection over; `clients` returns the number of clients here."""
        self._sockets = list(sockets)
        self._receive = receive
        self._clients = clients
        self._client_counts = client_counts
        self._loop = asyncio.get_running_loop()
        self._complains_again_at = 0.0
        self._arriving: set[asyncio.Task[object]] = set()
        for one in self._sockets:
            self._watch(one)

    def close(self) -> None:
        """Stop accepting; the port stays open as long as another process has it.

        Connections that have no session yet are closed.
        """
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            self._loop.remove_reader(one)
            one.close()
        for task in self._arriving:
            task.cancel()

    def _watch(self, one: socket.socket) -> None:
        if one in self._sockets:
            self._loop.add_reader(one, self._on_waiting_client, one)

    def _on_waiting_client(self, one: socket.socket) -> None:
        """Accept the waiting client, at once or after giving other workers a head start."""
        if self._client_counts.is_ahead(self._clients() + len(self._arriving)):
            self._loop.remove_reader(one)
            self._loop.call_later(_HEAD_START_SECONDS, self._accept, one)
        else:
            self._accept(one)

    def _accept(self, one: socket.socket) -> None:
        if one not in self._sockets:
            return
        try:
            client, _ = one.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            pass  # another worker was faster, or the client left
        except OSError as error:
            now = self._loop.time()
            if now >= self._complains_again_at:
                self._complains_again_at = now + _COMPLAINT_SECONDS
                _log.error("cannot accept clients, which wait meanwhile: %s", error)
            self._loop.remove_reader(one)
            self._loop.call_later(_OUT_OF_FILES_SECONDS, self._watch, one)
            return
        else:
            client.setblocking(False)
            task = self._loop.create_task(self._receive(client))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)
        self._watch(one)

    def _arrived(self, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection ended by an internal error", exc_info=error)


def _listen(unbound: socket.socket, address: object) -> None:
    unbound.setblocking(False)
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if unbound.family == socket.AF_INET6:
        unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        unbound.bind(address)  # type: ignore[arg-type]
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    unbound.listen(BACKLOG)
