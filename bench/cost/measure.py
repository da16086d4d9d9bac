"""One repeat of a workload at a relay: warm up, measure, check that every message arrived.

The window begins when every client is connected and warmed up, and ends when the last message is
acknowledged; the relay's work right afterwards still counts as its CPU time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from bench.cost.figures import CostFigures, ratio
from bench.cost.fleet import Fleet
from bench.cost.workloads import Method
from bench.load.messages import SameMessage
from bench.process.open_files import raise_open_file_limit
from bench.process.process_meter import ProcessMeter
from bench.reconciliation import loop_lag, provider_counters
from bench.reconciliation.reconcile import SandboxMessages

if TYPE_CHECKING:
    from bench.cost.relays import RunningRelay
    from bench.cost.workloads import CostWorkload
    from bench.reconciliation.loop_lag import LoopLag

_SETTLE_SECONDS = 0.05  # for work after the last reply: leases returned, counters
_SPARE_FILES = 500  # beside two for each idle client
_MIB = 1024 * 1024


class CheckFailed(Exception):
    """The acknowledged messages differ from those received, or cannot be compared."""


class Measurement:
    """One repeat of a workload at a relay."""

    def __init__(self, workload: CostWorkload, relay: RunningRelay, *, pipelined: bool) -> None:
        self.lag: LoopLag = Counter()  # of the relay's event loop, in all windows
        self._workload = workload
        self._relay = relay
        self._message = SameMessage(workload.size_bytes)
        self._fleet = Fleet(workload, relay, self._message, pipelined=pipelined)
        self._meter = ProcessMeter(relay.pid)

    async def figures(self) -> CostFigures:
        """Carry out the repeat and return its figures.

        Raises:
            SubmissionFailed: the relay did not accept a message.
            CheckFailed: a message was lost, duplicated or changed.
            SandboxUnavailable: the sandbox does not report the messages received.
            MeterError: the relay has ended.
        """
        methods = {Method.STREAM: self._window, Method.IDLE: self._idle, Method.CROWD: self._crowd}
        messages = SandboxMessages(self._relay.sandbox_url)
        position = await messages.position()
        try:
            await self._fleet.send(self._workload.warmup_messages * self._workload.clients)
            figures = await methods[self._workload.method]()
        finally:
            self._fleet.close()
        digests = [arrival.sha256 async for arrival in messages.arrivals(position)]
        acknowledged = self._fleet.acknowledged
        if len(digests) != acknowledged:
            raise CheckFailed(f"{acknowledged} messages were acknowledged, {len(digests)} arrived")
        if changed := sum(digest != self._message.sha256 for digest in digests):
            raise CheckFailed(f"{changed} of {len(digests)} messages arrived changed")
        return figures

    async def _idle(self) -> CostFigures:
        """Return the cost of idle clients, as many as the limit of open files allows."""
        room = (raise_open_file_limit() - _SPARE_FILES) // 2  # the forwarder needs two for each
        count = max(1, min(self._workload.crowd, room))
        before = self._meter.memory()
        async with self._fleet.idle_clients(count):
            after = self._meter.memory()
            figures = await self._window()  # the others can still send
        return CostFigures(
            messages=figures.messages,
            window_seconds=figures.window_seconds,
            peak_mib=figures.peak_mib,
            rss_mib=after.now_bytes / _MIB,
            idle_clients=count,
            kib_per_idle_client=(after.now_bytes - before.now_bytes) / 1024 / count,
        )

    async def _crowd(self) -> CostFigures:
        alone, count = await self._window(), self._workload.crowd
        async with self._fleet.idle_clients(count) as clients:
            idle = await self._window()
            async with clients.trickling(self._message):
                trickle = await self._window()
        base = alone.throughput_per_second
        alone.idle_clients = count
        alone.idle_crowd_ratio = ratio(idle.throughput_per_second, base)
        alone.trickling_crowd_ratio = ratio(trickle.throughput_per_second, base)
        return alone

    async def _window(self) -> CostFigures:
        relay, meter, workload = self._relay, self._meter, self._workload
        lag_before = await loop_lag.read(relay.metrics_url)
        before = await provider_counters.read(relay.sandbox_url)
        can_reset = meter.reset_peak()
        acknowledged = self._fleet.acknowledged
        started, cpu_before = time.perf_counter(), meter.cpu_ns()
        latency = await self._fleet.send(workload.messages)
        seconds = time.perf_counter() - started
        await asyncio.sleep(_SETTLE_SECONDS)
        cpu_ns, memory = meter.cpu_ns() - cpu_before, meter.memory()
        after = await provider_counters.read(relay.sandbox_url)
        counted = provider_counters.difference(before, after, ())
        if counted is None:
            raise CheckFailed("the sandbox's counters cannot be read")
        self.lag.update(await loop_lag.read(relay.metrics_url))
        self.lag.subtract(lag_before)
        messages = self._fleet.acknowledged - acknowledged
        return CostFigures(
            messages=messages,
            window_seconds=seconds,
            cpu_us_per_message=cpu_ns / 1000 / messages,
            throughput_per_second=messages / seconds,
            p50_ms=(latency.quantile_seconds(0.50) or 0.0) * 1000,
            p99_ms=(latency.quantile_seconds(0.99) or 0.0) * 1000,
            peak_mib=memory.peak_bytes / _MIB if can_reset or workload.needs_fresh_relay else None,
            rss_mib=memory.now_bytes / _MIB,
            turns_per_message=counted.turns / messages if workload.warmup_messages else None,
            upstream_connections_opened=counted.connections_opened,
        )
