"""The figures to reach, and whether they are: reached, missed, or not measured."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bench.cost.figures import p99_ms, ratio
from bench.cost.plan import RelayName

if TYPE_CHECKING:
    from bench.cost.figures import Outcome

_TURNS_SLACK = 0.005  # turns of the few connections that open in the window
_RTT_ALLOWANCE_MS = 2.0  # on top of the one turn

_SPLICE, _NAIVE = RelayName.SPLICE, RelayName.NAIVE
_PROXY, _PROXY_DATA = RelayName.PROXY, RelayName.PROXY_DATA


class Verdict(StrEnum):
    """What came of a target."""

    REACHED = "reached"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure to reach, and the one measured."""

    measure: str
    unit: str
    limit: float
    value: float | None  # None: not measured
    is_minimum: bool = False  # the value may not be less, rather than not be more
    slack: float = 0.0  # by how much the limit may be passed

    @property
    def verdict(self) -> Verdict:
        """Whether the value keeps the limit."""
        if self.value is None:
            return Verdict.NOT_MEASURED
        over = self.limit - self.value if self.is_minimum else self.value - self.limit
        keeps = over <= self.slack
        return Verdict.REACHED if keeps else Verdict.MISSED


def targets(outcome: Outcome, rtt_seconds: float) -> list[Target]:
    """Return every target with what was measured."""
    return [*_cpu(outcome), *_turns(outcome, rtt_seconds), *_memory(outcome), *_crowd(outcome)]


def _cpu(outcome: Outcome) -> list[Target]:
    def cpu(workload: str, relay: RelayName) -> float | None:
        return outcome.median(workload, relay).cpu_us_per_message

    large = cpu("large", _PROXY)
    return [
        Target(
            measure="CPU a message, kept connection",
            unit="× splice",
            limit=2.5,
            value=ratio(cpu("kept", _PROXY), cpu("kept", _SPLICE)),
        ),
        Target(
            measure="CPU a message, new connection each",
            unit="× splice",
            limit=2.2,
            value=ratio(cpu("reconnect", _PROXY), cpu("reconnect", _SPLICE)),
        ),
        Target(
            measure="CPU of a 1 MB message",
            unit="ms",
            limit=3.0,
            value=None if large is None else large / 1000,
        ),
        Target(
            measure="CPU of a 1 MB message",
            unit="× naive",
            limit=1 / 8,
            value=ratio(large, cpu("large", _NAIVE)),
        ),
    ]


def _turns(outcome: Outcome, rtt_seconds: float) -> list[Target]:
    rtt_ms = rtt_seconds * 1000
    return [
        Target(
            measure="upstream turns a message, CHUNKING",
            unit="turns",
            limit=1.0,
            slack=_TURNS_SLACK,
            value=outcome.median("kept", _PROXY).turns_per_message,
        ),
        Target(
            measure="upstream turns a message, no CHUNKING",
            unit="turns",
            limit=2.0,
            slack=_TURNS_SLACK,
            value=outcome.median("kept", _PROXY_DATA).turns_per_message,
        ),
        Target(
            measure=f"median latency at {rtt_ms:g} ms RTT",
            unit="ms",
            limit=rtt_ms + _RTT_ALLOWANCE_MS,
            value=outcome.median("rtt", _PROXY).p50_ms,
        ),
    ]


def _memory(outcome: Outcome) -> list[Target]:
    peaks = [outcome.median("memory", relay).peak_mib for relay in (_PROXY, _PROXY_DATA)]
    known = [peak for peak in peaks if peak is not None]
    return [
        Target(
            measure="peak memory, 50 × 20 MB at once",
            unit="MiB",
            limit=120.0,
            value=max(known, default=None),
        ),
        Target(
            measure="memory of an idle authenticated client",
            unit="KiB",
            limit=40.0,
            value=outcome.median("idle", _PROXY).kib_per_idle_client,
        ),
    ]


def _crowd(outcome: Outcome) -> list[Target]:
    crowd = outcome.median("crowd", _PROXY)
    return [
        Target(
            measure="event-loop lag, 99th percentile",
            unit="ms",
            limit=20.0,
            value=p99_ms(outcome.lag),
        ),
        Target(
            measure="throughput among 500 idle clients",
            unit="× alone",
            limit=0.8,
            value=crowd.idle_crowd_ratio,
            is_minimum=True,
        ),
        Target(
            measure="throughput among 500 trickling clients",
            unit="× alone",
            limit=0.8,
            value=crowd.trickling_crowd_ratio,
            is_minimum=True,
        ),
    ]
