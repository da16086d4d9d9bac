"""Pools authenticated upstream connections, one pool per account.

Decisions are synchronous: there is no await between examining a pool and changing it. A connection
is opened only after its slot has been taken.
I1: a connection is exactly one of idle, leased and closed.
I2: a connection whose lease ended with an exception is aborted, not reused.
I3: idle, leased and opening connections of an account never exceed its `max_connections`.

With several workers, each connection also needs one of the mailbox's shared slots (`worker_slots`):
I3 then holds for all workers together. A worker with waiting messages asks the others for slots.
They give up idle connections at once, and busy ones after a while to a worker that has none or far
fewer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
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

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from xoauth2_proxy.accounts.accounts import Account, Limits
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.worker_slots import MailboxSlots, WorkerSlots

    Open = Callable[[], Awaitable[Connection]]

MAX_WAITING = 1000  # messages waiting for one mailbox; more are refused at once
_SWEEP_SECONDS = 1.0
_COOL_DOWN_SECONDS = 60.0  # how long a provider's "too many connections" lowers a mailbox's cap
_TOO_MANY = frozenset({421, 432})  # 432 4.3.2 is Exchange Online's, 421 is general
_AGE_JITTER = 0.1  # lifetimes are shortened at random by up to a tenth, to spread reconnects


# Sharing slots between workers.
_SEEK_SECONDS = 0.05  # how often a waiting worker asks for slots that others hold
_WANTED_SECONDS = 4 * _SEEK_SECONDS  # how long such a request is valid
_BETWEEN_MESSAGES_SECONDS = 0.05  # idle for longer: not just between two messages
# How long a connection that is also needed here is kept before it is given up, as a multiple of the
# time to open it. With five, opening takes at most a sixth of the time.
_TENURE_OPENINGS = 5
_MIN_TENURE_SECONDS = 0.25
_MAX_TENURE_SECONDS = 5.0

_log = log.logger("upstream")


@dataclass(slots=True)
class _AccountPool:
    """One account's connections."""

    account: str  # its key
    provider: str
    limits: Limits
    idle: list[Connection] = field(default_factory=list)  # the last one was used most recently
    occupied: int = 0  # slots taken: idle, leased and opening
    waiters: deque[asyncio.Future[Connection | None]] = field(default_factory=deque)
    rate_limit: RateLimit = field(default_factory=RateLimit)
    ceiling: int = 0  # the provider's observed limit, until `ceiling_until`
    ceiling_until: float = 0.0
    slots: MailboxSlots | None = None  # shared with other workers; None if there are none
    is_short: bool = False  # when a slot was last needed, other workers held them all
    seeking: asyncio.TimerHandle | None = None
    wanted_until: float = 0.0  # until then another worker wants a slot that is in use here
    void_before: float = 0.0  # connections opened earlier carry no more transactions
    void_reason: str = ""

    @property
    def max_connections(self) -> int:
        """The current cap on connections."""
        if time.monotonic() < self.ceiling_until:
            return min(self.ceiling, self.limits.max_connections)
        return self.limits.max_connections

    @property
    def has_free_slot(self) -> bool:
        """Whether one more connection may be opened."""
        return self.occupied < self.max_connections

    @property
    def is_removable(self) -> bool:
        """Whether the pool holds nothing and can be removed."""
        is_busy = self.occupied or self.waiters
        return not is_busy and time.monotonic() > max(self.ceiling_until, self.rate_limit.whole_at)

    def occupy(self) -> bool:
        """Take a slot, if one is free in this worker and among all workers; else return False."""
        self.is_short = self.slots is not None and not self.slots.take(self.limits.max_connections)
        self.occupied += not self.is_short
        return not self.is_short

    def vacate(self) -> None:
        """Release a slot."""
        self.occupied -= 1
        if self.slots is not None:
            self.slots.give_back()

    def must_give_way(self, connection: Connection, *, has_ended: bool = False) -> bool:
        """Whether this connection must make room for another worker's, even if it is needed here.

        One that `has_ended` does so at once: if each ended after a message or two, none would
        ever be old enough, and the other worker would get no slot.
        """
        now = time.monotonic()
        return now < self.wanted_until and (has_ended or now >= connection.yields_at)

    def end_reason(self, connection: Connection) -> str:
        """Return why the connection may not carry another transaction, or ""."""
        if connection.opened_at < self.void_before:
            return self.void_reason
        return _end_reason(connection, self.limits)

    def lower(self) -> None:
        """Lower the cap for a while to one less than the connections in use, but at least one."""
        self.ceiling = max(1, self.occupied - 1)
        self.ceiling_until = time.monotonic() + _COOL_DOWN_SECONDS


class Pool:
    """Keeps authenticated connections between transactions and leases them."""

    def __init__(self, metrics: Metrics, slots: WorkerSlots | None = None) -> None:
        self._metrics = metrics
        self._slots = slots
        self._pools: dict[tuple[object, ...], _AccountPool] = {}
        self._current: dict[str, Account] | None = None  # by key; None: any account
        self._is_closing = False

    def __repr__(self) -> str:
        idle = sum(len(pool.idle) for pool in self._pools.values())
        occupied = sum(pool.occupied for pool in self._pools.values())
        waiting = sum(len(pool.waiters) for pool in self._pools.values())
        return f"<Pool {occupied - idle} leased or opening, {idle} idle, {waiting} waiting>"

    async def wait_turn(self, account: Account) -> None:
        """Wait until the account's rate limit allows one more message.

        Raises:
            Overloaded: the wait would exceed the account's `wait_seconds`.
        """
        limits, pool = account.limits, self._pool_of(account)
        rate = limits.messages_per_minute
        if pool.slots is not None and rate:
            delay = await pool.slots.reserve(rate, limits.wait_seconds)
        else:
            delay = pool.rate_limit.reserve(time.monotonic(), rate, limits.wait_seconds)
        if delay is None:
            raise Overloaded("more messages than the provider allows a minute")
        if delay:
            await asyncio.sleep(delay)

    def note_reply(self, account: Account, reply: Reply) -> None:
        """Lower the cap if the provider replied that the mailbox has too many connections."""
        if reply.code == 432:
            self._pool_of(account).lower()

    def lease(self, account: Account, open_connection: Open, *, new: bool = False) -> Lease:
        """Return a context manager for one connection of `account`.

        It is an idle one if there is one and `new` is false; otherwise `open_connection` opens one
        once a slot is free, and its exceptions pass to the caller. Leaving with an exception,
        including cancellation, aborts the connection.

        Raises (on entering):
            Overloaded: no connection became free within the account's `wait_seconds`, too many
                wait already, or the pool is closing.
        """
        return Lease(self, account, open_connection, new=new)

    def use(self, accounts: Iterable[Account]) -> None:
        """Use these accounts; close connections of accounts that were removed or changed.

        Leased connections are closed when they are released. Clients that logged in before may
        still use the old settings of an account, but not exceed its current limits.
        """
        self._current = {account.key: account for account in accounts}
        for pool in self._pools.values():
            current = self._current.get(pool.account)
            if current is not None:
                pool.limits = current.limits
        for key, pool in self._pools.items():
            current = self._current.get(pool.account)
            if current is None or key != _pool_key(current):
                self._void(pool, "reload")

    def drop(self, mailbox: str) -> None:
        """Close the connections of a mailbox whose grant ended, given by its account's key.

        Leased connections are closed when they are released.
        """
        for pool in self._pools.values():
            if pool.account == mailbox:
                self._void(pool, "revoked")

    async def sweep_forever(self) -> None:
        """Run `sweep` at intervals until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Close idle connections that have expired or exceed the cap; remove empty pools.

        Slots that have become free are offered to waiting messages.
        """
        for key, pool in list(self._pools.items()):
            for connection in list(pool.idle):
                if reason := pool.end_reason(connection):
                    self._drop_idle(pool, connection, reason)
            while pool.idle and pool.occupied > pool.max_connections:
                self._drop_idle(pool, pool.idle[0], "cap")
            if pool.seeking is None:
                self._offer_free_slots(pool)
            if pool.is_removable:
                del self._pools[key]
                if self._slots is not None and pool.slots is not None:
                    self._slots.forget(pool.slots)

    def close(self) -> None:
        """Close idle connections and refuse waiters; leased ones are closed when released."""
        self._is_closing = True
        for pool in self._pools.values():
            self._close_idle(pool, "shutdown")
            _fail_waiters(pool, Overloaded("the pool is closing"))

    async def acquire(self, account: Account, open_connection: Open, *, new: bool) -> Connection:
        """Return a connection, which `release` must return; `new` asks for one just opened."""
        pool = self._pool_of(account)
        if self._is_closing:
            raise Overloaded("the pool is closing")
        if not new and (kept := self._take_idle(pool)) is not None:
            return kept
        if self._claim_slot(pool, replace=new):
            return await self._open(pool, open_connection)
        handed = await self._wait(pool)
        if handed is not None and new:
            handed.close()
            self._closed(pool, "replaced")
            handed = None
        if handed is None:
            return await self._open(pool, open_connection)
        self._metrics.provider(pool.provider).upstream_reused.inc()
        return handed

    def release(self, account: Account, connection: Connection, *, in_doubt: bool) -> None:
        """Return a connection from a lease; never blocks."""
        pool = self._pool_of(account)
        connection.last_used_at = time.monotonic()
        if in_doubt:
            connection.abort()
        reason = "doubt" if in_doubt else pool.end_reason(connection)
        if not reason and self._is_closing:
            reason = "shutdown"
        gives_way = pool.must_give_way(connection, has_ended=bool(reason))
        if reason or gives_way:
            connection.close()
            self._closed(pool, reason or "wanted")
            if gives_way:
                self._make_room(pool)
            else:
                self._hand_over(pool, None)
        else:
            self._hand_over(pool, connection)

    def _pool_of(self, account: Account) -> _AccountPool:
        key = _pool_key(account)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _AccountPool(account.key, account.provider, account.limits)
            if self._slots is not None:
                give_way, retry = partial(self._give_way, pool), partial(self._seek, pool)
                pool.slots = self._slots.of(key, give_way, retry)
        if self._current is None:
            pool.limits = account.limits
        elif (current := self._current.get(account.key)) is not None:
            pool.limits = current.limits
        return pool

    def _claim_slot(self, pool: _AccountPool, *, replace: bool) -> bool:
        """Take a free slot unless others wait; with `replace`, else an idle connection's."""
        if pool.waiters:
            return False
        if pool.has_free_slot and pool.occupy():
            return True
        if not replace:
            return False
        while pool.idle:
            self._drop_idle(pool, pool.idle[0], "replaced")
            if pool.has_free_slot and pool.occupy():
                return True
        return False

    def _take_idle(self, pool: _AccountPool) -> Connection | None:
        while pool.idle:
            connection = pool.idle[-1]
            if reason := pool.end_reason(connection):
                self._drop_idle(pool, connection, reason)
                continue
            pool.idle.pop()
            connection.on_gone = None
            self._metrics.provider(pool.provider).upstream_reused.inc()
            return connection
        return None

    async def _open(self, pool: _AccountPool, open_connection: Open) -> Connection:
        """Open a connection in a slot that is already taken."""
        began = time.monotonic()
        try:
            connection = await open_connection()
        except BaseException as error:
            self._open_failed(pool, error)
            raise
        self._metrics.upstream_opened.labels(pool.provider).inc()
        self._metrics.upstream_open.labels(pool.provider).inc()
        seconds = time.monotonic() - began
        _log.event(
            logging.DEBUG,
            "upstream connection opened",
            account=pool.account,
            provider=pool.provider,
            seconds=seconds,
        )
        lifetime_seconds = pool.limits.max_connection_age_seconds
        jitter = random.uniform(0, _AGE_JITTER)  # noqa: S311 - spreads load, guards nothing
        connection.expires_at = connection.opened_at + lifetime_seconds * (1 - jitter)
        opened = time.monotonic()
        if began < pool.void_before:
            connection.expires_at = opened  # the token it used may no longer be valid
        tenure = _TENURE_OPENINGS * (opened - began)
        connection.yields_at = opened + min(max(tenure, _MIN_TENURE_SECONDS), _MAX_TENURE_SECONDS)
        return connection

    def _open_failed(self, pool: _AccountPool, error: BaseException) -> None:
        if isinstance(error, UpstreamAuthRejected) or not isinstance(error, UpstreamError):
            # A refused token or a cancelled caller says nothing about the provider.
            self._hand_over(pool, None)
            return
        if isinstance(error, UpstreamRejected) and error.reply.code in _TOO_MANY:
            pool.lower()
        pool.vacate()
        pool.is_short = False
        if pool.occupied == 0:
            # No connection is left to serve the waiters, so all of them fail now.
            _fail_waiters(pool, error)

    async def _wait(self, pool: _AccountPool) -> Connection | None:
        """Wait for a connection, or for a free slot (None), which the caller then owns."""
        if len(pool.waiters) >= MAX_WAITING:
            raise Overloaded("too many messages are waiting for this mailbox")
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        pool.waiters.append(waiter)
        if pool.seeking is None:
            self._ask(pool)
        try:
            async with asyncio.timeout(pool.limits.wait_seconds):
                return await waiter
        except BaseException as error:
            self._stop_waiting(pool, waiter)
            if isinstance(error, TimeoutError):
                raise Overloaded("no connection became free in time") from None
            raise

    def _stop_waiting(self, pool: _AccountPool, waiter: asyncio.Future[Connection | None]) -> None:
        if waiter in pool.waiters:
            pool.waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            # It was served just as it gave up: the next waiter gets the connection.
            self._hand_over(pool, waiter.result())

    def _hand_over(self, pool: _AccountPool, connection: Connection | None) -> None:
        """Give a connection, or a free slot (None), to the oldest waiter; else keep it idle."""
        if connection is None and pool.occupied > pool.max_connections:
            pool.vacate()  # the cap was lowered meanwhile
            return
        while pool.waiters:
            waiter = pool.waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                if pool.seeking is None:
                    self._offer_free_slots(pool)
                return
        if connection is None:
            pool.vacate()
            return
        if self._is_closing or not connection.is_usable:
            connection.close()
            self._closed(pool, "shutdown" if self._is_closing else "lost")
            pool.vacate()
            return
        connection.on_gone = lambda gone: self._drop_idle(pool, gone, "lost")
        pool.idle.append(connection)

    def _offer_free_slots(self, pool: _AccountPool) -> None:
        """Let waiters use the slots that failed openings left free, once the provider works."""
        while pool.waiters and pool.has_free_slot:
            if not pool.waiters[0].done() and not pool.occupy():
                return
            waiter = pool.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _seek(self, pool: _AccountPool) -> None:
        """Try to get slots that other workers hold, as long as messages wait here."""
        if pool.seeking is not None:
            pool.seeking.cancel()
            pool.seeking = None
        if pool.is_short and pool.waiters:
            self._offer_free_slots(pool)
        self._ask(pool)

    def _ask(self, pool: _AccountPool) -> None:
        """Ask for a slot that another worker holds, if the waiting messages need one."""
        is_needed = pool.is_short and pool.waiters and pool.has_free_slot
        if pool.slots is not None and is_needed:
            pool.slots.want()
            self._seek_later(pool)

    def _seek_later(self, pool: _AccountPool) -> None:
        loop = asyncio.get_running_loop()
        pool.seeking = loop.call_later(_SEEK_SECONDS, self._seek, pool)

    def _give_way(self, pool: _AccountPool, held_there: int) -> None:
        """Make room for another worker that wants a slot and holds `held_there` slots."""
        if held_there == 0 or pool.occupied > held_there + 1:
            pool.wanted_until = time.monotonic() + _WANTED_SECONDS
        if not pool.idle:
            return
        oldest = pool.idle[0]
        if oldest.idle_seconds > _BETWEEN_MESSAGES_SECONDS or pool.must_give_way(oldest):
            self._drop_idle(pool, oldest, "wanted")
            pool.wanted_until = 0.0
            if pool.slots is not None:
                pool.slots.tell_freed()

    def _make_room(self, pool: _AccountPool) -> None:
        """Leave a closed connection's slot to the worker that wants one."""
        pool.vacate()
        pool.wanted_until = 0.0
        if pool.slots is not None:
            pool.slots.tell_freed()
        if pool.waiters:
            # Messages waiting here ask for it back, but only after the other worker could take it.
            pool.is_short = True
            if pool.seeking is None:
                self._seek_later(pool)

    def _void(self, pool: _AccountPool, reason: str) -> None:
        """Void all connections, open or being opened: they carry no more transactions."""
        pool.void_before, pool.void_reason = time.monotonic(), reason
        self._close_idle(pool, reason)

    def _close_idle(self, pool: _AccountPool, reason: str) -> None:
        for connection in list(pool.idle):
            self._drop_idle(pool, connection, reason)

    def _drop_idle(self, pool: _AccountPool, connection: Connection, reason: str) -> None:
        pool.idle.remove(connection)
        pool.vacate()
        connection.on_gone = None
        connection.close()
        self._closed(pool, reason)

    def _closed(self, pool: _AccountPool, reason: str) -> None:
        self._metrics.upstream_closed.labels(pool.provider, reason).inc()
        self._metrics.upstream_open.labels(pool.provider).dec()
        _log.event(logging.DEBUG, "upstream connection closed", account=pool.account, reason=reason)


class Lease:
    """Lends one connection for the length of an `async with`."""

    __slots__ = ("_account", "_connection", "_new", "_open", "_pool")

    def __init__(self, pool: Pool, account: Account, open_connection: Open, *, new: bool) -> None:
        self._pool = pool
        self._account = account
        self._open = open_connection
        self._new = new
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.acquire(self._account, self._open, new=self._new)
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(self._account, connection, in_doubt=kind is not None)


def _end_reason(connection: Connection, limits: Limits) -> str:
    """Return why the connection may not carry another transaction, or ""."""
    if not connection.is_usable:
        return "lost"
    if connection.transactions >= limits.max_messages_per_connection:
        return "messages"
    now = time.monotonic()
    if now >= connection.expires_at:
        return "age"
    if now - connection.last_used_at >= limits.idle_seconds:
        return "idle"
    return ""


def _pool_key(account: Account) -> tuple[object, ...]:
    return account.key, account.upstream


def _fail_waiters(pool: _AccountPool, error: ProxyError) -> None:
    while pool.waiters:
        waiter = pool.waiters.popleft()
        if not waiter.done():
            waiter.set_exception(error)
