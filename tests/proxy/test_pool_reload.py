"""Accounts that change under a pool, and grants that end: what is kept and what is closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.leases import Holder, Opened, held, settled, used
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.accounts import Account, TlsMode, Upstream
from xoauth2_proxy.errors import Overloaded
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.upstream.pool import Pool
from xoauth2_proxy.upstream.worker_slots import WorkerSlots

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.both_loops

ELSEWHERE = Upstream("localhost", 2601, TlsMode.NONE)
EMPTY = "<Pool 0 leased or opening, 0 idle, 0 waiting>"


def closed(metrics: Metrics, reason: str) -> float:
    labels = {"provider": "mock", "reason": reason}
    name = "xoauth2_proxy_upstream_connections_closed_total"
    return metrics.registry.get_sample_value(name, labels) or 0.0


def limited(account: Account, **limits: float) -> Account:
    return replace(account, limits=replace(account.limits, **limits))  # type: ignore[arg-type]


# Limits.


async def test_the_limits_of_now_count_for_a_login_of_before(pool: Pool, opened: Opened) -> None:
    before = mailbox(max_connections=3, wait_seconds=0.0)
    pool.use([limited(before, max_connections=1)])
    async with pool.lease(before, opened.open):
        with pytest.raises(Overloaded):
            await used(pool, before, opened)


async def test_a_login_of_before_does_not_bring_its_limits_back(pool: Pool, opened: Opened) -> None:
    before = mailbox(max_connections=3, wait_seconds=0.0)
    now = limited(before, max_connections=1)
    pool.use([now])
    await used(pool, before, opened)
    async with pool.lease(now, opened.open):
        with pytest.raises(Overloaded):
            await used(pool, now, opened)


async def test_who_waits_profits_from_a_higher_limit(pool: Pool, opened: Opened) -> None:
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1):
        waiter = Holder(pool, account, opened)
        await settled()
        pool.use([limited(account, max_connections=2)])
        pool.sweep()
        assert (await waiter.connection()).is_usable
        await waiter.give_back()


async def test_idle_connections_beyond_a_lower_limit_are_closed(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox(max_connections=3)
    async with held(pool, account, opened, 3) as holders:
        for holder in holders:
            await holder.give_back()
    pool.use([limited(account, max_connections=1)])
    pool.sweep()
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"
    assert closed(metrics, "cap") == 2


async def test_busy_connections_beyond_a_lower_limit_end_when_they_come_back(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=3)
    async with held(pool, account, opened, 3) as holders:
        pool.use([limited(account, max_connections=1)])
        for holder in holders:
            assert (await holder.connection()).is_usable
            await holder.give_back()
    pool.sweep()
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"


async def test_without_accounts_each_lease_brings_its_own_limits(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=1, wait_seconds=0.0)
    async with pool.lease(account, opened.open):
        await used(pool, limited(account, max_connections=2), opened)


# Accounts that went or changed.


@pytest.mark.parametrize("change", ["gone", "moved"])
async def test_idle_connections_of_an_account_that_went_or_moved_are_closed(
    pool: Pool, opened: Opened, metrics: Metrics, change: str
) -> None:
    account, other = mailbox("a@x"), mailbox("b@x")
    idle, others = await used(pool, account, opened), await used(pool, other, opened)
    pool.use([other, *([replace(account, upstream=ELSEWHERE)] if change == "moved" else [])])
    assert not idle.is_usable
    assert others.is_usable
    assert closed(metrics, "reload") == 1
    assert await opened.peers[0].rest() == b"QUIT\r\n"
    assert await used(pool, other, opened) is others


async def test_accounts_that_did_not_change_keep_their_connections(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox()
    idle = await used(pool, account, opened)
    pool.use([replace(account, password=None, provider="other")])
    assert await used(pool, account, opened) is idle


async def test_a_busy_connection_of_an_account_that_went_ends_its_work_and_is_closed(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account = mailbox()
    async with held(pool, account, opened, 1) as (holder,):
        pool.use([])
        busy = await holder.connection()
        assert busy.is_usable
        await holder.give_back()
    assert not busy.is_usable
    assert closed(metrics, "reload") == 1
    assert repr(pool) == EMPTY


async def test_a_login_of_before_goes_on_with_an_account_that_went(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox()
    first = await used(pool, account, opened)
    pool.use([])
    second = await used(pool, account, opened)
    assert second is not first
    assert await used(pool, account, opened) is second


async def test_an_account_that_comes_back_begins_anew(pool: Pool, opened: Opened) -> None:
    account = mailbox()
    async with held(pool, account, opened, 1) as (holder,):
        pool.use([])
        pool.use([account])
        await holder.give_back()
        before = await holder.connection()
    assert await used(pool, account, opened) is not before


# Grants that ended.


async def test_a_dropped_mailbox_loses_its_idle_connections_and_no_other_does(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    account, other = mailbox("Some.One@x"), mailbox("b@x")
    idle, others = await used(pool, account, opened), await used(pool, other, opened)
    moved = await used(pool, replace(account, upstream=ELSEWHERE), opened)
    pool.drop("some.one@x")
    assert [one.is_usable for one in (idle, moved, others)] == [False, False, True]
    assert closed(metrics, "revoked") == 2
    assert await used(pool, account, opened) is opened.connections[-1]


async def test_a_mailbox_that_nobody_used_can_be_dropped(pool: Pool) -> None:
    pool.drop("nobody@example.com")
    assert repr(pool) == EMPTY


async def test_a_busy_connection_of_a_dropped_mailbox_carries_no_further_message(
    pool: Pool, opened: Opened, metrics: Metrics
) -> None:
    """What was logged in before could otherwise send for an hour with a grant that has ended."""
    account = mailbox(max_connections=1)
    async with held(pool, account, opened, 1) as (holder,):
        busy = await holder.connection()
        waiter = Holder(pool, account, opened)
        await settled()
        pool.drop(account.key)
        assert busy.is_usable
        await holder.give_back()
        assert await waiter.connection() is not busy
        await waiter.give_back()
    assert not busy.is_usable
    assert closed(metrics, "revoked") == 1
    assert await used(pool, account, opened) is opened.connections[1]


async def test_a_connection_that_was_being_opened_serves_once(pool: Pool, opened: Opened) -> None:
    """Its token may have been shown before the grant ended."""
    account = mailbox()
    opened.may_open.clear()
    holder = Holder(pool, account, opened)
    await settled()
    pool.drop(account.key)
    opened.may_open.set()
    connection = await holder.connection()
    await holder.give_back()
    assert not connection.is_usable
    assert await used(pool, account, opened) is not connection
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"


# Between workers.


async def test_a_worker_whose_connections_end_soon_leaves_slots_to_another(
    tmp_path: Path, opened: Opened
) -> None:
    rates = tmp_path / "rates"
    rates.mkdir()
    loop, slots = asyncio.get_running_loop(), list[WorkerSlots]()
    for number in (0, 1):

        def tell(line: str, other: int = 1 - number) -> None:
            loop.call_soon(slots[other].heard, line)

        slots.append(WorkerSlots(tmp_path / "slots", rates, tell))
    busy, quiet = (Pool(Metrics(), one) for one in slots)
    account = mailbox(max_connections=1, max_messages_per_connection=1)
    is_served = asyncio.Event()

    async def send_without_end() -> None:
        while not is_served.is_set():
            async with busy.lease(account, opened.open) as connection:
                connection.dialogue.transactions += 1
                await asyncio.sleep(0)

    senders = [asyncio.create_task(send_without_end()) for _ in range(3)]
    await settled()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await used(quiet, account, opened)
        is_served.set()
        await asyncio.gather(*senders)
    busy.close()
    quiet.close()
