"""Whether two sides were measured alike, and what else to beware of before believing a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.reading import confidence, provider, sufficiency
from bench.reading.documents import Document, number, part, text, value

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOT_CONDITIONS = frozenset({("environment", "load_average")})  # it changes by itself


def warnings(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    """Return in sentences what to beware of, the gravest first.

    Raises:
        DocumentError: a document is none of a run.
    """
    return [
        *_unlike(differences(baselines, candidates)),
        *_bottlenecks("baseline", baselines),
        *_bottlenecks("candidate", candidates),
        *_partial(baselines, candidates),
        *_short(baselines, candidates),
        *_order(baselines, candidates),
    ]


def differences(
    baselines: Sequence[Document], candidates: Sequence[Document]
) -> list[dict[str, object]]:
    """Return the conditions that were not the same in all runs, with each side's values.

    Raises:
        DocumentError: a document is none of a run.
    """
    runs = (*baselines, *candidates)
    fields = {("", "target"): None} | dict.fromkeys(
        (block, name)
        for run in runs
        for block in ("config", "environment")
        for name in part(run, block)
    )
    found = [
        _row(
            f"{block}.{name}" if block else name,
            [_at(block, name, run) for run in baselines],
            [_at(block, name, run) for run in candidates],
        )
        for block, name in fields
        if (block, name) not in _NOT_CONDITIONS
    ]
    return [row for row in (*found, *_provider(baselines, candidates)) if row is not None]


def _at(block: str, name: str, run: Document) -> object:
    return part(run, block).get(name) if block else value(run, name)


def _provider(
    baselines: Sequence[Document], candidates: Sequence[Document]
) -> list[dict[str, object] | None]:
    """Return a row for each setting of the stand-in provider; one for all where a run had none."""
    before, after = ([provider.settings(run) for run in side] for side in (baselines, candidates))
    if None in before or None in after:
        shown = ([one and provider.summary(one) for one in side] for side in (before, after))
        return [_row("provider_settings", *shown)]
    first, second = ([provider.flat(one or {}) for one in side] for side in (before, after))
    names = dict.fromkeys(name for one in (*first, *second) for name in one)
    return [
        _row(
            f"provider_settings.{name}",
            [one.get(name) for one in first],
            [one.get(name) for one in second],
        )
        for name in names
    ]


def _row(
    field: str, baselines: Sequence[object], candidates: Sequence[object]
) -> dict[str, object] | None:
    before, after = _different(baselines), _different(candidates)
    if len(before) == 1 and before == after:
        return None
    return {"field": field, "baseline": before, "candidate": after}


def _different(values: Sequence[object]) -> list[object]:
    found: list[object] = []
    for one in values:
        if one not in found:
            found.append(one)
    return found


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


def _short(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    runs = (*baselines, *candidates)
    count = sum(
        sufficiency.is_short(
            number(run, "results.total_time_seconds"), number(run, "results.successful")
        )
        for run in runs
    )
    if not count:
        return []
    return [f"{count} of {_runs(len(runs))} were too short: {sufficiency.ADVICE}."]


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
