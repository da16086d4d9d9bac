"""A child process of a load: sends its share of the messages and reports each outcome.

It obeys the orders on its standard input and exits when that closes: it cannot outlive its parent.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.client.endpoint import Endpoint
from bench.load.generator import LoadGenerator
from bench.load.generator_usage import GeneratorUsage, measuring_usage
from bench.process.open_files import raise_open_file_limit
from bench.process.server_process import loop_factory
from bench.runs.logins import logins_of
from bench.runs.process_messages import (
    Assignment,
    Ended,
    Event,
    MessageBegun,
    MessageDropped,
    Ready,
    Start,
    Stop,
    frame,
    orders,
)
from bench.targets.target_request import tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from io import FileIO

    from bench.measurement.sample import Sample
    from bench.runs.process_messages import Order

# How long an event waits for others to share its frame. If the process is killed before that, its
# parent counts the messages of those events as in flight or as not started.
_TELL_SECONDS = 0.02
_LAST_WORDS_SECONDS = 30.0  # the parent will not read them after that


def main() -> None:
    """Carry out the orders of the parent."""
    # Accidental output must not get between the frames.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    raise_open_file_limit()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(out))


async def _serve(out: FileIO) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told = orders(reader)
    assignment = await anext(told, None)
    if not isinstance(assignment, Assignment):
        return
    outbox = await EventWriter.open(out)
    load = _load(assignment, outbox)
    outbox.tell(Ready())
    outbox.flush()
    order = await anext(told, None)
    if isinstance(order, Start):
        obeying = asyncio.create_task(_obey(told, load))
        usage = await _send(load, order, assignment.request.plan.pace.warmup_seconds)
        outbox.tell(Ended(usage))
        obeying.cancel()
    elif isinstance(order, Stop):
        outbox.tell(Ended(GeneratorUsage()))
    await outbox.close()


def _load(assignment: Assignment, outbox: EventWriter) -> LoadGenerator:
    request, share = assignment.request, assignment.share
    logins = logins_of(request, assignment.state_dir)
    # Connections are divided like messages, so each mailbox keeps its number of them.
    connections = share.count(request.plan.concurrent)
    ours = [logins[share.number(index) % len(logins)] for index in range(connections)]
    return LoadGenerator(
        replace(request.plan, concurrent=connections),
        Endpoint(
            assignment.host,
            assignment.port,
            request.target.tls,
            tls_context(request.target),
        ),
        ours,
        assignment.messages,
        outbox,
        share,
    )


async def _send(load: LoadGenerator, start: Start, warmup_seconds: float) -> GeneratorUsage:
    usage = GeneratorUsage()
    ahead_seconds = max(0.0, start.at - time.perf_counter())
    async with measuring_usage(usage, ahead_seconds + warmup_seconds):
        await load.run(start.at)
    return usage


async def _obey(told: AsyncIterator[Order], load: LoadGenerator) -> None:
    async for order in told:
        if isinstance(order, Stop):
            load.stop()
    os._exit(1)  # the parent is gone and will not read pending events


class EventWriter(asyncio.BaseProtocol):
    """Replaces the recorder, which is in the parent, and sends the events to it."""

    def __init__(self) -> None:
        self._waiting: list[Event] = []
        self._transport: asyncio.WriteTransport | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, out: FileIO) -> EventWriter:
        """Return a writer for a pipe."""
        transport, outbox = await asyncio.get_running_loop().connect_write_pipe(cls, out)
        outbox._transport = transport
        return outbox

    def begin(self, number: int, *, is_warmup: bool = False) -> None:
        """Report a started message."""
        self.tell(MessageBegun(number, is_warmup))

    def add(self, sample: Sample) -> None:
        """Report the outcome of a message."""
        self.tell(sample)

    def drop(self, number: int, at_seconds: float, *, is_warmup: bool = False) -> None:
        """Report a dropped message."""
        self.tell(MessageDropped(number, at_seconds, is_warmup))

    def tell(self, event: Event) -> None:
        """Send the event soon, together with others."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self.flush)
        self._waiting.append(event)

    def flush(self) -> None:
        """Send the waiting events at once."""
        if self._waiting and self._transport is not None:
            self._transport.write(frame(self._waiting))
            self._waiting = []

    async def close(self) -> None:
        """Send the remaining events and close the pipe."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._gone

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that everything is written, or that the reader is gone."""
        if not self._gone.done():
            self._gone.set_result(None)


if __name__ == "__main__":
    main()
