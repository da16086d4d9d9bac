"""One process of a load: sends its share of the messages and tells its parent what became of them.

It does what its standard input says, and ends at once when that ends: it never outlives its parent.
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
from bench.targets.target import tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from io import FileIO

    from bench.measurement.sample import Sample
    from bench.runs.process_messages import Order

# How long an event waits for others to share its frame. What a process that is killed had not told
# by then, its parent takes as in flight, or as not begun.
_TELL_SECONDS = 0.02
_LAST_WORDS_SECONDS = 30.0  # a parent that does not read them by then is not going to


def main() -> None:
    """Do one parent's bidding."""
    # What is printed by mistake must not stand between the frames.
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
    # Connections are dealt out as messages are: which mailbox has how many does not change.
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
    os._exit(1)  # the parent is gone: nobody will ever read what is in flight


class EventWriter(asyncio.BaseProtocol):
    """Takes the place of the recorder, which is the parent's: tells it what is written down."""

    def __init__(self) -> None:
        self._waiting: list[Event] = []
        self._transport: asyncio.WriteTransport | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, out: FileIO) -> EventWriter:
        """Return one that writes to a pipe."""
        transport, outbox = await asyncio.get_running_loop().connect_write_pipe(cls, out)
        outbox._transport = transport
        return outbox

    def begin(self, number: int, *, is_warmup: bool = False) -> None:
        """Tell that a message was taken up."""
        self.tell(MessageBegun(number, is_warmup))

    def add(self, sample: Sample) -> None:
        """Tell what became of one."""
        self.tell(sample)

    def drop(self, number: int, at_seconds: float, *, is_warmup: bool = False) -> None:
        """Tell that one was given up."""
        self.tell(MessageDropped(number, at_seconds, is_warmup))

    def tell(self, event: Event) -> None:
        """Tell it soon, together with what else happens until then."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self.flush)
        self._waiting.append(event)

    def flush(self) -> None:
        """Tell at once what is waiting."""
        if self._waiting and self._transport is not None:
            self._transport.write(frame(self._waiting))
            self._waiting = []

    async def close(self) -> None:
        """Tell what is left and close the pipe."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._gone

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that all is written, or that nobody reads any more."""
        if not self._gone.done():
            self._gone.set_result(None)


if __name__ == "__main__":
    main()
