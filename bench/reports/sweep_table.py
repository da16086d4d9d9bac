"""The report of a sweep for the terminal: a line for each step, and the knee."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bench.reading.documents import number, part, rows, text, value
from bench.reports import words

if TYPE_CHECKING:
    from rich.console import Console

    from bench.reading.documents import Document

_UNITS = {"concurrent": "connections", "arrival_rate_per_second": "messages a second"}
_TIMES = ("p50", "p95", "p99")


def show(console: Console, document: Document) -> None:
    """Print the sweep's document."""
    console.print(Text(f"Sweep of {text(document, 'target')}\n"))
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
    console.print(Text(f"\nKnee: {_knee(knee)}{text(document, 'knee.reason')}"), soft_wrap=True)
    for line in _remarks(document, slow):
        console.print(Text(line), soft_wrap=True)


def _cells(run: Document) -> list[str]:
    return [
        words.rate(number(run, "results.throughput_rps")),
        words.percent(number(run, "results.success_rate")),
        *(words.duration(number(run, f"results.latency.{time}_seconds")) for time in _TIMES),
        words.count(number(run, "results.dropped")),
    ]


def _knee(load: float | None) -> str:
    return "none found. " if load is None else f"at {load:g}. "


def _remarks(document: Document, slow: list[str]) -> list[str]:
    remarks = []
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
