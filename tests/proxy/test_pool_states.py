"""The pool driven at random, with its invariants checked after every step."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.accounts import mailbox
from tests.support.leases import Holder, Opened, held, settled
from tests.support.peers import upstreams
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.errors import (
    Overloaded,
    ProxyError,
    UpstreamAuthRejected,
    UpstreamRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.upstream.account_pool import AccountPool
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.upstream.connection import Connection

WAIT_SECONDS = 20.0  # of simulated time; no example takes as long in real time
PER_MINUTE = 30.0
BURST_SECONDS = 10.0  # of the rate may go at once
COOL_DOWN_SECONDS = 60.0  # how long "too many connections" counts


def account_with(max_connections: int) -> Account:
    """The mailbox as it is after a reload that changes its limits."""
    return mailbox(
        max_connections=max_connections,
        wait_seconds=WAIT_SECONDS,
        messages_per_minute=PER_MINUTE,
    )


ACCOUNTS = {number: account_with(number) for number in (1, 2, 3)}
ACCOUNT = ACCOUNTS[2]
LIMITS = st.sampled_from([0, 0, *ACCOUNTS])  # of a reload; 0: there was none
TOO_MANY = Reply(432, "4.3.2", ("concurrent connections limit exceeded",))
# What opening may end with: nobody there, the token refused, one too many, and what none expects.
FAILURES = {
    "unavailable": UpstreamUnavailable("refused"),
    "token refused": UpstreamAuthRejected(Reply(535, "5.7.8", ("no",))),
    "too many at AUTH": UpstreamAuthRejected(TOO_MANY),
    "too many": UpstreamRejected(Reply(421, "4.3.2", ("too many",))),
    "unexpected": RuntimeError("refused"),
}
_EXPECTED = (ProxyError, RuntimeError, asyncio.CancelledError, ZeroDivisionError)


class Client:
    """Somebody who asks for a lease, and what has become of the request."""

    def __init__(self, pool: Pool, account: Account, *, new: bool) -> None:
        self._account = account
        self.connection: Connection | None = None
        self.opening: asyncio.Future[Connection] | None = None  # decides what opening brings
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._hold(pool, new=new))

    async def _hold(self, pool: Pool, *, new: bool) -> None:
        async with pool.lease(self._account, self._open, new=new) as connection:
            self.connection = connection
            try:
                await self._end
            finally:
                self.connection = None

    async def _open(self) -> Connection:
        self.opening = asyncio.get_running_loop().create_future()
        try:
            return await self.opening
        finally:
            self.opening = None

    def give_back(self, *, in_doubt: bool) -> None:
        if in_doubt:
            self._end.set_exception(ZeroDivisionError())
        else:
            self._end.set_result(None)

    @property
    def is_waiting(self) -> bool:
        return not self.task.done() and self.connection is None and self.opening is None


class PoolStates(RuleBasedStateMachine):
    """Real connections on loopback; only when and how an opening ends is decided here."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.stack = AsyncExitStack()
        self.network = self.run(self.stack.enter_async_context(upstreams()))
        self.now = 1_000_000.0  # moves by `time_passes` alone
        self.patch = pytest.MonkeyPatch()
        for module in ("pool", "account_pool", "connection"):
            clock = SimpleNamespace(monotonic=lambda: self.now)
            self.patch.setattr(f"xoauth2_proxy.upstream.{module}.time", clock)
        self.account = ACCOUNT
        self.ceiling, self.ceiling_until = 0, 0.0  # of the model
        self.occupied_before = 0
        self.turns: list[float] = []  # when each message may go
        self.waiting_turns: list[asyncio.Task[None]] = []
        self.metrics = Metrics()
        self.pool = Pool(self.metrics)
        self.clients: list[Client] = []
        self.made: list[Connection] = []
        self.is_closed = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @staticmethod
    async def settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    @property
    def account_pool(self) -> AccountPool:
        return next(
            iter(self.pool._pools.values()),
            AccountPool(ACCOUNT.key, ACCOUNT.provider, ACCOUNT.limits, self.metrics),
        )

    @property
    def cap(self) -> int:
        limit = self.account_pool.limits.max_connections
        return min(limit, self.ceiling) if self.now < self.ceiling_until else limit

    def lower(self) -> None:
        self.ceiling = max(1, self.account_pool.occupied - 1)
        self.ceiling_until = self.now + COOL_DOWN_SECONDS

    @property
    def leased(self) -> list[Client]:
        return [one for one in self.clients if one.connection is not None]

    @property
    def opening(self) -> list[Client]:
        return [one for one in self.clients if one.opening is not None]

    @property
    def waiting(self) -> list[Client]:
        return [one for one in self.clients if one.is_waiting]

    # What may happen.

    @rule(new=st.booleans(), limit=LIMITS)
    def ask(self, new: bool, limit: int) -> None:
        self.reload(limit)

        async def step() -> None:
            self.clients.append(Client(self.pool, self.account, new=new))
            await self.settle()

        self.run(step())

    @precondition(lambda self: not self.is_closed)
    @rule(messages=st.integers(2, 3), limit=LIMITS)
    def burst_leaves_idle_connections(self, messages: int, limit: int) -> None:
        self.reload(limit)

        async def step() -> None:
            burst = [Client(self.pool, self.account, new=False) for _ in range(messages)]
            self.clients += burst
            await self.settle()
            for client in burst:
                if client.opening is not None:
                    connection, _ = await self.network.connect()
                    self.made.append(connection)
                    client.opening.set_result(connection)
            await self.settle()
            for client in burst:
                if client.connection is not None:
                    client.give_back(in_doubt=False)
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.opening)
    @rule(pick=st.integers(0))
    def opening_succeeds(self, pick: int) -> None:
        async def step() -> None:
            opening = self.opening[pick % len(self.opening)].opening
            assert opening is not None
            connection, _ = await self.network.connect()
            self.made.append(connection)
            opening.set_result(connection)
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.opening)
    @rule(pick=st.integers(0), how=st.sampled_from(sorted(FAILURES)))
    def opening_fails(self, pick: int, how: str) -> None:
        async def step() -> None:
            opening = self.opening[pick % len(self.opening)].opening
            assert opening is not None
            if how.startswith("too many") and how != "too many at AUTH":
                self.lower()  # at AUTH it may be a stranger's token that is refused
            opening.set_exception(FAILURES[how])
            await self.settle()

        self.run(step())

    @rule(reply=st.sampled_from([TOO_MANY, Reply(250, "", ("kept",)), Reply(451, "", ("later",))]))
    def provider_answers(self, reply: Reply) -> None:
        self.pool.note_reply(self.account, reply)
        if reply is TOO_MANY:
            self.lower()

    def reload(self, limit: int) -> None:
        """Use the account with another limit from now on; 0 changes nothing."""
        self.account = ACCOUNTS.get(limit, self.account)

    @rule(seconds=st.sampled_from([0.5, 2.0, 11.0, 61.0, 300.0]), is_swept=st.booleans())
    def time_passes(self, seconds: float, is_swept: bool) -> None:
        async def step() -> None:
            self.now += seconds
            if is_swept:
                self.pool.sweep()
            await self.settle()

        self.run(step())

    @rule(messages=st.integers(1, 8))
    def messages_wait_for_their_turns(self, messages: int) -> None:
        async def step() -> None:
            for _ in range(messages):
                turn = asyncio.create_task(self.pool.wait_turn(self.account))
                await asyncio.sleep(0)
                await self._judge_turn(turn)

        self.run(step())

    async def _judge_turn(self, turn: asyncio.Task[None]) -> None:
        interval = 60.0 / PER_MINUTE
        expected = self._next_turn(interval)
        if expected - self.now > WAIT_SECONDS:
            with pytest.raises(Overloaded):
                await turn
            return
        assert turn.done() is (expected <= self.now)
        self.turns.append(expected)
        self.waiting_turns.append(turn)

    def _next_turn(self, interval: float) -> float:
        """The first moment at which no window holds more than the rate and its burst allow."""
        allowance = BURST_SECONDS / interval
        at = self.now
        for number, first in enumerate(reversed(self.turns), start=1):
            # The last `number` turns and this one need their time, less the burst.
            at = max(at, first + (number + 1 - allowance) * interval)
        return at

    @precondition(lambda self: self.leased)
    @rule(pick=st.integers(0), in_doubt=st.booleans())
    def give_back(self, pick: int, in_doubt: bool) -> None:
        async def step() -> None:
            self.leased[pick % len(self.leased)].give_back(in_doubt=in_doubt)
            await self.settle()

        self.run(step())

    @precondition(lambda self: any(not one.task.done() for one in self.clients))
    @rule(pick=st.integers(0))
    def cancel(self, pick: int) -> None:
        async def step() -> None:
            alive = [one for one in self.clients if not one.task.done()]
            alive[pick % len(alive)].task.cancel()
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.leased and self.waiting)
    @rule(pick=st.integers(0), ticks=st.integers(0, 3))
    def cancel_a_waiter_about_when_it_is_served(self, pick: int, ticks: int) -> None:
        async def step() -> None:
            waiter = self.waiting[0]
            self.leased[pick % len(self.leased)].give_back(in_doubt=False)
            for _ in range(ticks):
                await asyncio.sleep(0)
            waiter.task.cancel()
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.account_pool.idle)
    @rule(pick=st.integers(0))
    def idle_connection_is_lost(self, pick: int) -> None:
        idle = self.account_pool.idle[pick % len(self.account_pool.idle)]
        self.run(self.lose(idle))

    @precondition(lambda self: self.leased)
    @rule(pick=st.integers(0))
    def leased_connection_is_lost(self, pick: int) -> None:
        leased = self.leased[pick % len(self.leased)].connection
        assert leased is not None
        self.run(self.lose(leased))

    async def lose(self, connection: Connection) -> None:
        connection.data_received(b"421 4.4.2 bye\r\n")
        await self.settle()

    @precondition(lambda self: self.account_pool.idle)
    @rule(pick=st.integers(0), is_swept=st.booleans())
    def idle_connection_expires(self, pick: int, is_swept: bool) -> None:
        async def step() -> None:
            self.account_pool.idle[pick % len(self.account_pool.idle)].expires_at = 0.0
            if is_swept:
                self.pool.sweep()
            await self.settle()

        self.run(step())

    @precondition(lambda self: not self.is_closed and len(self.clients) > 8)
    @rule()
    def close(self) -> None:
        async def step() -> None:
            self.is_closed = True
            self.pool.close()
            await self.settle()

        self.run(step())

    # What must hold.

    @invariant()
    def slots_are_counted_right_and_never_exceeded(self) -> None:
        taken = len(self.account_pool.idle) + len(self.leased) + len(self.opening)
        assert self.account_pool.occupied == taken
        # A lowered cap closes nothing, but nothing is opened above it.
        assert taken <= max(self.cap, self.occupied_before)
        self.occupied_before = taken

    @invariant()
    def the_cap_is_what_provider_and_limits_say(self) -> None:
        assert self.account_pool.max_connections == self.cap
        assert self.cap >= 1

    @invariant()
    def the_rate_is_kept(self) -> None:
        a_minute = Counter(int(turn // 60.0) for turn in self.turns)
        assert max(a_minute.values(), default=0) <= PER_MINUTE * (1 + BURST_SECONDS / 60.0) + 1

    @invariant()
    def a_connection_is_idle_or_leased_or_closed(self) -> None:
        idle = self.account_pool.idle
        leased = [one.connection for one in self.leased]
        places = [*idle, *leased]
        assert len(set(places)) == len(places)
        assert all(one.is_usable for one in idle)
        assert not any(one.is_usable for one in self.made if one not in places)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert len(self.account_pool.waiters) == len(self.waiting)
        if self.waiting:
            assert not self.account_pool.idle
            assert self.leased or self.opening

    @invariant()
    def a_closed_pool_keeps_nothing(self) -> None:
        if self.is_closed:
            assert not self.account_pool.idle
            assert not self.waiting

    @invariant()
    def the_gauge_tells_how_many_are_open(self) -> None:
        name, labels = "xoauth2_proxy_upstream_connections", {"provider": "mock"}
        shown = self.metrics.registry.get_sample_value(name, labels) or 0.0
        assert shown == len(self.account_pool.idle) + len(self.leased)

    def teardown(self) -> None:
        async def end() -> None:
            self.pool.close()
            for client in self.clients:
                client.task.cancel()
            for turn in self.waiting_turns:
                turn.cancel()
            await asyncio.gather(*self.waiting_turns, return_exceptions=True)
            async with asyncio.timeout(PATIENCE_SECONDS):
                ends = await asyncio.gather(
                    *(one.task for one in self.clients), return_exceptions=True
                )
            assert all(one is None or isinstance(one, _EXPECTED) for one in ends)
            assert self.account_pool.occupied == 0
            assert not any(one.is_usable for one in self.made)
            await self.stack.aclose()

        try:
            self.run(end())
        finally:
            self.patch.undo()
            self.runner.close()


PoolStates.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=40, deadline=None
)
test_pool_keeps_its_promises = PoolStates.TestCase


# What the machine found and does not go into, until it is mended.


async def test_432_lowers_the_cap_for_those_who_wait() -> None:
    async with upstreams() as network:
        pool, account = Pool(Metrics()), account_with(3)
        opened = Opened(network)
        holders = [Holder(pool, account, opened) for _ in range(3)]
        for holder in holders:
            await holder.connection()
        waiting = Holder(pool, account, opened)
        await settled()
        pool.note_reply(account, TOO_MANY)
        await holders[0].cancel()  # its connection is closed, as after a 432
        await settled()
        opened_above = len(opened.connections) + opened.under_way
        for holder in (waiting, *holders):
            await holder.cancel()
        pool.close()
        assert opened_above == 3


async def test_421_at_an_opening_is_not_tried_again_by_everyone_who_waits() -> None:
    async with upstreams() as network:
        pool, account = Pool(Metrics()), account_with(3)
        opened = Opened(network)
        holders = [Holder(pool, account, opened) for _ in range(2)]
        for holder in holders:
            await holder.connection()
        attempts = 0

        async def refuse() -> Connection:
            nonlocal attempts
            attempts += 1
            await asyncio.sleep(0)
            raise FAILURES["too many"]

        async def ask() -> None:
            async with pool.lease(account, refuse):
                raise AssertionError("it was refused")

        asking = [asyncio.create_task(ask()) for _ in range(5)]
        await settled()
        seen = attempts
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for holder in holders:
            await holder.cancel()
        pool.close()
        assert seen == 1


async def test_new_connection_is_had_above_a_lowered_cap() -> None:
    async with upstreams() as network:
        pool, opened = Pool(Metrics()), Opened(network)
        async with held(pool, account_with(3), opened, 3) as holders:
            for holder in holders:
                await holder.give_back()
        asking = Holder(pool, account_with(1), opened, new=True)  # after a reload
        await settled()
        is_waiting = not opened.under_way and not asking.has_connection
        await asking.cancel()
        pool.close()
        assert not is_waiting, "it waits for idle connections"
