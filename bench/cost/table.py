"""The terminal report of a cost run: a table for each workload, and the goals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bench.cost.figures import ratio
from bench.cost.goals import GoalVerdict
from bench.cost.workloads import Method, RelayName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.cost.figures import CostResults, RelayRow, WorkloadResult
    from bench.cost.goals import Goal

_COLOURS = dict(zip(GoalVerdict, ("green", "red", "dim"), strict=True))
_LEGEND = """CPU time and upstream turns are for one message; the ratios are of CPU time.
×idle and ×trickle: throughput among 500 such clients, to that without them.
"""
# A column: its heading, the number of decimals and the figure; the ratios are computed here.
_TO_SPLICE, _TO_NAIVE = "×splice", "×naive"
_SENDING = (
    ("CPU µs", 0, "cpu_us_per_message"),
    (_TO_SPLICE, 2, "cpu_us_per_message"),
    (_TO_NAIVE, 3, "cpu_us_per_message"),
    ("msg/s", 0, "throughput_per_second"),
    ("p50 ms", 1, "p50_ms"),
    ("p99 ms", 1, "p99_ms"),
)
_CROWDED = ("×idle", 2, "idle_crowd_ratio"), ("×trickle", 2, "trickling_crowd_ratio")
_COLUMNS = {
    Method.STREAM: (*_SENDING, ("peak MiB", 1, "peak_mib"), ("turns", 2, "turns_per_message")),
    Method.IDLE: (
        ("idle clients", 0, "idle_clients"),
        ("KiB/client", 1, "kib_per_idle_client"),
        ("resident MiB", 1, "rss_mib"),
        ("peak MiB", 1, "peak_mib"),
    ),
    Method.CROWD: (*_SENDING, *_CROWDED),
}


def show(console: Console, results: CostResults, goals: Sequence[Goal]) -> None:
    """Print the report."""
    console.print(_LEGEND)
    for one in results.measured:
        repeats = max((len(row.repeats) for row in one.rows), default=0)
        heading = f"{one.workload.name}: {one.workload.title} (medians of {repeats})"
        console.print(heading, style="bold", soft_wrap=True)
        console.print(_workload(one))
        for row in one.rows:
            if row.error or row.skipped:
                console.print(f"  {row.relay}: {escape(row.error or row.skipped)}")
        console.print()
    console.print("Goals", style="bold")
    console.print(_goals(goals))


def _workload(one: WorkloadResult) -> Table:
    table = _table("relay", *(head for head, _, _ in _COLUMNS[one.workload.method]))
    for row in one.rows:
        if row.error or row.skipped:
            table.add_row(row.relay, "[red]error[/red]" if row.error else "skipped")
        else:
            table.add_row(row.relay, *_cells(one, row))
    return table


def _cells(one: WorkloadResult, row: RelayRow) -> list[str]:
    bases = {_TO_SPLICE: one.median(RelayName.SPLICE), _TO_NAIVE: one.median(RelayName.NAIVE)}
    cells = []
    for head, digits, name in _COLUMNS[one.workload.method]:
        figure = getattr(row.medians, name)
        if head in bases:
            figure = ratio(figure, bases[head].cpu_us_per_message)
        cells.append(_number(figure, digits))
    return cells


def _goals(goals: Sequence[Goal]) -> Table:
    table = _table("measure", "goal", "measured")
    table.add_column("")
    table.add_column("verdict")
    for goal in goals:
        limit = _number(goal.limit, 3).rstrip("0").rstrip(".")
        table.add_row(
            goal.measure,
            f"{'≥' if goal.is_minimum else '≤'} {limit}",
            _number(goal.value, 3 if goal.limit < 1 else 2 if goal.limit < 100 else 0),
            goal.unit,
            f"[{_COLOURS[goal.verdict]}]{goal.verdict}[/]",
        )
    return table


def _table(first: str, *heads: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
