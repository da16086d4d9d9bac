"""Whether the generator itself was what limited the run: its CPU time and its event loop's lag."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.figures.histogram import Histogram
from bench.figures.result import GeneratorFigures, LoopLag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SAMPLE_SECONDS = 0.02
_MAX_CPU_SHARE = 0.9  # of a core: beyond it the generator has nothing left to give
_MAX_LAG_SECONDS = 0.05  # at p99: what is measured is late by as much
_MAX_OWN_LATE_SHARE = 0.01  # of the messages taken up


@dataclass(slots=True)
class Watch:
    """What one process saw of itself; `merge` adds up several. It pickles."""

    processes: int = 1
    cpu_seconds: float = 0.0  # of all processes
    watched_seconds: float = 0.0  # of all processes
    lag: Histogram = field(default_factory=Histogram)

    def merge(self, other: Watch) -> Watch:
        """Return what several processes saw of themselves."""
        return Watch(
            self.processes + other.processes,
            self.cpu_seconds + other.cpu_seconds,
            self.watched_seconds + other.watched_seconds,
            self.lag.merge(other.lag),
        )

    def figures(self, attempted: int, own_late_starts: int) -> GeneratorFigures:
        """Return what was seen, and the verdict."""
        watched = self.watched_seconds
        share = min(1.0, self.cpu_seconds / watched) if watched > 0 else 0.0
        lag = LoopLag(
            p50_seconds=self.lag.quantile_seconds(0.50),
            p99_seconds=self.lag.quantile_seconds(0.99),
            max_seconds=self.lag.quantile_seconds(1.0),
        )
        reason = _reason(share, lag.p99_seconds or 0.0, own_late_starts, attempted)
        return GeneratorFigures(
            processes=self.processes,
            cpu_seconds=self.cpu_seconds,
            cpu_share=share,
            loop_lag=lag,
            was_bottleneck=bool(reason),
            reason=reason,
        )


@asynccontextmanager
async def watching(watch: Watch, warmup_seconds: float = 0.0) -> AsyncIterator[None]:
    """Watch this process for as long as the context is entered, its warm-up apart."""
    task = asyncio.create_task(_sample(watch, warmup_seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _sample(watch: Watch, warmup_seconds: float) -> None:
    await asyncio.sleep(warmup_seconds)
    cpu, began = time.process_time(), time.perf_counter()
    try:
        while True:
            asleep = time.perf_counter()
            await asyncio.sleep(_SAMPLE_SECONDS)
            watch.lag.add_seconds(time.perf_counter() - asleep - _SAMPLE_SECONDS)
    finally:
        watch.cpu_seconds += time.process_time() - cpu
        watch.watched_seconds += time.perf_counter() - began


def _reason(share: float, lag_seconds: float, own_late_starts: int, attempted: int) -> str:
    reasons = []
    if share > _MAX_CPU_SHARE:
        reasons.append(f"it used {share:.0%} of a core")
    if lag_seconds > _MAX_LAG_SECONDS:
        reasons.append(f"its event loop was {lag_seconds * 1000:.0f} ms late at p99")
    if own_late_starts > _MAX_OWN_LATE_SHARE * attempted:
        reasons.append(f"it began {own_late_starts} messages late while connections were free")
    return "; ".join(reasons)
