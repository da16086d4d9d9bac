"""Leases of a pool, held by tasks of their own for as long as a test likes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.peers import Peer, Upstreams
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.pool import Pool


class Opened:
    """What opens connections for a pool, and remembers them."""

    def __init__(self, network: Upstreams) -> None:
        self._network = network
        self.connections: list[Connection] = []
        self.peers: list[Peer] = []
        self.fails_with: Exception | None = None
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.under_way = 0

    async def open(self) -> Connection:
        self.under_way += 1
        try:
            await self.may_open.wait()
            failure, self.fails_with = self.fails_with, None
            if failure is not None:
                raise failure
            connection, peer = await self._network.connect()
        finally:
            self.under_way -= 1
        self.connections.append(connection)
        self.peers.append(peer)
        return connection


class Holder:
    """A lease in a task of its own, held until it is told to end."""

    def __init__(self, pool: Pool, account: Account, opened: Opened, *, new: bool = False) -> None:
        self._holding = asyncio.get_running_loop().create_future()
        self._enough = asyncio.Event()
        self.task = asyncio.create_task(self._hold(pool, account, opened, new=new))

    async def _hold(self, pool: Pool, account: Account, opened: Opened, *, new: bool) -> None:
        async with pool.lease(account, opened.open, new=new) as connection:
            self._holding.set_result(connection)
            await self._enough.wait()

    @property
    def has_connection(self) -> bool:
        return self._holding.done()

    async def connection(self) -> Connection:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([self._holding, self.task], return_when=asyncio.FIRST_COMPLETED)
        if not self._holding.done():
            self.task.result()
        found: Connection = self._holding.result()
        return found

    async def give_back(self) -> None:
        self._enough.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def held(
    pool: Pool, account: Account, opened: Opened, number: int
) -> AsyncIterator[list[Holder]]:
    """Hold this many connections for the length of the block."""
    holders = [Holder(pool, account, opened) for _ in range(number)]
    for holder in holders:
        await holder.connection()
    yield holders
    for holder in holders:
        await holder.cancel()


async def used(pool: Pool, account: Account, opened: Opened, *, new: bool = False) -> Connection:
    """Lease a connection and give it back at once."""
    async with pool.lease(account, opened.open, new=new) as connection:
        return connection
