"""What becomes of a pool's connections: doubt, age, replacement and the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.leases import Holder, Opened, held, settled, used
from xoauth2_proxy.errors import Overloaded
from xoauth2_proxy.upstream import pool as pool_module

if TYPE_CHECKING:
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.upstream.pool import Pool

pytestmark = pytest.mark.both_loops


def count(metrics: Metrics, name: str, **labels: str) -> float:
    labels = {"provider": "mock"} | labels
    return metrics.registry.get_sample_value(f"xoauth2_proxy_upstream_{name}", labels) or 0.0


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
                connection.dialogue.transactions = 3
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
    assert len(pool._pools) == 1
    pool.sweep()
    assert not pool._pools


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


async def test_figures_of_opened_and_reused(pool: Pool, opened: Opened, metrics: Metrics) -> None:
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
