"""Leases of connections: the cap, the order, waiting and opening."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.leases import Holder, Opened, held, settled, used
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.errors import (
    Overloaded,
    UpstreamAuthRejected,
    UpstreamRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.smtp.protocol import reply
from xoauth2_proxy.upstream import account_pool

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.pool import Pool

pytestmark = pytest.mark.both_loops


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
    lease = pool.lease(account, opened.open)
    connection = await lease.open()
    waiter = Holder(pool, account, opened)
    await settled()
    lease.end(in_doubt=False)  # the connection is the waiter's now
    waiter.task.cancel()  # which does not know yet
    with suppress(asyncio.CancelledError):
        await waiter.task
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"
    assert await used(pool, account, opened) is connection
    pool.close()


async def test_cancelled_waiter_gives_nothing_back_to_a_closed_pool(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=1)
    lease = pool.lease(account, opened.open)
    await lease.open()
    waiter = Holder(pool, account, opened)
    await settled()
    lease.end(in_doubt=False)
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
    monkeypatch.setattr(account_pool, "MAX_WAITING", 2)
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


# Slots that a failed open left free.


async def test_a_slot_left_free_is_offered_once_something_goes_well(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=2, wait_seconds=1000.0)
    async with held(pool, account, opened, 1) as (holder,):
        opened.may_open.clear()
        opening = Holder(pool, account, opened)
        await settled()
        waiters = [Holder(pool, account, opened) for _ in range(3)]
        await settled()
        opened.fails_with = UpstreamUnavailable("refused")
        opened.may_open.set()
        with pytest.raises(UpstreamUnavailable):
            await opening.connection()
        await settled()
        assert not any(waiter.has_connection for waiter in waiters)
        assert len(opened.connections) == 1, "one failure after the other"
        await holder.give_back()
        first, second = await waiters[0].connection(), await waiters[1].connection()
        assert (first, second) == tuple(opened.connections)
        assert not waiters[2].has_connection
        for waiter in waiters:
            await waiter.connection()
            await waiter.give_back()
    assert repr(pool) == "<Pool 0 leased or opening, 2 idle, 0 waiting>"


@pytest.mark.parametrize("new", [False, True])
async def test_a_newcomer_does_not_overtake_who_waits(
    pool: Pool, opened: Opened, new: bool
) -> None:
    account = mailbox(max_connections=2, wait_seconds=1000.0)
    async with held(pool, account, opened, 1) as (holder,):
        opened.may_open.clear()
        opening = Holder(pool, account, opened)
        await settled()
        waiter = Holder(pool, account, opened)
        await settled()
        opened.fails_with = UpstreamUnavailable("refused")
        opened.may_open.set()
        with pytest.raises(UpstreamUnavailable):
            await opening.connection()
        newcomer = Holder(pool, account, opened, new=new)
        await settled()
        assert not newcomer.has_connection, "a slot is free, but somebody waits already"
        assert len(opened.connections) == 1
        await holder.give_back()
        assert await waiter.connection() is opened.connections[0]
        assert await newcomer.connection() is opened.connections[1]
        await newcomer.give_back()
        await waiter.give_back()


@pytest.mark.parametrize(
    "error", [UpstreamAuthRejected(reply(535, "7.8", "no")), RuntimeError("x"), Overloaded("x")]
)
async def test_a_refused_token_fails_nobody_else(
    pool: Pool, opened: Opened, error: Exception
) -> None:
    account = mailbox(max_connections=1, wait_seconds=1000.0)
    opened.may_open.clear()
    opening = Holder(pool, account, opened, new=True)
    await settled()
    waiters = [Holder(pool, account, opened) for _ in range(2)]
    await settled()
    opened.fails_with = error
    opened.may_open.set()
    with pytest.raises(type(error)):
        await opening.connection()
    for waiter in waiters:
        assert await waiter.connection() is opened.connections[0]
        await waiter.give_back()


async def test_waiters_do_not_knock_one_after_the_other_where_the_provider_wants_fewer(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=2, wait_seconds=1000.0)
    async with held(pool, account, opened, 1) as (holder,):
        opened.may_open.clear()
        opening = Holder(pool, account, opened)
        await settled()
        waiter = Holder(pool, account, opened)
        await settled()
        opened.fails_with = UpstreamRejected(reply(432, "3.2", "Too many connections"))
        opened.may_open.set()
        with pytest.raises(UpstreamRejected):
            await opening.connection()
        await settled()
        assert len(opened.connections) == 1
        assert not waiter.task.done()
        await holder.give_back()
        assert await waiter.connection() is opened.connections[0]
        await waiter.give_back()
    assert repr(pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"


# Credentials.


async def test_a_kept_connection_serves_only_the_credential_that_opened_it(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=2)
    async with pool.lease(account, opened.open, credential=b"one") as first:
        pass
    async with pool.lease(account, opened.open, credential=b"other") as second:
        assert second is not first
    async with pool.lease(account, opened.open, credential=b"one") as again:
        assert again is first


async def test_at_the_cap_a_connection_of_another_credential_makes_room(
    pool: Pool, opened: Opened
) -> None:
    account = mailbox(max_connections=1)
    async with pool.lease(account, opened.open, credential=b"one") as first:
        waiter = asyncio.create_task(_leased(pool, account, opened, b"other"))
        await settled()
        assert not waiter.done()
    assert await waiter is not first
    assert not first.is_usable
    async with pool.lease(account, opened.open, credential=b"one"):
        assert repr(pool) == "<Pool 1 leased or opening, 0 idle, 0 waiting>"


async def _leased(pool: Pool, account: Account, opened: Opened, credential: bytes) -> Connection:
    async with pool.lease(account, opened.open, credential=credential) as connection:
        return connection
