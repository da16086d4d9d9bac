"""The sending loop of both models: each connection sends when it gets a turn.

I1: each started message is settled exactly once, even when it is interrupted.
I2: after `stop` no message is started, and the run ends within the plan's drain time.
I3: a run by duration ends within the plan's drain time after its duration, even if the server
stalls: messages then in flight fail, and due messages that were not started are dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Protocol

from bench.client.connection import SubmissionFailed
from bench.client.submission import ClientBehaviour, Submission
from bench.load.backoff import BackOff
from bench.load.pacer import Pacer
from bench.measurement.sample import Sample, SendFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.client.endpoint import Endpoint
    from bench.client.login import ClientLogin
    from bench.load.messages import MessageSource
    from bench.load.pacer import Turn
    from bench.plan.arrivals import ProcessShare
    from bench.plan.scenarios import RunPlan


class SampleSink(Protocol):
    """Receives the outcome of every message: a `Recorder`, or a writer that passes it on to one."""

    def begin(self, number: int, *, is_warmup: bool) -> None:
        """Record that a message is started; `add` settles it."""

    def add(self, sample: Sample) -> None:
        """Settle a message that was started."""

    def drop(self, number: int, at_seconds: float, *, is_warmup: bool = False) -> None:
        """Settle a message that was due but is dropped."""


class LoadGenerator:
    """Sends a plan's messages to an endpoint, or one process's share of them."""

    def __init__(
        self,
        plan: RunPlan,
        endpoint: Endpoint,
        logins: Sequence[ClientLogin],
        messages: MessageSource,
        recorder: SampleSink,
        share: ProcessShare | None = None,
    ) -> None:
        self.on_sample: Callable[[Sample], None] | None = None
        self._plan = plan
        self._endpoint = endpoint
        self._logins = logins
        self._messages = messages
        self._recorder = recorder
        self._pacer = Pacer(plan.pace, self._drop, share)
        self._behaviour = ClientBehaviour(
            is_pipelined=plan.workload.is_pipelined,
            slow_bytes_per_second=plan.workload.slow_bytes_per_second,
            reply_seconds=plan.reply_seconds,
        )
        self._deadline: asyncio.Timeout | None = None  # None: not running
        self._last_settled = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds from the start of measurement until the last measured message was settled.

        0 if none was.
        """
        return max(0.0, self._last_settled - self._pacer.measured_from)

    @property
    def measured_seconds(self) -> float:
        """The time measured so far; negative during the warm-up, 0 before the start."""
        is_running = self._deadline is not None
        return time.perf_counter() - self._pacer.measured_from if is_running else 0.0

    async def run(
        self, at: float | None = None, clients: Sequence[Submission] | None = None
    ) -> None:
        """Send every planned message, or those started before `stop`.

        Time zero is `at`, past or future, by time.perf_counter; by default, now. Given `clients`,
        use them and leave them connected; otherwise open one connection for each concurrent sender
        and close it.
        """
        number = self._plan.concurrent
        if self._plan.pace.num_emails is not None and not self._plan.pace.warmup_seconds:
            number = min(number, self._plan.pace.num_emails)
        await self._pacer.start(at)
        self._deadline = deadline = asyncio.timeout(self._time_limit_seconds())
        try:
            async with deadline, asyncio.TaskGroup() as group:
                for submission in self._clients(number) if clients is None else clients[:number]:
                    group.create_task(self._work(submission, is_kept=clients is not None))
        except TimeoutError:
            if not deadline.expired():
                raise
            await self._pacer.drop_rest()
        finally:
            self._deadline = None

    def stop(self) -> None:
        """Start no more messages; those in flight may finish within the plan's drain time."""
        self._pacer.stop()
        if self._deadline is None or self._deadline.expired():
            return
        drained = asyncio.get_running_loop().time() + self._plan.drain_seconds
        latest = self._deadline.when()
        self._deadline.reschedule(drained if latest is None else min(drained, latest))

    def _clients(self, count: int) -> list[Submission]:
        logins = itertools.islice(itertools.cycle(self._logins), count)
        return [Submission(self._endpoint, login, self._behaviour) for login in logins]

    def _time_limit_seconds(self) -> float | None:
        ends = self._pacer.ends
        return None if ends is None else ends - time.perf_counter() + self._plan.drain_seconds

    async def _work(self, submission: Submission, *, is_kept: bool) -> None:
        limit = self._plan.workload.reuse.messages  # of a connection
        back_off = BackOff(is_endless=self._plan.pace.duration_seconds is not None)
        try:
            while (turn := await self._pacer.turn()) is not None:
                await self._send(submission, turn)
                if submission.messages:
                    back_off.reset()
                elif self._plan.pace.rate is None:  # arrivals do not wait
                    await self._pacer.pause(back_off.pause_seconds())
                if limit is not None and submission.messages >= limit:
                    await submission.close()
            if not is_kept:
                await submission.close()
        finally:
            if not is_kept:
                submission.abort()

    async def _send(self, submission: Submission, turn: Turn) -> None:
        mailbox = submission.login.mailbox
        content = self._messages.content(turn.number, mailbox)
        forward_paths = self._messages.forward_paths(turn.number)
        opening = failure = transaction_seconds = None
        self._recorder.begin(turn.number, is_warmup=turn.is_warmup)
        began = time.perf_counter()
        try:
            if not submission.is_open:
                opening = await submission.open()
            transaction_seconds = await submission.send(mailbox, forward_paths, content)
        except SubmissionFailed as error:
            failure = error.failure
        except BaseException:
            failure = SendFailure("cut short", "still in flight at the deadline")
            raise
        finally:
            ended = time.perf_counter()
            due = turn.due
            self._settle(
                Sample(
                    number=turn.number,
                    latency_seconds=ended - (began if due is None else due),
                    service_seconds=ended - began,
                    lateness_seconds=None if due is None else began - due,
                    has_waited=turn.has_waited,
                    at_seconds=ended - self._pacer.measured_from,
                    is_warmup=turn.is_warmup,
                    failure=failure,
                    connect_seconds=opening.connect_seconds if opening else None,
                    auth_seconds=opening.auth_seconds if opening else None,
                    transaction_seconds=transaction_seconds,
                ),
                ended,
            )

    def _settle(self, sample: Sample, ended: float) -> None:
        if not sample.is_warmup:
            self._last_settled = ended
        self._recorder.add(sample)
        if self.on_sample is not None:
            self.on_sample(sample)

    def _drop(self, number: int, is_warmup: bool) -> None:
        now = time.perf_counter()
        if not is_warmup:
            self._last_settled = now
        self._recorder.drop(number, now - self._pacer.measured_from, is_warmup=is_warmup)
