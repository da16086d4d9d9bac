"""Brings an accepted connection to its session: the PROXY header, then TLS or a greeting in clear.

Until then no transport has the connection: octets are looked at and left to the kernel, so that a
handshake finds them.
"""

from __future__ import annotations

import asyncio
import secrets
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.network import plain_address, plain_peer
from xoauth2_proxy.submission.first_octet import Habits, is_tls, peek
from xoauth2_proxy.submission.policy import ListenerTls
from xoauth2_proxy.submission.proxy_header import ProxyHeader
from xoauth2_proxy.submission.refusal_reasons import handshake_failure, reason_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from xoauth2_proxy.clients.interface import ClientObserver
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.submission.policy import SessionPolicy

_HANDSHAKE_SECONDS = 30.0  # for all of it, the first octet included
_PROBE_SECONDS = 2.0  # a test of whether the port is open ends sooner
_PROXY_HEADER_SECONDS = 5.0  # load balancers send it at once, in one packet
_PIECE_BYTES = 4096  # of a PROXY header


class _Left(Exception):
    """The client closed the connection before anything was said."""


class _TurnedAway(Exception):
    """The connection ends before a session began; the client's reason is noted."""


class Arrival:
    """A connection that was accepted, and the session that it becomes."""

    __slots__ = ("_is_displaced", "_task", "client", "is_unnamed", "refusal", "session")

    def __init__(self, client: ConnectedClient, task: asyncio.Task[object] | None) -> None:
        self.client = client
        self.is_unnamed = False  # the client is behind a load balancer that does not name it
        self.refusal: Reply | None = None  # why the session will be turned away
        self.session: Displaceable | None = None
        self._task = task
        self._is_displaced = False

    def displace(self) -> None:
        """End: another client needs the place."""
        if self.session is not None:
            self.session.displace()
        elif self._task is not None:
            self._is_displaced = True
            self._task.cancel()

    @property
    def is_displaced(self) -> bool:
        """Whether it was displaced before there was a session."""
        return self._is_displaced


class Displaceable(Protocol):
    """What has a place that another client may need (`session.ClientSession`)."""

    def displace(self) -> None:
        """End."""
        ...


class ArrivalRegistry(Protocol):
    """Counts the connections (`listener.Listener`)."""

    def arrive(self, arrival: Arrival, address: str, *, is_balancer: bool) -> Reply | None:
        """Count a connection; return the reply that turns its client away, or None."""
        ...

    def identify(self, arrival: Arrival, address: str) -> Reply | None:
        """The load balancer has named the client; return as `arrive`."""
        ...

    def gone(self, arrival: Arrival) -> None:
        """There will be no session."""
        ...


class Arrivals:
    """Brings the connections of one listener to their sessions."""

    def __init__(
        self,
        policy: Callable[[], SessionPolicy],
        new_session: Callable[[Arrival], asyncio.Protocol],
        registry: ArrivalRegistry,
        observer: ClientObserver,
    ) -> None:
        self.habits = Habits()
        self._policy = policy
        self._new_session = new_session
        self._registry = registry
        self._observer = observer
        self._loop = asyncio.get_running_loop()

    async def receive(self, connection: socket.socket) -> None:
        """Bring a connection to its session, or close it."""
        policy = self._policy()
        client = ConnectedClient("", policy.listener, secrets.token_hex(4), self._observer)
        arrival = Arrival(client, asyncio.current_task())
        try:
            await self._begin(connection, policy, arrival)
        except (OSError, _Left, _TurnedAway):
            client.report()
        except asyncio.CancelledError:
            if not arrival.is_displaced:
                raise
            client.refuse(Refused.TOO_MANY_CONNECTIONS)
            client.report()
        finally:
            if arrival.session is None:
                self._registry.gone(arrival)

    async def _begin(
        self, connection: socket.socket, policy: SessionPolicy, arrival: Arrival
    ) -> None:
        try:
            begins_with_tls = await self._look(connection, policy, arrival)
        except BaseException:
            connection.close()
            raise
        # From here on the transport closes the connection.
        context = policy.tls_context if begins_with_tls else None
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await self._loop.connect_accepted_socket(
                    lambda: self._new_session(arrival), connection, ssl=context
                )
        except OSError as error:
            if begins_with_tls:
                self._refuse_handshake(arrival.client, error)
            raise

    async def _look(
        self, connection: socket.socket, policy: SessionPolicy, arrival: Arrival
    ) -> bool:
        """Return whether the connection begins with TLS. Raises `OSError`."""
        client = arrival.client
        client.address = plain_peer(connection.getpeername()[0])
        is_balancer = policy.speaks_proxy(client.address)
        refusal = self._registry.arrive(arrival, client.address, is_balancer=is_balancer)
        if is_balancer and refusal is None:
            arrival.is_unnamed = not await self._read_proxy_header(connection, client)
            refusal = self._registry.identify(arrival, client.address)
        arrival.refusal = refusal
        if policy.tls is ListenerTls.IMPLICIT:
            if refusal is not None:
                client.refuse(reason_of(refusal) or Refused.TOO_MANY_CONNECTIONS, reply=refusal)
                raise _TurnedAway
            await self._expect_tls(connection, client)
            return True
        # To one that is turned away, the reply in clear is of more use than a handshake.
        if policy.tls is not ListenerTls.AUTO or refusal is not None:
            return False
        try:
            async with asyncio.timeout(self.habits.wait_seconds(client.address)):
                first = await _some(connection, 1)
        except TimeoutError:
            return False
        if not is_tls(first[0]):
            return False
        self.habits.began_with_tls(client.address)
        return True

    async def _expect_tls(self, connection: socket.socket, client: ConnectedClient) -> None:
        began_at = self._loop.time()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                first = await _some(connection, 1)
        except TimeoutError:
            client.refuse(Refused.PLAIN_ON_TLS_PORT)
            raise _TurnedAway from None
        except _Left:
            if self._loop.time() - began_at >= _PROBE_SECONDS:
                client.refuse(Refused.PLAIN_ON_TLS_PORT)
            raise
        if not is_tls(first[0]):
            client.refuse(Refused.PLAIN_ON_TLS_PORT)
            raise _TurnedAway

    def _refuse_handshake(self, client: ConnectedClient, error: OSError) -> None:
        client.refuse(*handshake_failure(error))

    async def _read_proxy_header(self, connection: socket.socket, client: ConnectedClient) -> bool:
        """Note the client's address; return whether the header has it."""
        reader = ProxyHeader()
        header = None
        try:
            async with asyncio.timeout(_PROXY_HEADER_SECONDS):
                while header is None:
                    octets = await _some(connection, _PIECE_BYTES)
                    header = reader.feed(octets)
                    # What follows the header is the client's, and stays in the kernel.
                    connection.recv(len(octets) - (0 if header is None else len(reader.rest)))
        except TimeoutError:
            pass
        finally:
            reader.close()
        if header is None or not header.valid:
            client.refuse(Refused.NO_PROXY_HEADER)
            raise _TurnedAway
        address = header.src_addr
        if not isinstance(address, IPv4Address | IPv6Address):
            return False  # LOCAL and UNKNOWN: the balancer's own health check; or a Unix socket
        client.address = str(plain_address(address))
        return True


async def _some(connection: socket.socket, max_bytes: int) -> bytes:
    """Return some of the octets that have arrived, without taking them. Raises `_Left`."""
    octets = await peek(connection, max_bytes)
    if not octets:
        raise _Left
    return octets
