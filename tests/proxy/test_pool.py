"""Leases of connections: caps, order, waiting, and what becomes of connections in doubt."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.peers import PATIENCE_SECONDS, upstreams
from xoauth2_proxy.errors import Overloaded, UpstreamUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.upstream import pool as pool_module
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.peers import Peer, Upstreams
    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.upstream.connection import Connection


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


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    async with upstreams() as network:
        yield Opened(network)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def pool(metrics: Metrics) -> AsyncIterator[Pool]:
    made = Pool(metrics)
    yield made
    made.close()


def count(metrics: Metrics, name: str, **labels: str) -> float:
    labels = {"provider": "mock"} | labels
    return metrics.registry.get_sample_value(f"xoauth2_proxy_upstream_{name}", labels) or 0.0


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


# Caps and order.


async def test_cap_holds_under_500_concurrent_leases(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=7)
    leased: set[Connection] = set()
    most = 0
    cap_is_reached = asyncio.Event()

    async def one() -> None:
        nonlocal most
        async with pool.lease(account, opened.open) as connection:
            assert connection not in leased
            leased.add(connection)
            most = max(most, len(leased))
            if most == 7:
                cap_is_reached.set()
            await cap_is_reached.wait()
            await asyncio.sleep(0)
            leased.remove(connection)

    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(one() for _ in range(500)))
    assert most == 7
    assert len(opened.connections) == 7
    assert repr(pool) == "<Pool 0 leased or opening, 7 idle, 0 waiting>"


async def test_the_connection_used_last_is_leased_first(pool: Pool, opened: Opened) -> None:
    account = mailbox()
    async with held(pool, account, opened, 2) as (one, other):
        first, second = await one.connection(), await other.connection()
        await other.give_back()
        await one.give_back()
    assert await used(pool, account, opened) is first
    async with pool.lease(account, opened.open), pool.lease(account, opened.open) as rest:
        assert rest is second


async def test_waiters_are_served_in_the_order_they_came(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1) as (holder,):
        waiters = [Holder(pool, account, opened) for _ in range(5)]
        await settled()
        await holder.give_back()
        for number, waiter in enumerate(waiters):
            await waiter.connection()
            assert not any(later.has_connection for later in waiters[number + 1 :])
            await waiter.give_back()
    assert len(opened.connections) == 1


async def test_mailboxes_do_not_share(pool: Pool, opened: Opened) -> None:
    one, other = mailbox("a@x", max_connections=1), mailbox("b@x", max_connections=1)
    async with pool.lease(one, opened.open) as first, pool.lease(other, opened.open) as second:
        assert first is not second
    assert await used(pool, one, opened) is first


# Waiting.


async def test_cancelled_waiter_leaves_its_place_to_the_next(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1) as (holder,):
        first, second = Holder(pool, account, opened), Holder(pool, account, opened)
        await settled()
        await first.cancel()
        await holder.give_back()
        assert await second.connection() is await holder.connection()
        await second.give_back()


async def test_cancelled_waiter_gives_its_connection_back(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1) as (holder,):
        connection = await holder.connection()
        waiter = Holder(pool, account, opened)
        await settled()
        pool.release(account, connection, in_doubt=False)  # it is the waiter's now
        waiter.task.cancel()  # which does not know yet
        with suppress(asyncio.CancelledError):
            await waiter.task
        assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"
        assert await used(pool, account, opened) is connection
        pool.close()


@pytest.mark.xfail(
    raises=AssertionError,
    reason="_hand_over shelves a connection given back by a cancelled waiter after close",
)
async def test_cancelled_waiter_gives_nothing_back_to_a_closed_pool(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=1)
    connection = await pool.acquire(account, opened.open, new=False)
    waiter = Holder(pool, account, opened)
    await settled()
    pool.release(account, connection, in_doubt=False)
    waiter.task.cancel()
    pool.close()
    with suppress(asyncio.CancelledError):
        await waiter.task
    assert repr(pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


@pytest.mark.parametrize("wait_seconds", [0.0, 0.01])
async def test_waiting_too_long_is_overload(
    pool: Pool, opened: Opened, wait_seconds: float
) -> None:
    account = mailbox(max_connections=1, wait_seconds=wait_seconds)
    async with held(pool, account, opened, 1) as (holder,):
        with pytest.raises(Overloaded, match="in time"):
            await used(pool, account, opened)
        await holder.give_back()
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"


async def test_too_many_waiters_are_turned_away_at_once(
    pool: Pool, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_WAITING", 2)
    account = mailbox(max_connections=1, wait_seconds=1000.0)
    async with held(pool, account, opened, 1):
        waiters = [Holder(pool, account, opened) for _ in range(2)]
        await settled()
        with pytest.raises(Overloaded, match="too many"):
            await used(pool, account, opened)
        for waiter in waiters:
            await waiter.cancel()


# Opening.


async def test_failed_open_reaches_the_waiters_at_once(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1, wait_seconds=1000.0)
    opened.may_open.clear()
    holders = [Holder(pool, account, opened) for _ in range(4)]
    await settled()
    assert opened.under_way == 1
    opened.fails_with = UpstreamUnavailable("refused")
    opened.may_open.set()
    for holder in holders:
        with pytest.raises(UpstreamUnavailable):
            await holder.connection()
    assert repr(pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


async def test_failed_open_does_not_fail_who_waits_for_a_good_connection(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=2, wait_seconds=1000.0)
    async with held(pool, account, opened, 1) as (holder,):
        opened.may_open.clear()
        opened.fails_with = UpstreamUnavailable("refused")
        opening, waiter = Holder(pool, account, opened), Holder(pool, account, opened)
        await settled()
        opened.may_open.set()
        with pytest.raises(UpstreamUnavailable):
            await opening.connection()
        assert not waiter.task.done()
        await holder.give_back()
        assert await waiter.connection() is await holder.connection()
        await waiter.give_back()


async def test_an_unexpected_error_while_opening_leaves_the_slot_to_the_next(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=1)
    opened.may_open.clear()
    opened.fails_with = RuntimeError("broken")
    opening, waiter = Holder(pool, account, opened), Holder(pool, account, opened)
    await settled()
    opened.may_open.set()
    with pytest.raises(RuntimeError):
        await opening.connection()
    await waiter.connection()
    await waiter.give_back()


async def test_cancelled_open_leaves_the_slot_to_the_next(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1)
    opened.may_open.clear()
    opening, waiter = Holder(pool, account, opened), Holder(pool, account, opened)
    await settled()
    await opening.cancel()
    opened.may_open.set()
    await waiter.connection()
    await waiter.give_back()
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"


# Doubt and age.


async def test_a_lease_that_ends_with_an_exception_aborts_its_connection(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox()
    with pytest.raises(ValueError, match="broken"):
        async with pool.lease(account, opened.open):
            raise ValueError("broken")
    assert await opened.peers[0].rest() == b"", "QUIT was said on a connection in doubt"
    assert count(metrics, "connections_closed_total", reason="doubt") == 1
    assert await used(pool, account, opened) is opened.connections[1]


async def test_a_cancelled_lease_aborts_its_connection_and_frees_the_slot(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1) as (holder,):
        waiter = Holder(pool, account, opened)
        await settled()
        await holder.cancel()
        assert await waiter.connection() is opened.connections[1]
        assert not opened.connections[0].is_usable
        await waiter.give_back()


@pytest.mark.parametrize("reason", ["messages", "age", "idle", "lost"])
async def test_a_connection_whose_time_is_up_is_replaced(
    pool: Pool, opened: Opened, metrics: Metrics, reason: str
) -> None:
    account = mailbox(max_messages_per_connection=3, idle_seconds=60.0)
    connection = await used(pool, account, opened)
    match reason:
        case "messages":
            async with pool.lease(account, opened.open):
                connection.transactions = 3
        case "age":
            connection.expires_at = 0.0
        case "idle":
            connection.last_used_at -= 60.0
        case _:
            async with pool.lease(account, opened.open):
                connection.abort()
    assert await used(pool, account, opened) is not connection
    assert not connection.is_usable
    assert count(metrics, "connections_closed_total", reason=reason) == 1
    assert count(metrics, "connections") == 1


async def test_age_is_counted_from_the_opening_less_a_tenth_at_most(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connection_age_seconds=100.0)
    async with held(pool, account, opened, 8) as holders:
        ages = [one.expires_at - one.opened_at for one in opened.connections]
        assert len(holders) == 8
    assert all(90.0 <= age <= 100.0 for age in ages)
    assert len(set(ages)) > 1, "connections opened together end together"


async def test_idle_connection_that_is_lost_is_forgotten_at_once(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox(max_connections=1)
    connection = await used(pool, account, opened)
    connection.data_received(b"421 4.4.2 idle for too long\r\n")
    assert repr(pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"
    assert count(metrics, "connections_closed_total", reason="lost") == 1
    assert await used(pool, account, opened) is opened.connections[1]


async def test_sweep_closes_what_idled_too_long_and_keeps_the_rest(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(idle_seconds=60.0)
    async with held(pool, account, opened, 2) as holders:
        for holder in holders:
            await holder.give_back()
    opened.connections[0].last_used_at -= 60.0
    pool.sweep()
    assert await opened.peers[0].rest() == b"QUIT\r\n"
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"


async def test_sweep_forgets_mailboxes_nobody_uses(pool: Pool, opened: Opened) -> None:
    connection = await used(pool, mailbox(), opened)
    connection.expires_at = 0.0
    assert len(pool._shelves) == 1
    pool.sweep()
    assert not pool._shelves


async def test_sweeping_goes_on(
    pool: Pool, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_SWEEP_SECONDS", 0.001)
    sweeping = asyncio.create_task(pool.sweep_forever())
    for _ in range(2):
        await used(pool, mailbox(), opened)
        opened.connections[-1].expires_at = 0.0
        assert await opened.peers[-1].rest() == b"QUIT\r\n"
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping


# A new connection on request.


async def test_new_does_not_take_a_kept_connection(pool: Pool, opened: Opened) -> None:
    account = mailbox()
    kept = await used(pool, account, opened)
    assert await used(pool, account, opened, new=True) is not kept
    assert repr(pool) == "<Pool 0 leased or opening, 2 idle, 0 waiting>"


async def test_new_replaces_the_oldest_idle_one_where_there_is_no_room(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox(max_connections=1)
    kept = await used(pool, account, opened)
    assert await used(pool, account, opened, new=True) is opened.connections[1]
    assert not kept.is_usable
    assert count(metrics, "connections_closed_total", reason="replaced") == 1


async def test_new_that_had_to_wait_replaces_what_it_is_handed(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1) as (holder,):
        waiter = Holder(pool, account, opened, new=True)
        await settled()
        await holder.give_back()
        assert await waiter.connection() is opened.connections[1]
        assert not opened.connections[0].is_usable
        await waiter.give_back()


# The end, and the figures.


async def test_closing_closes_idle_ones_turns_waiters_away_and_waits_for_leases(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox(max_connections=2)
    await used(pool, mailbox("idle@x"), opened)
    async with held(pool, account, opened, 2) as (one, other):
        waiter = Holder(pool, account, opened)
        await settled()
        pool.close()
        assert await opened.peers[0].rest() == b"QUIT\r\n"
        with pytest.raises(Overloaded):
            await waiter.connection()
        with pytest.raises(Overloaded):
            await used(pool, mailbox("another@x"), opened)
        assert (await one.connection()).is_usable
        await one.give_back()
        await other.give_back()
    assert await opened.peers[1].rest() == b"QUIT\r\n"
    assert count(metrics, "connections_closed_total", reason="shutdown") == 3
    assert count(metrics, "connections") == 0


async def test_figures_of_opened_and_reused(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox(max_connections=1)
    for _ in range(3):
        await used(pool, account, opened)
    async with held(pool, account, opened, 1) as (holder,):
        waiter = Holder(pool, account, opened)
        await settled()
        await holder.give_back()
        await waiter.connection()
        await waiter.give_back()
    assert count(metrics, "connections_opened_total") == 1
    assert count(metrics, "connections_reused_total") == 4
    assert count(metrics, "connections") == 1
