"""Two token sources over one store, driven at random, with the promises checked at each step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.refreshers import signed_in
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from xoauth2_proxy.oauth.grant import AccessToken, Grant

ACCOUNT = signed_in()
PROCESSES = st.integers(0, 1)
# What an attempt may end with, and how long it is not made again at least.
FAILURES: dict[str, tuple[TokenError, float]] = {
    "revoked": (GrantRevoked("invalid_grant"), 300.0),
    "refused": (TokenEndpointRefused("invalid_client"), 60.0),
    "unavailable": (TokenEndpointUnavailable("503"), 0.5),
    "busy": (TokenEndpointUnavailable("429", 40.0), 40.0),
}


class Clock:
    """Stands still unless the test moves it; the event loop goes by it too."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1_700_000_000.0


@dataclass
class Process:
    """One token source and what is known of it."""

    machine: SourceStates
    source: TokenSource = field(init=False)
    asked: asyncio.Future[TokenResponse] | None = None  # the request under way
    refused: set[str] = field(default_factory=set)
    given_out: AccessToken | None = None
    failures: int = 0  # in a row
    quiet_until: float = 0.0  # nothing is asked before, unless somebody mends the grant
    may_ask_anyhow: bool = False  # an operator wished it

    def __post_init__(self) -> None:
        machine = self.machine
        self.source = TokenSource({"mock": self}, Metrics(), machine.store, machine.clock)

    async def refresh(self, grant: Grant) -> TokenResponse:
        self.machine.check_request(self, grant)
        self.asked = asyncio.get_running_loop().create_future()
        try:
            return await self.asked
        except asyncio.CancelledError:  # it took too long
            self.failed("unavailable")
            raise
        finally:
            self.asked = None

    def failed(self, how: str) -> None:
        self.failures += 1
        pause = FAILURES[how][1]
        if how == "unavailable":
            pause = min(0.5 * 2 ** (self.failures - 1), 150.0)
        self.quiet_until = self.machine.clock.now + pause
        if how == "revoked":
            self.machine.dead_until = self.quiet_until
        elif how == "refused":
            self.machine.dead_until = 0.0

    async def use(self) -> None:
        try:
            token = await self.source.token_for(ACCOUNT)
        except TokenError:
            return
        self.given_out = token
        self.machine.check_token(self, token)


class SourceStates(RuleBasedStateMachine):
    """The refreshers are the test's; the rest is real."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.runner = asyncio.Runner(loop_factory=self.loop)
        self.store = MemoryStore()
        self.ends_at: dict[str, float] = {}  # of each token ever issued
        self.dead_until = 0.0  # no process asks before, though only one was told
        self.refresh_token = ACCOUNT.oauth.refresh_token
        self.processes: list[Process] = []
        self.processes += [Process(self), Process(self)]
        self.callers: list[asyncio.Task[None]] = []
        self.broken: list[str] = []  # promises

    def loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.time = self.clock.monotonic  # type: ignore[method-assign]
        return loop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @staticmethod
    async def settle() -> None:
        for _ in range(40):
            await asyncio.sleep(0)

    def check_request(self, process: Process, grant: Grant) -> None:
        if any(one.asked is not None for one in self.processes):
            self.broken.append("two requests for one mailbox at once")
        if grant.refresh_token != self.refresh_token:
            self.broken.append("an old refresh token was presented")
        if self.clock.now < max(process.quiet_until, self.dead_until):
            if not process.may_ask_anyhow:
                self.broken.append("the endpoint was asked before it was time")
            process.may_ask_anyhow = False

    def check_token(self, process: Process, token: AccessToken) -> None:
        if self.clock.now >= self.ends_at[token.value]:
            self.broken.append("a token was given out that had ended")
        if token.expires_at > self.ends_at[token.value] + 0.001:  # dates are floats as well
            self.broken.append("a token is believed to live longer than it does")
        if token.value in process.refused:
            self.broken.append("a token was given out that had been refused")

    @property
    def asking(self) -> list[Process]:
        return [one for one in self.processes if one.asked is not None]

    # What may happen.

    @rule(process=PROCESSES, times=st.integers(1, 3))
    def clients_come(self, process: int, times: int) -> None:
        async def step() -> None:
            for _ in range(times):
                task = asyncio.create_task(self.processes[process].use())
                self.callers.append(task)
                task.add_done_callback(self.callers.remove)
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.callers)
    @rule()
    def a_client_goes(self) -> None:
        async def step() -> None:
            self.callers[0].cancel()
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.asking)
    @rule(lifetime=st.sampled_from([3600.0, 3600.0, 100.0, 5.0, 0.0]), rotates=st.booleans())
    def endpoint_issues(self, lifetime: float, rotates: bool) -> None:
        async def step() -> None:
            (process,) = self.asking
            number = len(self.ends_at) + 1
            if rotates:
                self.refresh_token = f"refresh-{number}"
            # Asked for some time ago, at the latest now; a token's life is never overrated.
            self.ends_at[f"token-{number}"] = self.clock.now + lifetime
            self.dead_until = 0.0
            for one in self.processes:  # the grant has changed: anyone may try again
                one.quiet_until = 0.0
            if lifetime:
                process.failures = 0
            else:
                process.failed("unavailable")
            assert process.asked is not None
            process.asked.set_result(
                TokenResponse(
                    access_token=f"token-{number}",
                    lifetime_seconds=lifetime,
                    refresh_token=self.refresh_token if rotates else "",
                )
            )
            await self.settle()

        self.run(step())

    @precondition(lambda self: self.asking)
    @rule(how=st.sampled_from(sorted(FAILURES)))
    def endpoint_fails(self, how: str) -> None:
        async def step() -> None:
            (process,) = self.asking
            process.failed(how)
            assert process.asked is not None
            process.asked.set_exception(FAILURES[how][0])
            await self.settle()

        self.run(step())

    @rule(process=PROCESSES)
    def provider_refuses_the_token(self, process: int) -> None:
        async def step() -> None:
            one = self.processes[process]
            if one.given_out is not None and one.source.invalidate(ACCOUNT, one.given_out):
                one.refused.add(one.given_out.value)
            await self.settle()

        self.run(step())

    @rule(process=PROCESSES)
    def operator_renews(self, process: int) -> None:
        async def step() -> None:
            one = self.processes[process]
            one.may_ask_anyhow = True
            task = asyncio.create_task(self._renew(one))
            self.callers.append(task)
            task.add_done_callback(self.callers.remove)
            await self.settle()

        self.run(step())

    @staticmethod
    async def _renew(process: Process) -> None:
        try:
            await process.source.refresh(ACCOUNT)
        except TokenError:
            return

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 29.0, 61.0, 301.0, 2900.0, 3700.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        async def step() -> None:
            self.clock.now += seconds
            await self.settle()

        self.run(step())

    # What must hold.

    @invariant()
    def no_promise_is_broken(self) -> None:
        assert not self.broken, self.broken

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        assert self.asking or not self.callers

    def teardown(self) -> None:
        async def end() -> None:
            closing = [asyncio.create_task(one.source.close()) for one in self.processes]
            while not all(task.done() for task in closing):
                for one in self.asking:
                    if one.asked is not None and not one.asked.done():
                        one.asked.set_exception(FAILURES["unavailable"][0])
                await self.settle()
            await asyncio.gather(*closing, *self.callers)

        self.run(end())
        self.runner.close()
        assert not self.broken, self.broken


SourceStates.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=40, deadline=None
)
test_token_sources_keep_their_promises = SourceStates.TestCase
