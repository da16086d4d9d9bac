"""WorkerSlots that workers share: locks, requests between pools, and one rate."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.leases import Holder, Opened, held, settled, used
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.errors import Overloaded, UpstreamUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.upstream import slot_sharing
from xoauth2_proxy.upstream import worker_slots as slots_module
from xoauth2_proxy.upstream.pool import Pool
from xoauth2_proxy.upstream.rate_limit import RateLimit
from xoauth2_proxy.upstream.worker_slots import MailboxSlots, WorkerSlots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from xoauth2_proxy.upstream.connection import Connection

NAME = "someone@example.com"


class Workers:
    """WorkerSlots and pools of several workers, in one process: locks do not mind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.slots: list[WorkerSlots] = []
        self.pools: list[Pool] = []
        self.told: list[str] = []

    def add(self) -> WorkerSlots:
        number = len(self.slots)
        rates = self.directory / "rates"
        rates.mkdir(exist_ok=True)
        self.slots.append(
            WorkerSlots(self.directory / "slots", rates, lambda line: self._tell(number, line))
        )
        return self.slots[-1]

    def add_pool(self) -> Pool:
        self.pools.append(Pool(Metrics(), self.add()))
        return self.pools[-1]

    def _tell(self, sender: int, line: str) -> None:
        self.told.append(line)
        loop = asyncio.get_running_loop()
        for number, slots in enumerate(self.slots):
            if number != sender:
                loop.call_soon(slots.heard, line)


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


@pytest.fixture
async def pools(workers: Workers) -> AsyncIterator[tuple[Pool, Pool]]:
    made = workers.add_pool(), workers.add_pool()
    yield made
    for pool in made:
        pool.close()


def of(slots: WorkerSlots) -> MailboxSlots:
    return slots.of(NAME, lambda _: None, lambda: None)


# Locks.


def test_as_many_slots_as_allowed_are_held_by_all_workers_together(workers: Workers) -> None:
    one, other = of(workers.add()), of(workers.add())
    taken = [one.take(3), other.take(3), one.take(3), other.take(3), one.take(3)]
    assert taken == [True, True, True, False, False]
    one.give_back()
    assert other.take(3)
    assert (one.held, other.held) == (1, 2)
    for slots in (one, other, other):
        slots.give_back()


def test_files_are_private_and_name_no_mailbox(workers: Workers) -> None:
    slots = of(workers.add())
    assert slots.take(1)
    assert workers.directory.joinpath("slots").stat().st_mode & 0o777 == 0o700
    (file,) = workers.directory.joinpath("slots").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "someone" not in file.name
    slots.give_back()


def test_a_slot_that_cannot_be_locked_is_not_taken(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    slots = of(workers.add())
    workers.directory.joinpath("slots").rmdir()
    assert not slots.take(1)
    assert "cannot be locked" in caplog.text


def test_lines_about_mailboxes_nobody_uses_here_are_ignored(workers: Workers) -> None:
    slots = workers.add()
    slots.heard("wanted 0123 1")
    slots.heard("freed 0123")
    mailbox_slots = of(slots)
    slots.forget(mailbox_slots)
    slots.heard(f"wanted {mailbox_slots.name} 0")


# The rate.


async def test_turns_of_all_workers_are_those_of_one(workers: Workers) -> None:
    one, other, alone = of(workers.add()), of(workers.add()), RateLimit()
    for number in range(40):
        slots = (one, other)[number % 2]
        shared = await slots.reserve(120.0, 5.0)
        expected = alone.reserve(time.monotonic(), 120.0, 5.0)
        assert (shared is None) == (expected is None)
        assert (shared or 0.0) == pytest.approx(expected or 0.0, abs=0.05)


async def test_a_rate_in_use_is_waited_for_but_not_for_ever(workers: Workers) -> None:
    slots = of(workers.add())
    descriptor = slots_module._locked(workers.directory / "rates" / slots.name)
    assert descriptor is not None
    assert await slots.reserve(60.0, 0.01) is None
    waiting = asyncio.create_task(slots.reserve(60.0, 5.0))
    await settled()
    os.close(descriptor)
    assert await waiting == 0.0


async def test_a_rate_that_cannot_be_read_lets_nothing_through(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    slots = of(workers.add())
    workers.directory.joinpath("rates").rmdir()
    assert await slots.reserve(60.0, 1.0) is None
    assert "cannot be read" in caplog.text


async def test_pools_share_the_rate(pools: tuple[Pool, Pool]) -> None:
    account = mailbox(messages_per_minute=6.0, wait_seconds=0.0)
    await pools[0].wait_turn(account)
    with pytest.raises(Overloaded):
        await pools[1].wait_turn(account)


# Pools.


async def test_an_idle_connection_makes_room_for_another_worker(
    pools: tuple[Pool, Pool], opened: Opened
) -> None:
    account = mailbox(max_connections=1)
    first = await used(pools[0], account, opened)
    assert await used(pools[1], account, opened) is not first
    assert not first.is_usable
    assert repr(pools[0]) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


async def test_a_connection_in_use_makes_room_once_it_is_released(
    pools: tuple[Pool, Pool], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_sharing, "_TENURE_OPENINGS", 0)
    monkeypatch.setattr(slot_sharing, "_MIN_TENURE_SECONDS", 0.0)
    account = mailbox(max_connections=1)
    async with held(pools[0], account, opened, 1) as (holder,):
        next_here = Holder(pools[0], account, opened)
        there = Holder(pools[1], account, opened)
        await settled()
        assert not there.has_connection
        await holder.give_back()
        await there.connection()
        assert not next_here.has_connection
        await there.give_back()
        await next_here.connection()
        await next_here.give_back()


async def test_a_connection_is_not_given_up_before_it_was_worth_opening(
    pools: tuple[Pool, Pool], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_sharing, "_MIN_TENURE_SECONDS", 1000.0)
    monkeypatch.setattr(slot_sharing, "_MAX_TENURE_SECONDS", 1000.0)
    monkeypatch.setattr(slot_sharing, "_BETWEEN_MESSAGES_SECONDS", 1000.0)
    account = mailbox(max_connections=1, wait_seconds=0.2)
    kept = await used(pools[0], account, opened)
    with pytest.raises(Overloaded):
        await used(pools[1], account, opened)
    assert kept.is_usable


async def test_a_worker_with_its_share_takes_no_connection_that_is_in_use(
    pools: tuple[Pool, Pool],
    opened: Opened,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slot_sharing, "_TENURE_OPENINGS", 0)
    monkeypatch.setattr(slot_sharing, "_MIN_TENURE_SECONDS", 0.0)
    account = mailbox(max_connections=3)
    async with (
        held(pools[0], account, opened, 2) as (one, _),
        held(pools[1], account, opened, 1) as (other,),
    ):
        waiting = Holder(pools[1], account, opened)
        next_one = Holder(pools[0], account, opened)
        told = len(workers.told)
        await until(lambda: len(workers.told) >= told + 2)  # it has asked, twice
        await one.give_back()
        assert await next_one.connection() is await one.connection()
        await next_one.cancel()
        await other.give_back()
        await waiting.cancel()


async def test_who_waits_for_another_worker_takes_a_connection_of_its_own_if_it_is_first(
    pools: tuple[Pool, Pool], opened: Opened
) -> None:
    account = mailbox(max_connections=2)
    async with (
        held(pools[0], account, opened, 1) as (here,),
        held(pools[1], account, opened, 1),
    ):
        waiting = Holder(pools[0], account, opened)
        await settled()
        await here.give_back()
        assert await waiting.connection() is await here.connection()
        await waiting.give_back()


async def test_waiting_for_another_worker_ends_in_time(
    pools: tuple[Pool, Pool], opened: Opened
) -> None:
    account = mailbox(max_connections=1, wait_seconds=0.15)
    async with held(pools[0], account, opened, 1):
        with pytest.raises(Overloaded, match="in time"):
            await used(pools[1], account, opened)
    assert repr(pools[1]) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


async def test_nobody_is_asked_once_nobody_waits(
    pools: tuple[Pool, Pool], opened: Opened, workers: Workers
) -> None:
    account = mailbox(max_connections=1)
    async with held(pools[0], account, opened, 1):
        waiting = Holder(pools[1], account, opened)
        await until(lambda: len(workers.told) > 1)
        await waiting.cancel()
        told = len(workers.told)
        await asyncio.sleep(0.12)
        assert len(workers.told) == told


async def test_new_replaces_an_idle_connection_where_others_hold_the_rest(
    pools: tuple[Pool, Pool], opened: Opened
) -> None:
    account = mailbox(max_connections=2)
    kept = await used(pools[0], account, opened)
    async with held(pools[1], account, opened, 1):
        assert await used(pools[0], account, opened, new=True) is not kept
    assert not kept.is_usable


async def test_a_failed_open_gives_its_slot_back(pools: tuple[Pool, Pool], opened: Opened) -> None:
    account = mailbox(max_connections=1)
    opened.fails_with = UpstreamUnavailable("refused")
    with pytest.raises(UpstreamUnavailable):
        await used(pools[0], account, opened)
    await used(pools[1], account, opened)


async def test_forgotten_mailboxes_leave_nothing_behind(
    pools: tuple[Pool, Pool], opened: Opened, workers: Workers
) -> None:
    (await used(pools[0], mailbox(), opened)).expires_at = 0.0
    pools[0].sweep()
    assert not pools[0]._pools
    assert not workers.slots[0]._mailboxes


class Crowd:
    """Clients of two pools that do as chance tells them, with the books checked all along."""

    def __init__(self, pools: tuple[Pool, Pool], opened: Opened) -> None:
        self.account = mailbox(max_connections=3, wait_seconds=1000.0)
        self.served = 0
        self._pools = pools
        self._opened = opened
        self._chance = random.Random(8471)
        self._leased: set[Connection] = set()

    def check(self) -> None:
        account_pools = [
            account_pool for pool in self._pools for account_pool in pool._pools.values()
        ]
        assert (
            sum(account_pool.occupied for account_pool in account_pools)
            <= self.account.limits.max_connections
        )
        for account_pool in account_pools:
            assert account_pool.sharing is not None
            assert account_pool.sharing.slots.held == account_pool.occupied
            assert not (account_pool.idle and account_pool.waiters)

    async def client(self, pool: Pool) -> None:
        for _ in range(20):
            if self._chance.random() < 0.03:
                self._opened.fails_with = UpstreamUnavailable("refused")
            with suppress(ZeroDivisionError, UpstreamUnavailable):
                await self._lease(pool)
            self.check()
            await asyncio.sleep(self._chance.choice([0.0, 0.004]))
        self.served += 1

    async def _lease(self, pool: Pool) -> None:
        is_new = self._chance.random() < 0.05
        async with pool.lease(self.account, self._opened.open, new=is_new) as connection:
            self.check()
            assert connection not in self._leased
            self._leased.add(connection)
            try:
                await asyncio.sleep(self._chance.choice([0.0, 0.0005, 0.002]))
                if self._chance.random() < 0.05:
                    raise ZeroDivisionError
            finally:
                self._leased.remove(connection)


async def test_two_pools_at_random_keep_the_cap_and_their_books(
    pools: tuple[Pool, Pool], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_sharing, "_MIN_TENURE_SECONDS", 0.002)
    monkeypatch.setattr(slot_sharing, "_BETWEEN_MESSAGES_SECONDS", 0.002)
    monkeypatch.setattr(slot_sharing, "_ASK_SECONDS", 0.002)
    crowd = Crowd(pools, opened)
    async with asyncio.timeout(PATIENCE_SECONDS):
        tasks = [asyncio.create_task(crowd.client(pools[number % 2])) for number in range(20)]
        await asyncio.sleep(0.05)
        for task in tasks[:3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert crowd.served == 17
    for pool in pools:
        pool.close()
        assert repr(pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"
    crowd.check()
