"""The terminal report of a sweep: a line for each step, and the knee."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bench.analysis import sample_size
from bench.analysis.documents import number, part, rows, text, value
from bench.reports import formatting
from bench.reports.console_text import print_sentence

if TYPE_CHECKING:
    from rich.console import Console

    from bench.analysis.documents import Document

_UNITS = {"concurrent": "connections", "arrival_rate_per_second": "due a second"}
_TIMES = ("p50", "p95", "p99")


def show(console: Console, document: Document) -> None:
    """Print the sweep's document."""
    console.print(Text(f"Sweep of {formatting.harmless(text(document, 'target'))}\n"))
    table = Table(box=None, padding=(0, 1, 0, 0))
    heads = (_UNITS[text(document, "parameter")], "a second", "success", *_TIMES, "dropped")
    for head in (*heads, "generator", "knee"):
        table.add_column(head, justify="right", no_wrap=True)
    knee = number(document, "knee.load")
    for step in rows(document, "steps"):
        load, run = number(step, "load"), part(step, "run")
        table.add_row(f"{load:g}", *_cells(run), "here" if load == knee else "")
    console.print(table)
    console.print()
    print_sentence(console, f"Knee: {_knee(knee)}{text(document, 'knee.reason')}")
    for line in _remarks(document):
        print_sentence(console, line)


def _cells(run: Document) -> list[str]:
    return [
        formatting.rate(number(run, "results.throughput_rps")),
        formatting.percent(number(run, "results.success_rate")),
        *(formatting.figure(part(run, "results.latency"), time) for time in _TIMES),
        formatting.count(number(run, "results.dropped")),
        "bottleneck" if _is_slow(run) else "kept up",
    ]


def _is_slow(run: Document) -> bool:
    return value(run, "generator.was_bottleneck") is True


def _is_short(run: Document) -> bool:
    seconds = number(run, "results.total_time_seconds")
    return sample_size.is_short(seconds, number(run, "results.successful"))


def _knee(load: float | None) -> str:
    return "" if load is None else f"at {load:g}. "


def _remarks(document: Document) -> list[str]:
    remarks = []
    runs = [part(step, "run") for step in rows(document, "steps")]
    rough = formatting.note((part(run, "results.latency") for run in runs), _TIMES)
    if rough:
        remarks.append(rough)
    short = [run for run in runs if _is_short(run)]
    if short:
        remarks.append(f"{len(short)} of {len(runs)} steps were too short: {sample_size.ADVICE}.")
    remarks += _bottlenecks(document)
    if value(document, "stopped_because") is not None:
        remarks.append(f"No higher load was tried. {text(document, 'stopped_because')}")
    if value(document, "interrupted_by") is not None:
        signal = text(document, "interrupted_by")
        remarks.append(f"Stopped ({signal}).")
    for step in rows(document, "steps"):
        if value(part(step, "run"), "partial") is True:
            load = number(step, "load")
            remarks.append(f"The step at {load:g} is partial and does not count for the knee.")
    return remarks


def _bottlenecks(document: Document) -> list[str]:
    slow = [step for step in rows(document, "steps") if _is_slow(part(step, "run"))]
    if not slow:
        return []
    told = "; ".join(
        f"{number(step, 'load'):g} ({text(part(step, 'run'), 'generator.reason')})" for step in slow
    )
    advice = text(part(slow[-1], "run"), "generator.advice")
    sentence = f"The generator was the bottleneck, and not the target, at {told}."
    return [f"{sentence} {advice}".rstrip()]
