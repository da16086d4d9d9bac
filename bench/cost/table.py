"""The report for a person: a table for each workload, and what was to be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bench.cost.figures import ratio
from bench.cost.goals import Verdict
from bench.cost.plan import Method, RelayName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from bench.cost.figures import Figures, Measured, Outcome, Row
    from bench.cost.goals import Target

_COLOURS = {Verdict.REACHED: "green", Verdict.MISSED: "red", Verdict.NOT_MEASURED: "dim"}

_LEGEND = """CPU time and upstream turns are for one message; the ratios are of CPU time.
×idle and ×trickle: throughput among 500 such clients, to that without them.
"""
_PADDING = (0, 1, 0, 0)

# A column: its head, the digits after the point, and the figure, given the row's and how much CPU
# time the splice and the naive relay took.
Column = tuple[str, int, "Callable[[Figures, float | None, float | None], float | None]"]

_COLUMNS: tuple[Column, ...] = (
    ("CPU µs", 0, lambda row, _, __: row.cpu_us_per_message),
    ("×splice", 2, lambda row, splice, _: ratio(row.cpu_us_per_message, splice)),
    ("×naive", 3, lambda row, _, naive: ratio(row.cpu_us_per_message, naive)),
    ("msg/s", 0, lambda row, _, __: row.throughput_per_second),
    ("p50 ms", 1, lambda row, _, __: row.p50_ms),
    ("p99 ms", 1, lambda row, _, __: row.p99_ms),
    ("peak MiB", 1, lambda row, _, __: row.peak_mib),
    ("turns", 2, lambda row, _, __: row.turns_per_message),
)
_IDLE_COLUMNS: tuple[Column, ...] = (
    ("idle clients", 0, lambda row, _, __: row.idle_clients),
    ("KiB/client", 1, lambda row, _, __: row.kib_per_idle_client),
    ("resident MiB", 1, lambda row, _, __: row.rss_mib),
    ("peak MiB", 1, lambda row, _, __: row.peak_mib),
)
_CROWD_COLUMNS: tuple[Column, ...] = (
    *_COLUMNS[:6],
    ("×idle", 2, lambda row, _, __: row.idle_crowd_ratio),
    ("×trickle", 2, lambda row, _, __: row.trickling_crowd_ratio),
)
_BY_METHOD = {
    Method.STREAM: _COLUMNS,
    Method.IDLE: _IDLE_COLUMNS,
    Method.CROWD: _CROWD_COLUMNS,
}


def show(console: Console, outcome: Outcome, reach: Sequence[Target]) -> None:
    """Print the report."""
    console.print(_LEGEND)
    for one in outcome.measured:
        repeats = max((len(row.repeats) for row in one.rows), default=0)
        heading = f"{one.workload.name}: {one.workload.title} (medians of {repeats})"
        console.print(heading, style="bold", soft_wrap=True)
        console.print(_workload(one))
        for row in one.rows:
            if row.error or row.skipped:
                console.print(f"  {row.relay}: {escape(row.error or row.skipped)}")
        console.print()
    console.print("Reach", style="bold")
    console.print(_reach(reach))


def _workload(one: Measured) -> Table:
    table = Table(box=None, padding=_PADDING)
    table.add_column("relay", no_wrap=True, min_width=10)
    columns = _BY_METHOD[one.workload.method]
    for head, _, _ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    splice = one.median(RelayName.SPLICE).cpu_us_per_message
    naive = one.median(RelayName.NAIVE).cpu_us_per_message
    for row in one.rows:
        table.add_row(row.relay, *_cells(row, columns, splice, naive))
    return table


def _cells(
    row: Row, columns: Sequence[Column], splice: float | None, naive: float | None
) -> list[str]:
    if row.error or row.skipped:
        return ["[red]error[/red]" if row.error else "skipped"]
    medians = row.medians
    return [_number(figure(medians, splice, naive), digits) for _, digits, figure in columns]


def _reach(reach: Sequence[Target]) -> Table:
    table = Table(box=None, padding=_PADDING)
    table.add_column("measure", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for target in reach:
        colour = _COLOURS[target.verdict]
        sign = "≥" if target.is_minimum else "≤"
        table.add_row(
            target.measure,
            f"{sign} {_number(target.limit, 3).rstrip('0').rstrip('.')}",
            _number(target.value, _digits(target.limit)),
            target.unit,
            f"[{colour}]{target.verdict}[/{colour}]",
        )
    return table


def _digits(limit: float) -> int:
    return 3 if limit < 1 else 2 if limit < 100 else 0


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
