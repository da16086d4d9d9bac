"""The figures of a repeat, a relay, a workload and a whole cost run. Plain values.

The names of `CostFigures` are keys of the JSON document.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cost.workloads import CostWorkload, RelayName
    from bench.reconciliation.loop_lag import LoopLag


@dataclass(slots=True, kw_only=True)
class CostFigures:
    """The figures of one repeat; None if the workload does not measure a figure."""

    messages: int = 0  # acknowledged in the measured window, and received by the provider
    window_seconds: float = 0.0
    cpu_us_per_message: float | None = None
    throughput_per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_mib: float | None = None  # peak resident memory in the window
    rss_mib: float | None = None  # resident memory at its end
    turns_per_message: float | None = None  # flights of replies the provider wrote
    upstream_connections_opened: int | None = None  # in the window
    idle_clients: int | None = None
    kib_per_idle_client: float | None = None
    idle_crowd_ratio: float | None = None  # throughput with idle clients, over that without
    trickling_crowd_ratio: float | None = None  # the same with trickling clients


@dataclass(slots=True, kw_only=True)
class RelayRow:
    """The repeats of one relay under one workload."""

    relay: RelayName
    repeats: list[CostFigures] = field(default_factory=list)
    lag: LoopLag = field(default_factory=Counter)  # in all windows; empty: not known
    error: str = ""  # "": every message was acknowledged and arrived unchanged
    skipped: str = ""  # why it was not measured; "" if it was

    @property
    def medians(self) -> CostFigures:
        """The median of each figure over the repeats; all None after an error."""
        return CostFigures() if self.error else medians(self.repeats)


@dataclass(slots=True, kw_only=True)
class WorkloadResult:
    """The results of one workload."""

    workload: CostWorkload
    rows: list[RelayRow]

    def median(self, relay: RelayName) -> CostFigures:
        """Return a relay's medians; all None when it was not measured."""
        return next((row.medians for row in self.rows if row.relay is relay), CostFigures())


@dataclass(slots=True, kw_only=True)
class CostResults:
    """The results of all workloads."""

    measured: list[WorkloadResult] = field(default_factory=list)

    @property
    def lag(self) -> LoopLag:
        """The lag of the proxy's event loop in all windows."""
        total: LoopLag = Counter()
        for row in (row for one in self.measured for row in one.rows):
            total.update(row.lag)
        return total

    def median(self, workload: str, relay: RelayName) -> CostFigures:
        """Return a relay's medians under a workload; all None when it was not measured."""
        found = (one.median(relay) for one in self.measured if one.workload.name == workload)
        return next(found, CostFigures())


def medians(repeats: Sequence[CostFigures]) -> CostFigures:
    """Return each figure's median; None where no repeat has it."""
    result = CostFigures()
    for name in (one.name for one in fields(CostFigures)):
        values = [value for one in repeats if (value := getattr(one, name)) is not None]
        if values:
            setattr(result, name, statistics.median(values))
    return result


def ratio(value: float | None, base: float | None) -> float | None:
    """Return the value divided by `base`; None if either is unknown."""
    return None if value is None or not base else value / base
