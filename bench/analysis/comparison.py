"""Compares repeated runs of two sides: which figures differ, by how much, how reliably.

I1: figures come from the runs' own documents; this module computes only medians and the intervals
of `bench.analysis.confidence`.
I2: a verdict of better or worse needs an interval that excludes "no change"; one run a side never
gives one. Each row is judged by itself, at the confidence of its own interval; the overall verdict
rests on `bench.analysis.overall_verdict` and on facts.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis import comparability, confidence, overall_verdict
from bench.analysis.documents import SCHEMA_VERSION, Document, number, text, value
from bench.analysis.overall_verdict import Decision, Question, known
from bench.analysis.verdict import Verdict, joined, judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in a run's document that is compared."""

    name: str
    title: str
    unit: str  # per_second, seconds, share or messages
    path: str
    is_higher_better: bool | None  # None: shown, but not judged


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
    Figure("dropped", "Dropped", "messages", "results.dropped", False),  # open model
    Figure("cpu_share", "Generator's CPU", "share", "generator.cpu_share", None),
)  # fmt: skip
_COUNTS = ("lost", "duplicated", "corrupted")  # the only good number is 0
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

    A change is better or worse if its interval lies wholly beyond `min_change` (0.05 for 5 %).
    If all runs use the open model, other figures decide than in the closed model.

    Raises:
        DocumentError: a document is none of a run.
        ValueError: a side has no run.
    """
    if not baselines or not candidates:
        raise ValueError("each side needs a run")
    is_open = all(text(run, "config.model") == "open" for run in (*baselines, *candidates))
    names = overall_verdict.OPEN if is_open else overall_verdict.CLOSED
    told = [figure for figure in FIGURES if is_open or figure.name != "dropped"]
    figures = [
        _figure(figure, baselines, candidates, min_change) | {"decides": figure.name in names}
        for figure in told
    ]
    decided = overall_verdict.decide(
        [_question(one, baselines, candidates) for one in told if one.name in names], min_change
    )
    counts = [_count(name, baselines, candidates) for name in _COUNTS]
    facts = _facts(baselines, candidates, counts)
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
            "decided_by": list(names),
            "decision": "Holm over the figures that decide",
        },
        "verdict": _overall(decided, facts),
        "reservation": comparability.reservation(baselines, candidates),
        "reason": " ".join([*(sentence for _, sentence in facts), decided.reason]),
        "figures": figures,
        "counts": counts,
        "differences": comparability.differences(baselines, candidates),
        "differs": comparability.differs(baselines, candidates),
        "warnings": comparability.warnings(baselines, candidates),
        "baseline": list(baselines),
        "candidate": list(candidates),
    }


def _figure(
    figure: Figure,
    baselines: Sequence[Document],
    candidates: Sequence[Document],
    min_change: float,
) -> dict[str, object]:
    before, after = _values(figure, baselines), _values(figure, candidates)
    first, second = known(before), known(after)
    found = confidence.interval(first, second)
    verdict = judged(found, figure.is_higher_better, min_change)
    return {
        "name": figure.name,
        "title": figure.title,
        "unit": figure.unit,
        "better": {True: "higher", False: "lower", None: None}[figure.is_higher_better],
        "baseline": {"runs": before, "median": _median(first)},
        "candidate": {"runs": after, "median": _median(second)},
        # The interval's estimate, which lies within it; without an interval, that of the medians.
        "change_of": "medians" if found is None else "pairs",
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


def _question(
    figure: Figure, baselines: Sequence[Document], candidates: Sequence[Document]
) -> Question:
    before, after = _values(figure, baselines), _values(figure, candidates)
    return Question(figure.title, before, after, figure.is_higher_better)


def _values(figure: Figure, runs: Sequence[Document]) -> list[float | None]:
    return [number(run, figure.path) for run in runs]


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
        "baseline": _total(before),  # null: a run did not check it
        "candidate": _total(after),
        "verdict": _count_verdict(_total(before), _total(after)),
    }


def _count_verdict(before: float | None, after: float | None) -> Verdict:
    # A relay that lost mail differs from one that did not, even after a single run.
    if before is None or after is None or (before and after):
        return Verdict.CANNOT_TELL
    if before == after:
        return Verdict.NO_DIFFERENCE
    return Verdict.WORSE if after else Verdict.BETTER


def _facts(
    baselines: Sequence[Document],
    candidates: Sequence[Document],
    counts: Sequence[Mapping[str, object]],
) -> list[tuple[Verdict, str]]:
    """Return the verdicts that need no statistics, each with its sentence."""
    facts = [
        (
            Verdict(str(row["verdict"])),
            f"{str(row['name']).capitalize()} messages: {row['baseline']:g} in the baseline's "
            f"runs, {row['candidate']:g} in the candidate's, which is a fact.",
        )
        for row in counts
        if row["verdict"] in (Verdict.BETTER, Verdict.WORSE)
    ]
    before, after = (
        {bool(number(run, "results.successful")) for run in side}
        for side in (baselines, candidates)
    )
    if (before, after) == ({True}, {False}):
        facts.append((Verdict.WORSE, "No message succeeded in any of the candidate's runs."))
    if (before, after) == ({False}, {True}):
        facts.append((Verdict.BETTER, "No message succeeded in any of the baseline's runs."))
    return facts


def _overall(decided: Decision, facts: Sequence[tuple[Verdict, str]]) -> Verdict:
    told = {*decided.answers.values(), *(verdict for verdict, _ in facts)}
    return joined(told) or (Verdict.NO_DIFFERENCE if decided.is_decidable else Verdict.CANNOT_TELL)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _total(values: Sequence[float | None]) -> float | None:
    found = known(values)
    return sum(found) if len(found) == len(values) else None


def _change(before: float | None, after: float | None) -> float | None:
    if before is None or after is None or before == 0:
        return None
    return _finite(after / before - 1)


def _finite(number_: float) -> float | None:
    return number_ if math.isfinite(number_) else None
