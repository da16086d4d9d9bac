"""The closed loop: N connections, each sending its next message when the last one is settled.

I1: a message taken up is settled exactly once, whatever ends it.
I2: after `stop` no message is taken up, and the run ends within the plan's drain time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.result import Failure, Sample
from bench.submission import Submission, SubmissionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.messages import Messages
    from bench.recorder import Recorder
    from bench.scenarios import Plan
    from bench.submission import Endpoint, Login


class Load:
    """One run of a plan against one endpoint."""

    def __init__(
        self,
        plan: Plan,
        endpoint: Endpoint,
        logins: Sequence[Login],
        messages: Messages,
        recorder: Recorder,
    ) -> None:
        self.on_sample: Callable[[Sample], None] | None = None
        self._plan = plan
        self._endpoint = endpoint
        self._logins = logins
        self._messages = messages
        self._recorder = recorder
        self._next_number = 0
        self._is_stopping = False
        self._deadline: asyncio.Timeout | None = None
        self._started = 0.0
        self._last_settled = 0.0

    @property
    def wall_seconds(self) -> float:
        """From the first message taken up to the last one's end; 0 when there was none."""
        return self._last_settled - self._started

    async def run(self) -> None:
        """Send every planned message, or as many as were begun before `stop`."""
        workers = min(self._plan.concurrent, self._plan.num_emails)
        self._started = self._last_settled = time.perf_counter()
        self._deadline = deadline = asyncio.timeout(None)
        try:
            async with deadline, asyncio.TaskGroup() as group:
                for index in range(workers):
                    login = self._logins[index % len(self._logins)]
                    group.create_task(self._work(Submission(self._endpoint, login)))
        except TimeoutError:
            if not deadline.expired():
                raise
        finally:
            self._deadline = None

    def stop(self) -> None:
        """Take up no more messages; those in flight may finish within the plan's drain time."""
        self._is_stopping = True
        if self._deadline is not None and self._deadline.when() is None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._plan.drain_seconds)

    async def _work(self, submission: Submission) -> None:
        try:
            while (number := self._take()) is not None:
                await self._send(submission, number)
            await submission.close()
        finally:
            submission.abort()

    def _take(self) -> int | None:
        if self._is_stopping or self._next_number >= self._plan.num_emails:
            return None
        number = self._next_number
        self._next_number += 1
        return number

    async def _send(self, submission: Submission, number: int) -> None:
        started = time.perf_counter()
        mailbox = submission.login.mailbox
        opening = failure = transaction_seconds = None
        try:
            if not submission.is_open:
                opening = await submission.open()
            content = self._messages.content(number, mailbox)
            transaction_seconds = await submission.send(mailbox, self._plan.to_email, content)
        except SubmissionFailed as error:
            failure = error.failure
        except BaseException:
            failure = Failure("cut short", "in flight when the time to finish was over")
            raise
        finally:
            self._last_settled = time.perf_counter()
            sample = Sample(
                number=number,
                latency_seconds=self._last_settled - started,
                failure=failure,
                connect_seconds=opening.connect_seconds if opening else None,
                auth_seconds=opening.auth_seconds if opening else None,
                transaction_seconds=transaction_seconds,
            )
            self._recorder.add(sample)
            if self.on_sample is not None:
                self.on_sample(sample)
