"""Checks whether two sides were measured under the same conditions; warns of other doubts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.analysis import confidence, provider_summary, sample_size
from bench.analysis.documents import Document, number, part, text, value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NOT_CONDITIONS = frozenset({("environment", "load_average")})  # it changes by itself
# Conditions that follow from others, left out if one of those differs as well.
_DERIVED: Mapping[str, tuple[str, ...]] = {
    "config.model": ("config.arrival_rate_per_second",),
    "config.max_lateness_seconds": ("config.arrival_rate_per_second",),
    "config.messages_per_connection": ("config.connection",),
    "config.size_bytes": ("config.sizes",),
    "config.from_emails": ("config.from_email", "config.mailboxes"),
}
_MACHINE = "environment."
_SECONDS = "_seconds"
_TITLES: Mapping[str, str] = {
    "config.num_emails": "messages",
    "config.concurrent": "connections at once",
    "config.arrival_rate_per_second": "arrivals a second",
    "config.warmup_seconds": "warm-up",
    "config.slow_bytes_per_second": "bytes a second of content",
    "config.is_pipelined": "pipelined",
    "config.from_email": "from",
    "config.from_emails": "from",
    "config.to_email": "to",
    "provider_settings": "provider",
    "provider_settings.behaviour.dialect": "provider's profile",
}
_PARTS = (
    ("config.", ""),
    (_MACHINE, ""),
    ("provider_settings.behaviour.", "provider's "),
    ("provider_settings.token_endpoint.", "provider's token "),
    ("provider_settings.", "provider's "),
)


def warnings(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    """Return the warnings as sentences, the most serious first.

    Raises:
        DocumentError: a document is none of a run.
    """
    found = differences(baselines, candidates)
    return [
        *_machines([row for row in found if str(row["field"]).startswith(_MACHINE)]),
        *_mixtures([row for row in found if not str(row["field"]).startswith(_MACHINE)]),
        *_bottlenecks("baseline", baselines),
        *_bottlenecks("candidate", candidates),
        *_partial(baselines, candidates),
        *_short(baselines, candidates),
        *_order(baselines, candidates),
    ]


def differs(baselines: Sequence[Document], candidates: Sequence[Document]) -> list[str]:
    """Return the options that differ between the two sides, perhaps on purpose.

    Raises:
        DocumentError: a document is none of a run.
    """
    return [
        _told(row)
        for row in differences(baselines, candidates)
        # Two sides may well be two relays, each at its own address.
        if row["field"] != "target"
        and not str(row["field"]).startswith(_MACHINE)
        and not _is_mixed(row)
    ]


def reservation(baselines: Sequence[Document], candidates: Sequence[Document]) -> str | None:
    """Return why the verdict may not reflect the target; None if no generator was at its limit.

    Raises:
        DocumentError: a document is none of a run.
    """
    slow = [
        f"{count} of {_runs(len(runs))} of the {side}"
        for side, runs in (("baseline", baselines), ("candidate", candidates))
        if (count := sum(_is_slow(run) for run in runs))
    ]
    if not slow:
        return None
    return (
        f"With a reservation: the generator was the bottleneck in {' and '.join(slow)}, so that "
        "its limit may be what was compared, and not the target's."
    )


def differences(
    baselines: Sequence[Document], candidates: Sequence[Document]
) -> list[dict[str, object]]:
    """Return the conditions that differ between runs, with each side's values.

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
    rows = [row for row in (*found, *_provider(baselines, candidates)) if row is not None]
    names = {row["field"] for row in rows}
    return [row for row in rows if not names.intersection(_DERIVED.get(str(row["field"]), ()))]


def sides(row: Mapping[str, object]) -> tuple[str, str]:
    """Return the text of the baseline's and the candidate's values in a row of `differences`."""
    field, before, after = str(row["field"]), row["baseline"], row["candidate"]
    return _joined(before, field), _joined(after, field)


def _joined(values: object, field: str) -> str:
    listed = values if isinstance(values, list) else [values]
    return " or ".join(_shown(one, field) for one in listed)


def _at(block: str, name: str, run: Document) -> object:
    return part(run, block).get(name) if block else value(run, name)


def _provider(
    baselines: Sequence[Document], candidates: Sequence[Document]
) -> list[dict[str, object] | None]:
    """Return a row for each setting of the sandbox; a single row if a run had no sandbox."""
    before, after = (
        [provider_summary.settings(run) for run in side] for side in (baselines, candidates)
    )
    if None in before or None in after:
        shown = (
            [one and provider_summary.summary(one) for one in side] for side in (before, after)
        )
        return [_row("provider_settings", *shown)]
    first, second = ([provider_summary.flat(one or {}) for one in side] for side in (before, after))
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
    return {"field": field, "title": _title(field), "baseline": before, "candidate": after}


def _title(field: str) -> str:
    if field in _TITLES:
        return _TITLES[field]
    found = next((part for part in _PARTS if field.startswith(part[0])), ("", ""))
    return found[1] + field.removeprefix(found[0]).removesuffix(_SECONDS).replace("_", " ")


def _different(values: Sequence[object]) -> list[object]:
    found: list[object] = []
    for one in values:
        if one not in found:
            found.append(one)
    return found


def _is_mixed(row: Mapping[str, object]) -> bool:
    """Whether the runs of one side differ from each other."""
    sides = (row["baseline"], row["candidate"])
    return any(isinstance(side, list) and len(side) > 1 for side in sides)


def _told(row: Mapping[str, object]) -> str:
    before, after = sides(row)
    return f"{row['title']}: {before} against {after}"


def _shown(found: object, field: str) -> str:
    if found is None:
        return "none"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, list):
        is_faults = field == "provider_settings.faults"
        return provider_summary.faults(found) if is_faults else ", ".join(map(str, found)) or "none"
    shown = f"{found:g}" if isinstance(found, float) else str(found)
    return f"{shown} s" if field.endswith(_SECONDS) else shown


def _machines(found: Sequence[Mapping[str, object]]) -> list[str]:
    if not found:
        return []
    return [f"The machine or its software was not the same: {'; '.join(map(_told, found))}."]


def _mixtures(found: Sequence[Mapping[str, object]]) -> list[str]:
    mixed = [row for row in found if _is_mixed(row)]
    if not mixed:
        return []
    return [f"The runs of one side differ: {'; '.join(map(_told, mixed))}."]


def _is_slow(run: Document) -> bool:
    return value(run, "generator.was_bottleneck") is True


def _bottlenecks(side: str, runs: Sequence[Document]) -> list[str]:
    slow = [run for run in runs if _is_slow(run)]
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
        sample_size.is_short(
            number(run, "results.total_time_seconds"), number(run, "results.successful")
        )
        for run in runs
    )
    if not count:
        return []
    return [f"{count} of {_runs(len(runs))} were too short: {sample_size.ADVICE}."]


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
