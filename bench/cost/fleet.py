"""The sending clients of a workload, which stay connected between windows."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import TYPE_CHECKING

from bench.client.connection import SubmissionFailed
from bench.client.rotating_submission import RotatingSubmission
from bench.client.submission import ClientBehaviour
from bench.load.generator import LoadGenerator
from bench.load.idle_clients import IdleClients
from bench.measurement.recorder import Recorder
from bench.measurement.sample import SendFailure
from bench.plan.arrivals import Pace
from bench.plan.scenarios import CUSTOM, RunPlan
from bench.plan.workloads import ConnectionReuse, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.cost.relays import RunningRelay
    from bench.cost.workloads import CostWorkload
    from bench.load.messages import SameMessage
    from bench.measurement.histogram import Histogram
    from bench.measurement.sample import Sample

_DRAIN_SECONDS = 5.0  # for messages in flight after another has failed
_SETTLE_SECONDS = 0.5  # after clients connect or disconnect; not measured
_TRICKLING = ClientBehaviour(slow_bytes_per_second=1.0)


class Fleet:
    """The sending clients of one workload at one relay."""

    def __init__(
        self, workload: CostWorkload, relay: RunningRelay, source: SameMessage, *, pipelined: bool
    ) -> None:
        self.acknowledged = 0  # in all windows
        self._workload = workload
        self._relay = relay
        self._source = source
        self._logins = relay.logins[: workload.mailboxes]
        behaviour = ClientBehaviour(is_pipelined=pipelined)
        every = workload.clients
        self._clients = [
            RotatingSubmission(
                relay.endpoint, islice(cycle(self._logins), at, None, every), behaviour
            )
            for at in range(every)
        ]

    async def send(self, messages: int) -> Histogram:
        """Send `messages` messages and return their durations; the clients stay connected.

        Raises `SubmissionFailed`: the relay did not accept one.
        """
        recorder = Recorder(messages)
        if not messages:
            return recorder.latency
        reuse = ConnectionReuse(self._workload.session_messages or None)
        plan = RunPlan(
            scenario=CUSTOM,
            pace=Pace(num_emails=messages),
            concurrent=len(self._clients),
            workload=Workload(reuse=reuse),
            mailboxes=(),
            to_email=self._source.recipient,
            drain_seconds=_DRAIN_SECONDS,
        )
        generator = LoadGenerator(plan, self._relay.endpoint, (), self._source, recorder)

        def stop_at_failure(sample: Sample) -> None:
            if sample.failure is not None:
                generator.stop()

        generator.on_sample = stop_at_failure
        await generator.run(clients=self._clients)
        self.acknowledged += recorder.acknowledged
        for error in recorder.snapshot(0.0).errors:
            raise SubmissionFailed(error.failure)
        return recorder.latency

    def close(self) -> None:
        """Close every connection at once."""
        for client in self._clients:
            client.abort()

    @asynccontextmanager
    async def idle_clients(self, count: int) -> AsyncIterator[IdleClients]:
        """Keep this many more authenticated clients connected while the context is entered.

        Raises `SubmissionFailed`: one could not log in.
        """
        async with IdleClients(self._relay.endpoint, self._logins, count, _TRICKLING) as idle:
            await idle.open(asyncio.Event())
            if idle.refused:
                raise SubmissionFailed(SendFailure("refused", f"{idle.refused} idle clients"))
            await asyncio.sleep(_SETTLE_SECONDS)
            yield idle
        await asyncio.sleep(_SETTLE_SECONDS)
