"""Runs a load in several child processes, each with its own event loop.

The children send, measure and report the outcome of each message at once; the recorder is in this
process, so a child that dies loses only its messages in flight.

I1: message n belongs to child n mod N: no message is sent twice, and the children's rates add up to
the whole. A dead child's started messages count as failed, its other ones as not attempted. The
connections are divided too, and not shared between children: see `ProcessShare`.
I2: no child outlives this process, even if it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.client.connection import printable
from bench.load.generator_usage import GeneratorUsage, measuring_usage
from bench.measurement.histogram import Histogram
from bench.measurement.result import PROCESS_LOST
from bench.measurement.sample import Sample, SendFailure
from bench.plan.arrivals import ProcessShare
from bench.runs.process_messages import (
    Assignment,
    Ended,
    Event,
    MessageBegun,
    MessageDropped,
    Ready,
    Start,
    Stop,
    events,
    frame,
)

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Iterable

    from bench.load.messages import Messages
    from bench.measurement.recorder import Recorder
    from bench.measurement.result import GeneratorFigures
    from bench.runs.process_messages import Order
    from bench.runs.run_request import RunRequest
    from bench.targets.target import Target

LOST = PROCESS_LOST  # the error code for messages in flight in a lost process
_PASSWORD_VARIABLE = "XOAUTH2_BENCH_PASSWORD"  # noqa: S105 - a name
_READY_SECONDS = 60.0  # interpreter, imports and keys, all children at once on a slow machine
_HEAD_START_SECONDS = 0.05  # for the start order to reach all of them
_END_SECONDS = 10.0  # after the drain time, before a child that has not ended is killed
_STDERR_LINES = 20


class LoadProcessesError(Exception):
    """A child could not be started; the text says which and why."""


class LoadProcesses:
    """The children of a run; replaces the `Load` of a run without children."""

    def __init__(
        self, request: RunRequest, target: Target, messages: Messages, recorder: Recorder
    ) -> None:
        self.on_sample: Callable[[Sample], None] | None = None
        self.on_loss: Callable[[str], None] | None = None  # called with a description
        self.usage = GeneratorUsage(processes=0)  # the children's own usage; filled as they end
        self.losses: list[str] = []  # descriptions of lost children
        self._own_usage = GeneratorUsage(processes=0)  # of this process, which sends no messages
        # The messages contain the files, which need not be sent twice.
        self._request = replace(request, files=())
        self._target = target
        self._messages = messages
        self._recorder = recorder
        self._children: list[_LoadProcess] = []
        self._measured_from: float | None = None  # None: not running
        self._wall_seconds = 0.0
        self._is_stopped = False

    @property
    def wall_seconds(self) -> float:
        """The time from the start of measurement to the end of the last message; 0 without any."""
        return self._wall_seconds

    @property
    def measured_seconds(self) -> float:
        """The time measured so far; negative during the warm-up, 0 before the start."""
        if self._measured_from is None:
            return 0.0
        return time.perf_counter() - self._measured_from

    @property
    def pids(self) -> list[int]:
        """The process ids of the running children."""
        return [child.pid for child in self._children if child.is_running]

    @property
    def was_cut_short(self) -> bool:
        """Whether a child was lost; its remaining messages are not sent, and the run is partial."""
        return bool(self.losses)

    def figures(self, attempted: int, own_late_starts: int) -> GeneratorFigures:
        """Return the usage of the children and this process, and the verdict."""
        # This process measures no times, so lag of its event loop distorts no figure.
        own = replace(self._own_usage, lag=Histogram())
        figures = self.usage.merge(own).figures(attempted, own_late_starts)
        if not self.losses:
            return figures
        # The load was smaller than requested from then on, so the generator limited the figures.
        reason = "; ".join(filter(None, (figures.reason, *self.losses)))
        return replace(figures, was_bottleneck=True, reason=reason)

    async def run(self) -> None:
        """Send every planned message, or those started before `stop`.

        Raises:
            LoadProcessesError: a child did not start; no message was sent.
        """
        try:
            await self._start()
            async with (
                measuring_usage(self._own_usage, max(0.0, -self.measured_seconds)),
                asyncio.TaskGroup() as group,
            ):
                for child in self._children:
                    group.create_task(self._follow(child))
        finally:
            self._measured_from = None
            for child in self._children:
                await child.end()

    def stop(self) -> None:
        """Start no more messages; those in flight may finish within the plan's drain time."""
        if self._is_stopped:
            return
        self._is_stopped = True
        for child in self._children:
            child.say(Stop())
            child.kill_in(self._request.plan.drain_seconds + _END_SECONDS)

    async def _start(self) -> None:
        number = self._request.plan.processes
        for index in range(number):
            share = ProcessShare(index, number)
            self._children.append(await _LoadProcess.begin(self._assignment(share)))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.gather(*(child.ready() for child in self._children))
        except TimeoutError:
            raise LoadProcessesError("The processes of the load were not ready in time.") from None
        at = time.perf_counter() + _HEAD_START_SECONDS
        self._measured_from = at + self._request.plan.pace.warmup_seconds
        for child in self._children:
            child.say(Stop() if self._is_stopped else Start(at))

    def _assignment(self, share: ProcessShare) -> Assignment:
        return Assignment(
            request=self._request,
            host=self._target.endpoint.host,
            port=self._target.endpoint.port,
            state_dir=self._target.state_dir,
            messages=self._messages,
            share=share,
        )

    async def _follow(self, child: _LoadProcess) -> None:
        async for happened in child.events():
            for event in happened:
                self._note(child, event)
        if not child.has_ended:
            await self._lose(child)

    def _note(self, child: _LoadProcess, event: Event) -> None:
        match event:
            case MessageBegun():
                child.in_flight[event.number] = event.is_warmup
                self._recorder.begin(event.number, is_warmup=event.is_warmup)
            case Sample():
                child.in_flight.pop(event.number, None)
                self._settle(event)
            case MessageDropped():
                self._recorder.drop(event.number, event.at_seconds, is_warmup=event.is_warmup)
                self._keep_time(event.at_seconds, is_warmup=event.is_warmup)
            case Ended():
                child.has_ended = True
                self.usage = self.usage.merge(event.usage)

    def _settle(self, sample: Sample) -> None:
        self._recorder.add(sample)
        self._keep_time(sample.at_seconds, is_warmup=sample.is_warmup)
        if self.on_sample is not None:
            self.on_sample(sample)

    def _keep_time(self, at_seconds: float, *, is_warmup: bool) -> None:
        if not is_warmup:
            self._wall_seconds = max(self._wall_seconds, at_seconds)

    async def _lose(self, child: _LoadProcess) -> None:
        why = await child.cause()
        at_seconds = self.measured_seconds
        for number, is_warmup in child.in_flight.items():
            self._settle(
                Sample(
                    number=number,
                    latency_seconds=0.0,  # not counted for a failure
                    service_seconds=0.0,
                    at_seconds=at_seconds,
                    is_warmup=is_warmup,
                    failure=SendFailure(LOST, why),
                )
            )
        child.in_flight.clear()
        # It counts as one process, although its usage is unknown.
        self.usage = self.usage.merge(GeneratorUsage())
        words = f"Process {child.share.index + 1} of {child.share.of} of the load is lost: {why}"
        self.losses.append(words)
        if self.on_loss is not None:
            self.on_loss(words)


class _LoadProcess:
    """A child process, as its parent sees it."""

    def __init__(self, process: Process, share: ProcessShare) -> None:
        self.share = share
        self.in_flight: dict[int, bool] = {}  # number: whether it belongs to the warm-up
        self.has_ended = False  # it reported its end
        self._process = process
        self._stderr: deque[bytes] = deque(maxlen=_STDERR_LINES)
        self._listening = asyncio.create_task(self._listen())
        self._killing: asyncio.TimerHandle | None = None
        self._events = events(_piped(process.stdout))

    @classmethod
    async def begin(cls, assignment: Assignment) -> _LoadProcess:
        environment = {k: v for k, v in os.environ.items() if k != _PASSWORD_VARIABLE}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.runs.load_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            # A terminal's Ctrl+C reaches only the parent, which stops the children.
            start_new_session=True,
        )
        child = cls(process, assignment.share)
        child.say(assignment)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    def say(self, order: Order) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(frame(order))

    async def ready(self) -> None:
        happened: Iterable[Event] | None = await anext(self._events, None)
        if happened is None or not any(isinstance(event, Ready) for event in happened):
            name = f"process {self.share.index + 1} of {self.share.of}"
            raise LoadProcessesError(f"The load's {name} did not start: {await self.cause()}")

    async def events(self) -> AsyncIterator[Iterable[Event]]:
        async for happened in self._events:
            yield happened

    def kill_in(self, seconds: float) -> None:
        self._killing = asyncio.get_running_loop().call_later(seconds, self._kill)

    async def cause(self) -> str:
        """Return the reason for its end, in one line."""
        code = await self._process.wait()
        await self._listening
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        said = printable(self._stderr[-1].decode("utf-8", "replace")) if self._stderr else ""
        return f"{how}, {said}" if said else how

    async def end(self) -> None:
        """End the child by closing its standard input."""
        if self._killing is not None:
            self._killing.cancel()
        if not self.has_ended:
            self._kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        with suppress(ValueError):  # a line that is too long
            async for line in _piped(self._process.stderr):
                self._stderr.append(line)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


def _piped(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise AssertionError("started without a pipe")
    return stream
