"""Leases authenticated upstream connections: one pool for each account and upstream server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import Overloaded
from xoauth2_proxy.upstream.account_pool import AccountPool

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.upstream.account_pool import Open
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.worker_slots import WorkerSlots

_SWEEP_SECONDS = 1.0


class Pool:
    """Keeps authenticated connections between transactions and shares them out."""

    def __init__(self, metrics: Metrics, slots: WorkerSlots | None = None) -> None:
        self._metrics = metrics
        self._slots = slots
        self._pools: dict[tuple[object, ...], AccountPool] = {}
        self._current: dict[str, Account] | None = None  # by key; None: any account
        self._is_closing = False

    def __repr__(self) -> str:
        idle = sum(len(pool.idle) for pool in self._pools.values())
        occupied = sum(pool.occupied for pool in self._pools.values())
        waiting = sum(len(pool.waiters) for pool in self._pools.values())
        return f"<Pool {occupied - idle} leased or opening, {idle} idle, {waiting} waiting>"

    async def wait_turn(self, account: Account) -> None:
        """Wait until the account's rate allows one more message.

        Raises:
            Overloaded: its turn is further off than the account's `wait_seconds`.
        """
        limits, pool = account.limits, self._pool_of(account)
        rate = limits.messages_per_minute
        if pool.sharing is not None and rate:
            delay = await pool.sharing.slots.reserve(rate, limits.wait_seconds)
        else:
            delay = pool.rate_limit.reserve(time.monotonic(), rate, limits.wait_seconds)
        if delay is None:
            raise Overloaded("more messages than the provider allows a minute")
        if delay:
            await asyncio.sleep(delay)

    def note_reply(self, account: Account, reply: Reply) -> None:
        """Lower the cap if the provider reports too many connections."""
        if reply.code == 432:
            self._pool_of(account).lower()

    def lease(
        self, account: Account, open_connection: Open, *, credential: bytes = b"", new: bool = False
    ) -> Lease:
        """Return a lease of a connection of `account`, logged in with `credential`.

        `credential` tells connections apart: b"" for the account's own token, else a digest of the
        client's. The lease holds a kept connection at once if there is one and `new` is not asked
        for; else `open` gets one. Every lease must end with `end`; `async with` sees to both.
        """
        return Lease(self._pool_of(account), open_connection, credential, new=new)

    def use(self, accounts: Iterable[Account]) -> None:
        """Replace the accounts; close the connections of others, and of changed ones.

        Those in use are closed as they come back. Clients that logged in before may go on with an
        account as it was, but not beyond the limits that it has now.
        """
        self._current = {account.key: account for account in accounts}
        for key, pool in self._pools.items():
            current = self._current.get(pool.account)
            if current is not None:
                pool.limits = current.limits
            if current is None or key != _pool_key(current):
                pool.void("reload")

    def drop(self, mailbox: str) -> None:
        """Close the connections of a mailbox, whose grant ended; it is its account's key.

        Those in use are closed as they come back.
        """
        for pool in self._pools.values():
            if pool.account == mailbox:
                pool.void("revoked")

    async def sweep_forever(self) -> None:
        """Close idle connections whose time is up, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Close idle connections whose time is up or that are too many; forget empty pools.

        Slots that are free by now are offered to those who wait.
        """
        for key, pool in list(self._pools.items()):
            pool.sweep()
            if pool.is_forgettable:
                del self._pools[key]
                if pool.sharing is not None:
                    pool.sharing.close()

    def close(self) -> None:
        """Close idle connections, turn waiters away; leased ones are closed as they come back."""
        self._is_closing = True
        for pool in self._pools.values():
            pool.close()

    def _pool_of(self, account: Account) -> AccountPool:
        key = _pool_key(account)
        pool = self._pools.get(key)
        if pool is None:
            workers = None if self._slots is None else (self._slots, key)
            pool = self._pools[key] = AccountPool(
                account.key, account.provider, account.limits, self._metrics, workers
            )
            if self._is_closing:
                pool.close()
        if self._current is None:
            pool.limits = account.limits
        elif (current := self._current.get(account.key)) is not None:
            pool.limits = current.limits
        return pool


class Lease:
    """The right to one connection; `connection` is None until there is one."""

    __slots__ = ("_credential", "_is_new", "_open", "_pool", "connection")

    def __init__(
        self, pool: AccountPool, open_connection: Open, credential: bytes, *, new: bool
    ) -> None:
        self._pool = pool
        self._open = open_connection
        self._credential = credential
        self._is_new = new
        self.connection: Connection | None = None if new else pool.take(credential)

    async def open(self) -> Connection:
        """Return the connection, opened once there is a slot for it if none was kept.

        Raises what opening raises, and:
            Overloaded: no connection became free within the account's `wait_seconds`, too many
                wait already, or the pool is closing.
        """
        if self.connection is None:
            self.connection = await self._pool.open_or_wait(
                self._credential, self._open, new=self._is_new
            )
        return self.connection

    def end(self, *, in_doubt: bool) -> None:
        """Give the connection back, if there is one; one that is `in_doubt` is aborted."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._pool.release(connection, in_doubt=in_doubt)

    async def __aenter__(self) -> Connection:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(in_doubt=kind is not None)


def _pool_key(account: Account) -> tuple[object, ...]:
    return account.key, account.upstream
