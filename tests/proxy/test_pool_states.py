"""The pool driven at random, with its invariants checked after every step."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.accounts import mailbox
from tests.support.peers import PATIENCE_SECONDS, upstreams
from xoauth2_proxy.errors import ProxyError, UpstreamUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.upstream.pool import Pool, _Shelf

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from xoauth2_proxy.upstream.connection import Connection

MAX_CONNECTIONS = 2
ACCOUNT = mailbox(max_connections=MAX_CONNECTIONS, wait_seconds=1000.0)
_EXPECTED = (ProxyError, RuntimeError, asyncio.CancelledError, ZeroDivisionError)


class Client:
    """Somebody who asks for a lease, and what has become of the request."""

    def __init__(self, pool: Pool, *, new: bool) -> None:
        self.connection: Connection | None = None
        self.opening: asyncio.Future[Connection] | None = None  # decides what opening brings
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._hold(pool, new=new))

    async def _hold(self, pool: Pool, *, new: bool) -> None:
        async with pool.lease(ACCOUNT, self._open, new=new) as connection:
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
    def shelf(self) -> _Shelf:
        return next(iter(self.pool._shelves.values()), _Shelf(ACCOUNT.provider, ACCOUNT.limits))

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

    @rule(new=st.booleans())
    def ask(self, new: bool) -> None:
        async def step() -> None:
            self.clients.append(Client(self.pool, new=new))
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
    @rule(pick=st.integers(0), error=st.sampled_from([UpstreamUnavailable, RuntimeError]))
    def opening_fails(self, pick: int, error: type[Exception]) -> None:
        async def step() -> None:
            opening = self.opening[pick % len(self.opening)].opening
            assert opening is not None
            opening.set_exception(error("refused"))
            await self.settle()

        self.run(step())

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

    @precondition(lambda self: self.shelf.idle)
    @rule(pick=st.integers(0))
    def idle_connection_is_lost(self, pick: int) -> None:
        idle = self.shelf.idle[pick % len(self.shelf.idle)]
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

    @precondition(lambda self: self.shelf.idle)
    @rule(pick=st.integers(0), is_swept=st.booleans())
    def idle_connection_expires(self, pick: int, is_swept: bool) -> None:
        async def step() -> None:
            self.shelf.idle[pick % len(self.shelf.idle)].expires_at = 0.0
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
        taken = len(self.shelf.idle) + len(self.leased) + len(self.opening)
        assert self.shelf.occupied == taken
        assert taken <= MAX_CONNECTIONS

    @invariant()
    def a_connection_is_idle_or_leased_or_closed(self) -> None:
        idle = self.shelf.idle
        leased = [one.connection for one in self.leased]
        places = [*idle, *leased]
        assert len(set(places)) == len(places)
        assert all(one.is_usable for one in idle)
        assert not any(one.is_usable for one in self.made if one not in places)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert len(self.shelf.waiters) == len(self.waiting)
        if self.waiting:
            assert not self.shelf.idle
            assert self.leased or self.opening

    @invariant()
    def a_closed_pool_keeps_nothing(self) -> None:
        if self.is_closed:
            assert not self.shelf.idle
            assert not self.waiting

    @invariant()
    def the_gauge_tells_how_many_are_open(self) -> None:
        name, labels = "xoauth2_proxy_upstream_connections", {"provider": "mock"}
        shown = self.metrics.registry.get_sample_value(name, labels) or 0.0
        assert shown == len(self.shelf.idle) + len(self.leased)

    def teardown(self) -> None:
        async def end() -> None:
            self.pool.close()
            for client in self.clients:
                client.task.cancel()
            async with asyncio.timeout(PATIENCE_SECONDS):
                ends = await asyncio.gather(
                    *(one.task for one in self.clients), return_exceptions=True
                )
            assert all(one is None or isinstance(one, _EXPECTED) for one in ends)
            assert self.shelf.occupied == 0
            assert not any(one.is_usable for one in self.made)
            await self.stack.aclose()

        try:
            self.run(end())
        finally:
            self.runner.close()


PoolStates.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
test_pool_keeps_its_promises = PoolStates.TestCase
