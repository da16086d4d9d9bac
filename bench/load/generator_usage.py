"""Decides whether the generator limited the run, from its CPU time and its event loop's lag.

On a busy machine a process that used little of a core may have been waiting for one.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measurement.histogram import Histogram
from bench.measurement.result import GeneratorFigures, LoopLag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_SAMPLE_SECONDS = 0.02
_LEAST_WATCHED_SECONDS = 0.5  # below this, a share of the time means nothing
_MAX_CPU_SHARE = 0.9  # of a core: above this the generator has no reserve
_MAX_STARVED_SHARE = 0.25  # of the time, ready to run but without a core: the machine is full
_MAX_LAG_SECONDS = 0.05  # at p99: measured times are late by as much
_MAX_OWN_LATE_SHARE = 0.01  # of the messages started
_SCHEDULER = Path("/proc/self/schedstat")  # Linux: nanoseconds on a core and waiting for one

# The advice for each bottleneck.
_MORE_PROCESSES = "Use more --processes."
_NO_CORES = (
    "This machine has too few CPU cores for everything that runs on it: use fewer --processes, or "
    "send from another machine."
)
_STALLS = (
    "It stalled at times, because of many messages at once or because of the machine: use more "
    "--processes, or send from a machine with less to do."
)
_LATE = (
    "More messages were due at once than it can start: use more --processes, or a lower "
    "--arrival-rate."
)


@dataclass(frozen=True, slots=True)
class _Bottleneck:
    """The resource that the generator ran short of."""

    reason: str
    advice: str  # a sentence


@dataclass(slots=True)
class GeneratorUsage:
    """The resources that a process used; `merge` adds up several. It can be pickled."""

    processes: int = 1  # that send
    cpu_seconds: float = 0.0  # of all processes
    watched_seconds: float = 0.0  # of all processes
    lag: Histogram = field(default_factory=Histogram)
    starved_seconds: float = 0.0  # of all processes, as far as the system reports it
    merged: tuple[GeneratorUsage, ...] = ()  # one for each process; empty for a single process

    def merge(self, other: GeneratorUsage) -> GeneratorUsage:
        """Return the combined usage of several processes."""
        return GeneratorUsage(
            self.processes + other.processes,
            self.cpu_seconds + other.cpu_seconds,
            self.watched_seconds + other.watched_seconds,
            self.lag.merge(other.lag),
            self.starved_seconds + other.starved_seconds,
            (self.merged or (self,)) + (other.merged or (other,)),
        )

    def figures(
        self, attempted: int, own_late_starts: int, cores: int | None = None
    ) -> GeneratorFigures:
        """Return the figures and the verdict; `cores` is the number of usable cores."""
        watched = self.watched_seconds
        share = min(1.0, self.cpu_seconds / watched) if watched > 0 else 0.0
        lag = LoopLag(
            p50_seconds=self.lag.quantile_seconds(0.50),
            p99_seconds=self.lag.quantile_seconds(0.99),
            max_seconds=self.lag.quantile_seconds(1.0),
        )
        limits = [
            *_cpu_limit(self.merged or (self,), cores or usable_cores()),
            *_lag_limit(lag.p99_seconds or 0.0),
            *_late_limit(own_late_starts, attempted),
        ]
        return GeneratorFigures(
            processes=self.processes,
            cpu_seconds=self.cpu_seconds,
            cpu_share=share,
            loop_lag=lag,
            was_bottleneck=bool(limits),
            reason="; ".join(limit.reason for limit in limits),
            # A full core causes the others.
            advice=limits[0].advice if limits else "",
        )


@asynccontextmanager
async def measuring_usage(
    usage: GeneratorUsage, warmup_seconds: float = 0.0
) -> AsyncIterator[None]:
    """Measure this process while the context is entered, except during the warm-up."""
    task = asyncio.create_task(_sample(usage, warmup_seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def _sample(usage: GeneratorUsage, warmup_seconds: float) -> None:
    await asyncio.sleep(warmup_seconds)
    cpu, starved, began = time.process_time(), _starved_seconds(), time.perf_counter()
    try:
        while True:
            asleep = time.perf_counter()
            await asyncio.sleep(_SAMPLE_SECONDS)
            usage.lag.add_seconds(time.perf_counter() - asleep - _SAMPLE_SECONDS)
    finally:
        usage.cpu_seconds += time.process_time() - cpu
        usage.starved_seconds += _starved_seconds() - starved
        usage.watched_seconds += time.perf_counter() - began


def _starved_seconds() -> float:
    try:
        return int(_SCHEDULER.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # not reported on this system
        return 0.0


def _cpu_limit(usages: tuple[GeneratorUsage, ...], cores: int) -> Iterator[_Bottleneck]:
    known = [one for one in usages if one.watched_seconds >= _LEAST_WATCHED_SECONDS]
    if not known:
        return
    it = "it" if len(usages) == 1 else "one of its processes"
    fullest = max(one.cpu_seconds / one.watched_seconds for one in known)
    together = sum(one.cpu_seconds / one.watched_seconds for one in known)
    starved = max(one.starved_seconds / one.watched_seconds for one in known)
    is_full = together > _MAX_CPU_SHARE * cores
    if fullest > _MAX_CPU_SHARE:
        advice = _NO_CORES if is_full else _MORE_PROCESSES
        yield _Bottleneck(f"{it} used {min(fullest, 1.0):.0%} of a core", advice)
    elif is_full:
        yield _Bottleneck(f"its processes used {together:.1f} of {cores} cores", _NO_CORES)
    elif starved > _MAX_STARVED_SHARE:
        yield _Bottleneck(f"{it} waited {starved:.0%} of the time for a core to be free", _NO_CORES)


def _lag_limit(lag_seconds: float) -> Iterator[_Bottleneck]:
    if lag_seconds > _MAX_LAG_SECONDS:
        yield _Bottleneck(f"its event loop was {lag_seconds * 1000:.0f} ms late at p99", _STALLS)


def _late_limit(own_late_starts: int, attempted: int) -> Iterator[_Bottleneck]:
    if own_late_starts > _MAX_OWN_LATE_SHARE * attempted:
        yield _Bottleneck(
            f"it began {own_late_starts} messages late while connections were free", _LATE
        )
