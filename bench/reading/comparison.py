"""Compares repeated runs of two sides: what differs, by how much, and how sure that is.

I1: a figure is taken from the runs' own documents; nothing is timed, summed or averaged here but
by the medians and `bench.reading.confidence`.
I2: a verdict of better or worse needs an interval that leaves out "no change"; one run a side,
however far apart, never gives one. Each figure is judged by itself.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bench.reading import confidence
from bench.reading.conditions import differences, warnings
from bench.reading.documents import SCHEMA_VERSION, Document, number, text, value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Verdict(StrEnum):
    """What can be said of a figure."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"  # of a figure that is neither good nor bad
    NO_DIFFERENCE = "no difference shown"
    CANNOT_TELL = "cannot tell"
    MIXED = "better and worse"  # of a whole comparison only


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a run's document that is compared."""

    name: str
    title: str
    unit: str  # per_second, seconds or share
    path: str
    is_higher_better: bool | None  # None: it tells, and is not judged


FIGURES = (
    Figure("throughput", "Throughput", "per_second", "results.throughput_rps", True),
    Figure("success", "Success rate", "share", "results.success_rate", True),
    Figure("mean", "Mean latency", "seconds", "results.latency.avg_seconds", False),
    Figure("p50", "p50 latency", "seconds", "results.latency.p50_seconds", False),
    Figure("p95", "p95 latency", "seconds", "results.latency.p95_seconds", False),
    Figure("p99", "p99 latency", "seconds", "results.latency.p99_seconds", False),
    Figure(
        "transaction_p50", "p50 transaction", "seconds",
        "results.phases.transaction.p50_seconds", False,
    ),
    Figure("cpu_share", "Generator's CPU", "share", "generator.cpu_share", None),
)  # fmt: skip
_COUNTS = ("lost", "duplicated", "corrupted")  # where none is the only good number
_REASONS = {
    Verdict.BETTER: "the whole interval is on the good side",
    Verdict.WORSE: "the whole interval is on the bad side",
    Verdict.DIFFERENT: "the whole interval is on one side; neither is good or bad",
    Verdict.NO_DIFFERENCE: "the interval includes no change",
}


def compare(
    baselines: Sequence[Document], candidates: Sequence[Document], *, min_change: float = 0.0
) -> dict[str, object]:
    """Return the document of kind `comparison`, with the runs themselves in it.

    A change is better or worse when its interval lies wholly beyond `min_change` (0.05 for 5 %).

    Raises:
        DocumentError: a document is none of a run.
        ValueError: a side has no run.
    """
    if not baselines or not candidates:
        raise ValueError("each side needs a run")
    figures = [_figure(figure, baselines, candidates, min_change) for figure in FIGURES]
    counts = [_count(name, baselines, candidates) for name in _COUNTS]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "timestamp": text(baselines[0], "timestamp"),
        "partial": any(value(run, "partial") is True for run in (*baselines, *candidates)),
        "method": {
            "estimate": "Hodges-Lehmann ratio",
            "interval": "exact Mann-Whitney",
            "wanted_confidence": confidence.WANTED,
            "min_runs": confidence.MIN_RUNS,
            "min_change": min_change,
        },
        "verdict": _overall([str(row["verdict"]) for row in (*figures, *counts)]),
        "figures": figures,
        "counts": counts,
        "differences": differences(baselines, candidates),
        "warnings": warnings(baselines, candidates),
        "baseline": list(baselines),
        "candidate": list(candidates),
    }


def _figure(
    figure: Figure,
    baselines: Sequence[Document],
    candidates: Sequence[Document],
    min_change: float,
) -> dict[str, object]:
    before = [number(run, figure.path) for run in baselines]
    after = [number(run, figure.path) for run in candidates]
    first, second = _known(before), _known(after)
    found = confidence.interval(first, second)
    verdict = _verdict(found, figure.is_higher_better, min_change)
    return {
        "name": figure.name,
        "title": figure.title,
        "unit": figure.unit,
        "better": {True: "higher", False: "lower", None: None}[figure.is_higher_better],
        "baseline": {"runs": before, "median": _median(first)},
        "candidate": {"runs": after, "median": _median(second)},
        # With an interval its estimate, which lies within; else of the medians.
        "change": _change(_median(first), _median(second))
        if found is None
        else _finite(found.ratio - 1),
        "interval": None
        if found is None
        else {
            "low": _finite(found.low),
            "high": _finite(found.high),  # null: no upper bound
            "confidence": found.confidence,
        },
        "verdict": verdict,
        "reason": _REASONS.get(verdict) or _why_not(len(first), len(second)),
    }


def _verdict(
    found: confidence.Interval | None, is_higher_better: bool | None, min_change: float
) -> Verdict:
    if found is None:
        return Verdict.CANNOT_TELL
    is_higher = found.low > 1 + min_change
    if not is_higher and not found.high < 1 - min_change:
        return Verdict.NO_DIFFERENCE
    if is_higher_better is None:
        return Verdict.DIFFERENT
    return Verdict.BETTER if is_higher is is_higher_better else Verdict.WORSE


def _why_not(first: int, second: int) -> str:
    if not first or not second:
        return "a side has no such figure"
    return f"not enough runs to tell: {first} and {second}, at least {confidence.MIN_RUNS} each"


def _count(
    name: str, baselines: Sequence[Document], candidates: Sequence[Document]
) -> dict[str, object]:
    path = f"reconciliation.{name}"
    before = [number(run, path) for run in baselines]
    after = [number(run, path) for run in candidates]
    return {
        "name": name,
        "baseline": _total(before),  # null: in a run it was not checked
        "candidate": _total(after),
        "verdict": _count_verdict(_total(before), _total(after)),
    }


def _count_verdict(before: float | None, after: float | None) -> Verdict:
    # A relay that never loses mail and one that once did differ, however few the runs.
    if before is None or after is None or (before and after):
        return Verdict.CANNOT_TELL
    if before == after:
        return Verdict.NO_DIFFERENCE
    return Verdict.WORSE if after else Verdict.BETTER


def _overall(verdicts: Sequence[str]) -> Verdict:
    is_better, is_worse = Verdict.BETTER in verdicts, Verdict.WORSE in verdicts
    if is_better or is_worse:
        return (
            Verdict.MIXED
            if is_better and is_worse
            else Verdict.BETTER
            if is_better
            else Verdict.WORSE
        )
    # That nothing was lost on either side says nothing of the figures.
    figures = verdicts[: len(FIGURES)]
    is_told = any(verdict != Verdict.CANNOT_TELL for verdict in figures)
    return Verdict.NO_DIFFERENCE if is_told else Verdict.CANNOT_TELL


def _known(values: Iterable[float | None]) -> list[float]:
    return [one for one in values if one is not None]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _total(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return sum(known) if len(known) == len(values) else None


def _change(before: float | None, after: float | None) -> float | None:
    if before is None or after is None or before == 0:
        return None
    return _finite(after / before - 1)


def _finite(number_: float) -> float | None:
    return number_ if math.isfinite(number_) else None
