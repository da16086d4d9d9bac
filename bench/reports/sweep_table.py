"""The report of a sweep for the terminal: a line for each step, and the knee."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bench.reading import sufficiency
from bench.reading.documents import number, part, rows, text, value
from bench.reports import words

if TYPE_CHECKING:
    from rich.console import Console

    from bench.reading.documents import Document

_UNITS = {"concurrent": "connections", "arrival_rate_per_second": "messages a second"}
_TIMES = ("p50", "p95", "p99")


def show(console: Console, document: Document) -> None:
    """Print the sweep's document."""
    console.print(Text(f"Sweep of {words.harmless(text(document, 'target'))}\n"))
    table = Table(box=None, pad_edge=False)
    heads = (_UNITS[text(document, "parameter")], "a second", "success", *_TIMES, "dropped", "")
    for head in heads:
        table.add_column(head, justify="right")
    knee = number(document, "knee.load")
    slow: list[str] = []
    for step in rows(document, "steps"):
        load, run = number(step, "load"), part(step, "run")
        marks = ["knee"] if load == knee else []
        if value(run, "generator.was_bottleneck"):
            marks.append("generator")
            slow.append(f"{load:g} ({text(run, 'generator.reason')})")
        table.add_row(f"{load:g}", *_cells(run), ", ".join(marks))
    console.print(table)
    reason = words.harmless(text(document, "knee.reason"))
    console.print(Text(f"\nKnee: {_knee(knee)}{reason}"), soft_wrap=True)
    for line in _remarks(document, slow):
        console.print(Text(words.harmless(line)), soft_wrap=True)


def _cells(run: Document) -> list[str]:
    return [
        words.rate(number(run, "results.throughput_rps")),
        words.percent(number(run, "results.success_rate")),
        *(words.figure(part(run, "results.latency"), time) for time in _TIMES),
        words.count(number(run, "results.dropped")),
    ]


def _is_short(run: Document) -> bool:
    seconds = number(run, "results.total_time_seconds")
    return sufficiency.is_short(seconds, number(run, "results.successful"))


def _knee(load: float | None) -> str:
    return "none found. " if load is None else f"at {load:g}. "


def _remarks(document: Document, slow: list[str]) -> list[str]:
    remarks = []
    runs = [part(step, "run") for step in rows(document, "steps")]
    if any(sufficiency.rough(number(run, "results.latency.count") or 0) for run in runs):
        remarks.append(f"{words.ABOUT} {sufficiency.ROUGH}.")
    short = [run for run in runs if _is_short(run)]
    if short:
        remarks.append(f"{len(short)} of {len(runs)} steps were too short: {sufficiency.ADVICE}.")
    if slow:
        remarks.append(
            f"The generator was the bottleneck, and not the target, at {'; '.join(slow)}."
        )
    if value(document, "stopped_because") is not None:
        remarks.append(f"No higher load was tried. {text(document, 'stopped_because')}")
    if value(document, "interrupted_by") is not None:
        signal = text(document, "interrupted_by")
        remarks.append(f"Stopped ({signal}); the step that was going on is left out.")
    return remarks
