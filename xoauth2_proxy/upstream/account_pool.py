"""One account's connections: which are idle, who waits for one, how many there may be.

Decisions are synchronous: no await stands between looking at the pool and changing it. Connections
are opened outside, in a slot that is already taken.
I1: a connection is idle, leased or closed, never two of these.
I2: idle, leased and opening connections never exceed `max_connections`; where several workers
share the account, those of all workers together do not.
I3: a connection carries messages only for the credential that opened it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.errors import (
    Overloaded,
    ProxyError,
    UpstreamAuthRejected,
    UpstreamError,
    UpstreamRejected,
)
from xoauth2_proxy.upstream.rate_limit import RateLimit
from xoauth2_proxy.upstream.slot_sharing import SlotSharing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.accounts.accounts import Limits
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.worker_slots import WorkerSlots

    Open = Callable[[], Awaitable[Connection]]

MAX_WAITING = 1000  # messages waiting for one mailbox; beyond it they are turned away at once
_COOL_DOWN_SECONDS = 60.0  # how long a provider's "too many connections" lowers the cap
_TOO_MANY = frozenset({421, 432})  # 432 4.3.2 is Exchange Online's; every provider may say 421
_AGE_JITTER = 0.1  # lifetimes are up to a tenth shorter, so that connections do not end together


_log = log.logger("upstream")


@dataclass(slots=True, eq=False)
class _Waiter:
    credential: bytes = field(repr=False)
    served: asyncio.Future[Connection | None]  # None: a free slot, which is then the waiter's


class AccountPool:
    """The connections of one account to one upstream server."""

    def __init__(
        self,
        account: str,
        provider: str,
        limits: Limits,
        metrics: Metrics,
        workers: tuple[WorkerSlots, object] | None = None,
    ) -> None:
        """`workers`: the slots shared with other workers, and how they know this pool."""
        self.account = account  # its key
        self.limits = limits
        self.idle: list[Connection] = []  # the last one was used most recently
        self.occupied = 0  # idle, leased and opening connections: the slots taken
        self.waiters: deque[_Waiter] = deque()
        self.rate_limit = RateLimit()
        self.sharing = SlotSharing(self, *workers) if workers is not None else None
        self._provider = provider
        self._metrics = metrics
        self._series = metrics.provider(provider)
        self._ceiling = 0  # connections the provider showed it allows, until `_ceiling_until`
        self._ceiling_until = 0.0
        self._void_before = 0.0  # connections begun before it carry no further transaction
        self._void_reason = ""
        self._is_closing = False

    @property
    def max_connections(self) -> int:
        """The cap at present."""
        if time.monotonic() < self._ceiling_until:
            return min(self._ceiling, self.limits.max_connections)
        return self.limits.max_connections

    @property
    def has_free_slot(self) -> bool:
        """Whether one more connection may be opened, as far as this worker goes."""
        return self.occupied < self.max_connections

    @property
    def needs_slot(self) -> bool:
        """Whether messages wait although the cap would allow another connection."""
        return bool(self.waiters) and self.has_free_slot

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing would be lost with this pool."""
        is_busy = self.occupied or self.waiters
        return not is_busy and time.monotonic() > max(self._ceiling_until, self.rate_limit.whole_at)

    def lower(self) -> None:
        """Allow one connection less than there are now for a while, but always one."""
        self._ceiling = max(1, self.occupied - 1)
        self._ceiling_until = time.monotonic() + _COOL_DOWN_SECONDS

    # Leasing.

    def take(self, credential: bytes) -> Connection | None:
        """Return an idle connection that this credential opened, used most recently, or None."""
        for connection in reversed(self.idle):
            if reason := self._end_reason(connection):
                self.close_idle(connection, reason)
            elif connection.credential == credential:
                self.idle.remove(connection)
                connection.on_gone = None
                self._series.upstream_reused.inc()
                return connection
        return None

    async def open_or_wait(
        self, credential: bytes, open_connection: Open, *, new: bool
    ) -> Connection:
        """Open a connection if there is a slot for it, else wait for a connection or a slot.

        Raises what `open_connection` raises, and `Overloaded`.
        """
        if self._is_closing:
            raise Overloaded("the pool is closing")
        connection = None
        if not self._claim_slot(credential, replace=new):
            connection = await self._wait(credential)
            if connection is not None and new:
                connection.close()
                self._count_closed("replaced")
                connection = None
        if connection is None:
            return await self._open(credential, open_connection)
        self._series.upstream_reused.inc()
        return connection

    def release(self, connection: Connection, *, in_doubt: bool) -> None:
        """Take a connection back. One that is `in_doubt` is aborted (I1)."""
        connection.last_used_at = time.monotonic()
        if in_doubt:
            connection.abort()
        reason = "doubt" if in_doubt else self._end_reason(connection)
        if not reason and self._is_closing:
            reason = "shutdown"
        sharing = self.sharing
        gives_way = sharing is not None and sharing.must_give_way(
            connection, has_ended=bool(reason)
        )
        if not reason and not gives_way:
            self._hand_over(connection)
            return
        connection.close()
        self._count_closed(reason or "wanted")
        if sharing is not None and gives_way:
            self._vacate()
            sharing.gave_way()
        else:
            self._hand_over(None)

    # Housekeeping.

    def sweep(self) -> None:
        """Close idle connections whose time is up or that are too many; offer free slots."""
        for connection in list(self.idle):
            if reason := self._end_reason(connection):
                self.close_idle(connection, reason)
        while self.idle and self.occupied > self.max_connections:
            self.close_idle(self.idle[0], "cap")
        if self.sharing is None or not self.sharing.is_asking:
            self.offer_free_slots()

    def void(self, reason: str) -> None:
        """Keep no connection that exists now, or that is being opened."""
        self._void_before, self._void_reason = time.monotonic(), reason
        self._close_all_idle(reason)

    def close(self) -> None:
        """Close idle connections and turn waiters away; leased ones close as they come back."""
        self._is_closing = True
        self._close_all_idle("shutdown")
        self._fail_waiters(Overloaded("the pool is closing"))

    def close_idle(self, connection: Connection, reason: str) -> None:
        """Close an idle connection and give its slot back."""
        self.idle.remove(connection)
        self._vacate()
        connection.on_gone = None
        connection.close()
        self._count_closed(reason)

    def offer_free_slots(self) -> None:
        """Let waiters take the slots that are free."""
        while self.needs_slot:
            if not self.waiters[0].served.done() and not self._occupy():
                return
            waiter = self.waiters.popleft()
            if not waiter.served.done():
                waiter.served.set_result(None)

    # Slots.

    def _occupy(self) -> bool:
        """Take a slot that is free as far as this worker goes; False if other workers hold all."""
        if self.sharing is not None and not self.sharing.take(self.limits.max_connections):
            return False
        self.occupied += 1
        return True

    def _vacate(self) -> None:
        self.occupied -= 1
        if self.sharing is not None:
            self.sharing.give_back()

    def _claim_slot(self, credential: bytes, *, replace: bool) -> bool:
        """Take a free slot, but not past those who wait.

        At the cap an idle connection makes room: with `replace` any, else one of another credential
        (I3), which would be of no use to the one who asks.
        """
        if self.waiters:
            return False
        if self.has_free_slot and self._occupy():
            return True
        for connection in list(self.idle):
            if replace or connection.credential != credential:
                self.close_idle(connection, "replaced")
                if self.has_free_slot and self._occupy():
                    return True
        return False

    # Opening, waiting, handing over.

    async def _open(self, credential: bytes, open_connection: Open) -> Connection:
        """Open a connection in a slot that is already taken."""
        began = time.monotonic()
        try:
            connection = await open_connection()
        except BaseException as error:
            self._opening_failed(error)
            raise
        self._metrics.upstream_opened.labels(self._provider).inc()
        self._metrics.upstream_open.labels(self._provider).inc()
        _log.event(
            logging.DEBUG,
            "upstream connection opened",
            account=self.account,
            provider=self._provider,
            seconds=time.monotonic() - began,
        )
        connection.credential = credential
        jitter = random.uniform(0, _AGE_JITTER)  # noqa: S311 - spreads load, guards nothing
        lifetime_seconds = self.limits.max_connection_age_seconds * (1 - jitter)
        connection.expires_at = connection.opened_at + lifetime_seconds
        opened = time.monotonic()
        if began < self._void_before:
            connection.expires_at = opened  # it may have shown what is no longer good
        if self.sharing is not None:
            connection.yields_at = self.sharing.yields_at(opened - began)
        return connection

    def _opening_failed(self, error: BaseException) -> None:
        if isinstance(error, UpstreamAuthRejected) or not isinstance(error, UpstreamError):
            # It says nothing about the provider: a token was refused, or the caller was cancelled.
            self._hand_over(None)
            return
        if isinstance(error, UpstreamRejected) and error.reply.code in _TOO_MANY:
            self.lower()
        self._vacate()
        if self.sharing is not None:
            self.sharing.opening_failed()
        if self.occupied == 0:
            # Nothing is left that could serve the waiters: they learn it now, not one by one.
            self._fail_waiters(error)

    async def _wait(self, credential: bytes) -> Connection | None:
        """Wait for a connection, or for a free slot (None), which is then the caller's."""
        if len(self.waiters) >= MAX_WAITING:
            raise Overloaded("too many messages are waiting for this mailbox")
        waiter = _Waiter(credential, asyncio.get_running_loop().create_future())
        self.waiters.append(waiter)
        if self.sharing is not None:
            self.sharing.ask()
        try:
            async with asyncio.timeout(self.limits.wait_seconds):
                return await waiter.served
        except BaseException as error:
            self._stop_waiting(waiter)
            if isinstance(error, TimeoutError):
                raise Overloaded("no connection became free in time") from None
            raise

    def _stop_waiting(self, waiter: _Waiter) -> None:
        served = waiter.served
        if waiter in self.waiters:
            self.waiters.remove(waiter)
        elif served.done() and not served.cancelled() and served.exception() is None:
            # It was served just as it gave up: pass this on to the next waiter.
            self._hand_over(served.result())

    def _hand_over(self, connection: Connection | None) -> None:
        """Give a connection, or a free slot (None), to the oldest waiter, else keep it idle."""
        if connection is None and self.occupied > self.max_connections:
            self._vacate()  # the cap was lowered meanwhile
            return
        while self.waiters:
            waiter = self.waiters.popleft()
            if waiter.served.done():
                continue
            if connection is not None and connection.credential != waiter.credential:
                connection.close()  # I3: only its slot is of use
                self._count_closed("replaced")
                connection = None
            waiter.served.set_result(connection)
            if self.sharing is None or not self.sharing.is_asking:
                self.offer_free_slots()
            return
        if connection is None:
            self._vacate()
        elif self._is_closing or not connection.is_usable:
            connection.close()
            self._count_closed("shutdown" if self._is_closing else "lost")
            self._vacate()
        else:
            connection.on_gone = lambda gone: self.close_idle(gone, "lost")
            self.idle.append(connection)

    def _fail_waiters(self, error: ProxyError) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.served.done():
                waiter.served.set_exception(error)

    # Ending.

    def _end_reason(self, connection: Connection) -> str:
        """Say why the connection may not carry another transaction, or ""."""
        limits, now = self.limits, time.monotonic()
        if connection.opened_at < self._void_before:
            return self._void_reason
        if not connection.is_usable:
            return "lost"
        if connection.dialogue.transactions >= limits.max_messages_per_connection:
            return "messages"
        if now >= connection.expires_at:
            return "age"
        return "idle" if now - connection.last_used_at >= limits.idle_seconds else ""

    def _close_all_idle(self, reason: str) -> None:
        for connection in list(self.idle):
            self.close_idle(connection, reason)

    def _count_closed(self, reason: str) -> None:
        self._metrics.upstream_closed.labels(self._provider, reason).inc()
        self._metrics.upstream_open.labels(self._provider).dec()
        _log.event(logging.DEBUG, "upstream connection closed", account=self.account, reason=reason)
