"""What was measured, as plain values: one repeat, a relay's repeats, a workload, the sitting."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cost.plan import RelayName, Workload

Lag = dict[float, int]  # samples by the upper bound of their bucket in seconds


@dataclass(slots=True, kw_only=True)
class Figures:
    """One repeat; None where the workload does not measure it."""

    messages: int = 0  # acknowledged in the measured window, and arrived
    window_seconds: float = 0.0
    cpu_us_per_message: float | None = None
    throughput_per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_mib: float | None = None  # resident, at most, in the window
    rss_mib: float | None = None  # resident at its end
    turns_per_message: float | None = None  # flights of replies the provider wrote
    upstream_connections_opened: int | None = None  # in the window
    idle_clients: int | None = None
    kib_per_idle_client: float | None = None
    idle_crowd_ratio: float | None = None  # throughput among idle clients to that without them
    trickling_crowd_ratio: float | None = None  # the same among trickling ones


@dataclass(slots=True, kw_only=True)
class Row:
    """One relay under one workload."""

    relay: RelayName
    repeats: list[Figures] = field(default_factory=list)
    lag: Lag = field(default_factory=dict)  # of the event loop, in all windows; {}: not known
    error: str = ""  # "": every message was acknowledged and arrived unchanged
    skipped: str = ""  # why it was not measured; "": it was

    @property
    def medians(self) -> Figures:
        """Each figure's median over the repeats; all None after an error."""
        return Figures() if self.error else medians(self.repeats)


@dataclass(slots=True, kw_only=True)
class Measured:
    """One workload."""

    workload: Workload
    rows: list[Row]

    def median(self, relay: RelayName) -> Figures:
        """Return a relay's medians; all None when it was not measured."""
        return next((row.medians for row in self.rows if row.relay is relay), Figures())


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The sitting."""

    measured: list[Measured] = field(default_factory=list)

    @property
    def lag(self) -> Lag:
        """The lag of the proxy's event loop in all windows."""
        total: Counter[float] = Counter()
        for one in self.measured:
            for row in one.rows:
                total.update(row.lag)
        return dict(total)

    @property
    def has_errors(self) -> bool:
        """Whether a check failed anywhere."""
        return any(row.error for one in self.measured for row in one.rows)

    def median(self, workload: str, relay: RelayName) -> Figures:
        """Return a relay's medians under a workload; all None when it was not measured."""
        for one in self.measured:
            if one.workload.name == workload:
                return one.median(relay)
        return Figures()


def medians(repeats: list[Figures]) -> Figures:
    """Return each figure's median; None where no repeat has it."""
    result = Figures()
    for name in (one.name for one in fields(Figures)):
        values = [value for one in repeats if (value := getattr(one, name)) is not None]
        if values:
            setattr(result, name, statistics.median(values))
    return result


def ratio(value: float | None, base: float | None) -> float | None:
    """Return how many times `base` a value is; None when that cannot be said."""
    return None if value is None or not base else value / base


def p99_ms(lag: Mapping[float, int]) -> float | None:
    """Return a bound that 99 of 100 samples keep, in milliseconds; None without samples.

    It is a bucket's upper bound, so the truth may be lower; beyond the last bucket it is higher.
    """
    total, seen = sum(lag.values()), 0
    if not total:
        return None
    finite = [bound for bound in sorted(lag) if bound != float("inf")]
    for bound in finite:
        seen += lag[bound]
        if seen >= 0.99 * total:
            return bound * 1000
    return finite[-1] * 1000 if finite else None
