"""The goals of a cost run, and whether each is reached, missed or not measured."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bench.cost.figures import ratio
from bench.cost.workloads import RelayName
from bench.reconciliation.loop_lag import p99_ms

if TYPE_CHECKING:
    from bench.cost.figures import CostResults

_SLACK = 0.005  # turns of the few connections that open in the window
_RTT_ALLOWANCE_MS = 2.0  # on top of the one turn
_SPLICE, _NAIVE, _PROXY, _PROXY_DATA, _ = RelayName


class GoalVerdict(StrEnum):
    """The verdict on a goal."""

    REACHED = "reached"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure's limit and its measured value. The fields are keys of the JSON document."""

    measure: str
    unit: str
    limit: float
    value: float | None  # None: not measured
    is_minimum: bool = False  # the limit is a minimum rather than a maximum
    slack: float = 0.0  # by how much the limit may be passed

    @property
    def verdict(self) -> GoalVerdict:
        """Whether the value keeps the limit."""
        if self.value is None:
            return GoalVerdict.NOT_MEASURED
        over = self.limit - self.value if self.is_minimum else self.value - self.limit
        return GoalVerdict.REACHED if over <= self.slack else GoalVerdict.MISSED


def goals(results: CostResults, rtt_seconds: float) -> list[Goal]:
    """Return every goal with its measured value."""

    def cpu(workload: str, relay: RelayName) -> float | None:
        return results.median(workload, relay).cpu_us_per_message

    kept = ratio(cpu("kept", _PROXY), cpu("kept", _SPLICE))
    reconnect = ratio(cpu("reconnect", _PROXY), cpu("reconnect", _SPLICE))
    large_splice = ratio(cpu("large", _PROXY), cpu("large", _SPLICE))
    large = ratio(cpu("large", _PROXY), cpu("large", _NAIVE))
    bdat = results.median("kept", _PROXY).turns_per_message
    data = results.median("kept", _PROXY_DATA).turns_per_message
    rtt_ms, latency = rtt_seconds * 1000, results.median("rtt", _PROXY).p50_ms
    peaks = [results.median("memory", relay).peak_mib for relay in (_PROXY, _PROXY_DATA)]
    peak = max((one for one in peaks if one is not None), default=None)
    idle, crowd = results.median("idle", _PROXY), results.median("crowd", _PROXY)
    among_idle, trickling = crowd.idle_crowd_ratio, crowd.trickling_crowd_ratio
    return [
        Goal("CPU a message, kept connection", "× splice", 1.8, kept),
        Goal("CPU a message, new connection each", "× splice", 1.5, reconnect),
        Goal("CPU of a 1 MB message", "× splice", 5.0, large_splice),
        Goal("CPU of a 1 MB message", "ms", 3.0, ratio(cpu("large", _PROXY), 1000)),
        Goal("CPU of a 1 MB message", "× naive", 1 / 8, large),
        Goal("upstream turns a message, CHUNKING", "turns", 1.0, bdat, slack=_SLACK),
        Goal("upstream turns a message, no CHUNKING", "turns", 2.0, data, slack=_SLACK),
        Goal(f"median latency at {rtt_ms:g} ms RTT", "ms", rtt_ms + _RTT_ALLOWANCE_MS, latency),
        Goal("peak memory, 50 × 20 MB at once", "MiB", 120.0, peak),
        Goal("memory of an idle authenticated client", "KiB", 40.0, idle.kib_per_idle_client),
        Goal("event-loop lag, 99th percentile", "ms", 20.0, p99_ms(results.lag)),
        Goal("throughput among 500 idle clients", "× alone", 0.8, among_idle, is_minimum=True),
        Goal("throughput among 500 trickling clients", "× alone", 0.8, trickling, is_minimum=True),
    ]
