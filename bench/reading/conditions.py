"""Whether two sides were measured alike, and what else to beware of before believing a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.reading import confidence
from bench.reading.documents import Document, part, text, value

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHOLE_CONFIDENCE_RUNS = 4  # a side, for `confidence.WANTED`
_NOT_CONDITIONS = frozenset({"environment.load_average"})  # it changes by itself


def warnings(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    """Return in sentences what to beware of, the gravest first.

    Raises:
        DocumentError: a document is none of a run.
    """
    return [
        *_too_few(len(baselines), len(candidates)),
        *_unlike(differences(baselines, candidates)),
        *_bottlenecks("baseline", baselines),
        *_bottlenecks("candidate", candidates),
        *_partial(baselines, candidates),
        *_order(baselines, candidates),
    ]


def differences(
    baselines: Sequence[Document], candidates: Sequence[Document]
) -> list[dict[str, object]]:
    """Return the conditions that were not the same in all runs, with each side's values.

    Raises:
        DocumentError: a document is none of a run.
    """
    fields: dict[str, None] = {"target": None}
    for run in (*baselines, *candidates):
        for block in ("config", "environment"):
            fields |= {f"{block}.{name}": None for name in part(run, block)}
    found: list[dict[str, object]] = []
    for field in fields:
        before, after = _values(field, baselines), _values(field, candidates)
        if field not in _NOT_CONDITIONS and (len(before) > 1 or before != after):
            found.append({"field": field, "baseline": before, "candidate": after})
    return found


def _values(field: str, runs: Sequence[Document]) -> list[object]:
    different: list[object] = []
    for run in runs:
        block, _, name = field.rpartition(".")
        one = part(run, block).get(name) if block else value(run, field)
        if one not in different:
            different.append(one)
    return different


def _too_few(first: int, second: int) -> list[str]:
    if min(first, second) < confidence.MIN_RUNS:
        return [
            f"{_runs(first)} against {_runs(second)} cannot tell a change from chance. Measure "
            f"each side at least {confidence.MIN_RUNS} times, better 5, the sides in turn."
        ]
    if min(first, second) < _WHOLE_CONFIDENCE_RUNS:
        return [
            f"{_runs(first)} against {_runs(second)} reach less than 95 % confidence; "
            f"{_WHOLE_CONFIDENCE_RUNS} a side do."
        ]
    return []


def _unlike(differences: Sequence[dict[str, object]]) -> list[str]:
    # Two sides may well be two relays, each at its own address.
    names = ", ".join(str(row["field"]) for row in differences if row["field"] != "target")
    if not names:
        return []
    return [f"The runs were not made under the same conditions: {names}."]


def _bottlenecks(side: str, runs: Sequence[Document]) -> list[str]:
    slow = [run for run in runs if value(run, "generator.was_bottleneck") is True]
    if not slow:
        return []
    reason = text(slow[0], "generator.reason")
    return [
        f"In {len(slow)} of {_runs(len(runs))} of the {side} the generator was the bottleneck "
        f"({reason}): they measured it, and not the target."
    ]


def _partial(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    count = sum(value(run, "partial") is True for run in (*baselines, *candidates))
    return [f"{_runs(count)} ended early."] if count else []


def _order(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    before = [text(run, "timestamp") for run in baselines]
    after = [text(run, "timestamp") for run in candidates]
    if min(len(before), len(after)) < confidence.MIN_RUNS:
        return []
    if max(before) < min(after) or max(after) < min(before):
        return [
            "All runs of one side came before those of the other: what else changed in the "
            "meantime looks like a difference too. Measure the sides in turn."
        ]
    return []


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
