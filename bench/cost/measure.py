"""One workload at one relay, once: warm up, measure, and check that every message arrived.

The window begins when every client is connected and warm, and ends when the last message is
acknowledged; what the relay does at once afterwards still counts as its CPU time.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.cost import lag
from bench.cost.client import Entrance
from bench.cost.content import Content, content
from bench.cost.figures import Figures, Lag, ratio
from bench.cost.load import Fleet, crowd, trickling
from bench.cost.meter import Meter
from bench.cost.plan import Method
from bench.process.open_files import raise_open_file_limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.cost.plan import Workload
    from bench.cost.relays import Relay

_SETTLE_SECONDS = 0.05  # what follows the last reply: leases given back, counters
_CROWD_SETTLE_SECONDS = 0.5
_SPARE_FILES = 500  # beside two for each client of a crowd
_MIB = 1024 * 1024


class CheckFailed(Exception):
    """What was acknowledged is not what arrived."""


@dataclass(slots=True)
class _Bed:
    """One relay with a fleet in front of it."""

    relay: Relay
    workload: Workload
    entrance: Entrance
    meter: Meter
    fleet: Fleet
    lag: Lag = field(default_factory=dict)


async def measure(workload: Workload, relay: Relay, *, is_pipelined: bool) -> tuple[Figures, Lag]:
    """Return the figures of one repeat, and how late the relay's event loop was.

    Raises:
        LoadFailed: the relay did not take a message.
        CheckFailed: a message was lost, doubled or changed.
        ProviderUnavailable: the sandbox does not say what arrived.
        MeterError: the relay is gone.
    """
    message = content(workload.size_bytes)
    entrance = Entrance(relay.address, relay.token_for, message.wire, is_pipelined=is_pipelined)
    fleet = Fleet(workload, entrance)
    bed = _Bed(relay, workload, entrance, Meter(relay.pid), fleet)
    before = await relay.provider.stats()
    try:
        await fleet.warm_up()
        figures = await _METHODS[workload.method](bed)
    finally:
        fleet.close()
    await _check(bed, before.messages, message)
    return figures, bed.lag


async def _stream(bed: _Bed) -> Figures:
    return await _window(bed)


async def _idle(bed: _Bed) -> Figures:
    before = bed.meter.memory()
    async with _crowd(bed) as count:
        after = bed.meter.memory()
        figures = await _window(bed)  # those that sit idle keep nobody from sending
    return Figures(
        messages=figures.messages,
        window_seconds=figures.window_seconds,
        peak_mib=figures.peak_mib,
        rss_mib=after.now_bytes / _MIB,
        idle_clients=count,
        kib_per_idle_client=(after.now_bytes - before.now_bytes) / 1024 / count,
    )


async def _crowded(bed: _Bed) -> Figures:
    alone = await _window(bed)
    workload = bed.workload
    async with crowd(bed.entrance, workload.crowd, workload.mailboxes) as clients:
        await asyncio.sleep(_CROWD_SETTLE_SECONDS)
        idle = await _window(bed)
        async with trickling(bed.entrance, clients):
            trickle = await _window(bed)
    await asyncio.sleep(_CROWD_SETTLE_SECONDS)  # their leaving is nobody's measurement
    alone.idle_clients = workload.crowd
    base = alone.throughput_per_second
    alone.idle_crowd_ratio = ratio(idle.throughput_per_second, base)
    alone.trickling_crowd_ratio = ratio(trickle.throughput_per_second, base)
    return alone


_METHODS = {Method.STREAM: _stream, Method.IDLE: _idle, Method.CROWD: _crowded}


@asynccontextmanager
async def _crowd(bed: _Bed) -> AsyncIterator[int]:
    """Have as many idle clients as the limit of open files allows, and say how many."""
    room = (raise_open_file_limit() - _SPARE_FILES) // 2  # the forwarder needs two for each
    count = max(1, min(bed.workload.crowd, room))
    async with crowd(bed.entrance, count, bed.workload.mailboxes):
        await asyncio.sleep(_CROWD_SETTLE_SECONDS)
        yield count


async def _window(bed: _Bed) -> Figures:
    relay, meter = bed.relay, bed.meter
    lag_before, before = await lag.read(relay.metrics_url), await relay.provider.stats()
    can_reset = meter.reset_peak()
    acknowledged = bed.fleet.acknowledged
    started, cpu_before = time.perf_counter(), meter.cpu_ns()
    latency = (await bed.fleet.run()).snapshot()
    seconds = time.perf_counter() - started
    await asyncio.sleep(_SETTLE_SECONDS)
    cpu_ns, memory = meter.cpu_ns() - cpu_before, meter.memory()
    after = await relay.provider.stats()
    lag.add(bed.lag, lag.difference(await lag.read(relay.metrics_url), lag_before))
    messages = bed.fleet.acknowledged - acknowledged
    is_warm = bed.workload.warmup_messages > 0
    return Figures(
        messages=messages,
        window_seconds=seconds,
        cpu_us_per_message=cpu_ns / 1000 / messages,
        throughput_per_second=messages / seconds,
        p50_ms=(latency.p50_seconds or 0.0) * 1000,
        p99_ms=(latency.p99_seconds or 0.0) * 1000,
        peak_mib=memory.peak_bytes / _MIB if can_reset or bed.workload.needs_fresh_relay else None,
        rss_mib=memory.now_bytes / _MIB,
        turns_per_message=(after.turns - before.turns) / messages if is_warm else None,
        upstream_connections_opened=after.connections_opened - before.connections_opened,
    )


async def _check(bed: _Bed, arrived_before: int, message: Content) -> None:
    digests = await bed.relay.provider.digests(arrived_before)
    if len(digests) != bed.fleet.acknowledged:
        raise CheckFailed(
            f"{bed.fleet.acknowledged} messages were acknowledged, {len(digests)} arrived"
        )
    changed = sum(digest != message.sha256 for digest in digests)
    if changed:
        raise CheckFailed(f"{changed} of {len(digests)} messages arrived changed")
