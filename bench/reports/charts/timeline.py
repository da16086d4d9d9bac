"""Charts over the time of a run: throughput and latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.reports import formatting
from bench.reports.charts.drawing import Drawing, both_sizes, steps
from bench.reports.charts.scales import Scale, along, from_zero, logarithmic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

_WIDE_RANGE = 20  # above this, the worst latency would hide the usual one on a linear axis
_STRIP = 16  # units of height for a row of marks
_STRIP_GAP = 8  # above the first one
_TITLE_ROW = 18  # units of height for an axis's title above the frame
_LEAST_MARK = 2.0  # units: one failure among a million stays visible


@dataclass(frozen=True, slots=True)
class ChartBin:
    """An interval of the run: messages per second and their latency."""

    start_seconds: float
    end_seconds: float
    successful: int
    failed: int
    dropped: int
    p50_seconds: float | None
    p95_seconds: float | None

    def rate(self, count: int) -> float:
        """Return a count as a rate per second."""
        return count / (self.end_seconds - self.start_seconds)


def bins(results: Mapping[str, Any]) -> list[ChartBin]:
    """Return the intervals of a run's timeline; the last one ends with the run.

    A shorter last interval is merged with the one before it; alone it would show a random moment
    as a rate.
    """
    width = results["timeline"]["bin_seconds"]
    rows = results["timeline"]["bins"]
    found = [
        ChartBin(
            row["start_seconds"],
            row["start_seconds"] + width,
            row["successful"],
            row["failed"],
            row["dropped"],
            row["p50_seconds"],
            row["p95_seconds"],
        )
        for row in rows
    ]
    if not found:
        return []
    last, end = found[-1], results["total_time_seconds"]
    if not last.start_seconds < end < last.end_seconds:
        return found
    if len(found) == 1:
        found[-1] = _until(last, end)
    else:
        found[-2:] = [_joined(found[-2], last, end)]
    return found


def throughput(stretches: Sequence[ChartBin]) -> Markup:
    """Return the chart of successes per second, with marks for failed or dropped messages."""
    highest = max((one.rate(one.successful + one.failed) for one in stretches), default=0.0)
    rows = [
        (name, marked)
        for name in ("failed", "dropped")
        if (marked := [one for one in stretches if getattr(one, name)])
    ]

    def draw(width: int) -> Markup:
        below = _STRIP_GAP + _STRIP * len(rows) if rows else 0
        sheet = Drawing(width, 250 + below, left=62, bottom=40 + below)
        x = _time_axis(sheet, stretches, below)
        y = from_zero(highest, sheet.bottom, sheet.top)
        sheet.y_axis(y, formatting.plain)
        succeeded = _staircase(stretches, "successful", x, y)
        sheet.area(succeeded, sheet.bottom, "fill-ok")
        sheet.path(succeeded, "line-ok")
        for number, (name, marked) in enumerate(rows):
            if name == "failed":
                sheet.path(_staircase(stretches, name, x, y), "line-failed")
            _strip(sheet, number, name, marked, x)
        return sheet.svg("throughput", "Messages a second over time", _spoken(stretches))

    return both_sizes(draw)


def latency(stretches: Sequence[ChartBin]) -> Markup:
    """Return the chart of p50 and p95 of each interval with a success."""
    known = [
        value
        for one in stretches
        for value in (one.p50_seconds, one.p95_seconds)
        if value is not None and value > 0
    ]
    least, highest = min(known, default=0.001), max(known, default=0.001)
    is_log = highest > least * _WIDE_RANGE
    axis = "logarithmic" if is_log else "linear, from 0"

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 258, left=62)
        sheet.top += _TITLE_ROW
        x = _time_axis(sheet, stretches)
        y = (
            logarithmic(least, highest * 1.05, sheet.bottom, sheet.top)
            if is_log
            else from_zero(highest, sheet.bottom, sheet.top)
        )
        sheet.y_axis(y, formatting.tick)
        sheet.text(4, 11, f"latency, axis {axis}", "axis-title")
        for name, kind in (("p95_seconds", "line-p95"), ("p50_seconds", "line-p50")):
            for points in _unbroken(stretches, name, x, y):
                sheet.path(points, kind)
        return sheet.svg(
            "latency",
            "Latency over time",
            f"p50 and p95 of each stretch, between {formatting.duration(least)} and "
            f"{formatting.duration(highest)}; the axis is {axis}.",
        )

    return both_sizes(draw)


def _time_axis(sheet: Drawing, stretches: Sequence[ChartBin], below: float = 0) -> Scale:
    end = stretches[-1].end_seconds if stretches else 1.0
    x = along(end, sheet.left, sheet.right, most=6 if sheet.is_narrow else 10)
    bottom = sheet.bottom
    sheet.bottom = bottom + below
    sheet.x_axis(x, formatting.plain, "seconds since the start")
    sheet.bottom = bottom
    if below:
        sheet.line(sheet.left, bottom, sheet.right, bottom, "axis")
    return x


def _staircase(
    stretches: Sequence[ChartBin], name: str, x: Scale, y: Scale
) -> list[tuple[float, float]]:
    return steps(
        (x(one.start_seconds), x(one.end_seconds), y(one.rate(getattr(one, name))))
        for one in stretches
    )


def _strip(sheet: Drawing, number: int, name: str, marked: Sequence[ChartBin], x: Scale) -> None:
    """Draw a row below the frame with a mark where messages failed or were dropped."""
    top = sheet.bottom + _STRIP_GAP + number * _STRIP
    sheet.text(sheet.left - 7, top + 9, name, at="end")
    for one in marked:
        start, end = x(one.start_seconds), x(one.end_seconds)
        sheet.rect(start, top, max(_LEAST_MARK, end - start - 0.5), 9, f"mark-{name}")


def _unbroken(
    stretches: Sequence[ChartBin], name: str, x: Scale, y: Scale
) -> list[list[tuple[float, float]]]:
    """Return the points of each unbroken series of intervals with a value."""
    lines: list[list[tuple[float, float]]] = [[]]
    for one in stretches:
        value = getattr(one, name)
        if value is None:
            lines.append([])
        else:
            lines[-1].append((x((one.start_seconds + one.end_seconds) / 2), y(value)))
    return [line for line in lines if line]


def _spoken(stretches: Sequence[ChartBin]) -> str:
    rates = [one.rate(one.successful) for one in stretches]
    failed = sum(one.failed for one in stretches)
    dropped = sum(one.dropped for one in stretches)
    if not rates:
        return "Nothing was measured."
    return (
        f"{len(rates)} intervals with {formatting.rate(min(rates))} to "
        f"{formatting.rate(max(rates))} successful messages a second; "
        f"{formatting.count(failed)} failed and {formatting.count(dropped)} dropped in all."
    )


def _until(one: ChartBin, end: float) -> ChartBin:
    return ChartBin(
        one.start_seconds, end, one.successful, one.failed, one.dropped,
        one.p50_seconds, one.p95_seconds,
    )  # fmt: skip


def _joined(one: ChartBin, last: ChartBin, end: float) -> ChartBin:
    # The percentiles of the longer interval represent both.
    return ChartBin(
        one.start_seconds, end, one.successful + last.successful, one.failed + last.failed,
        one.dropped + last.dropped, one.p50_seconds or last.p50_seconds,
        one.p95_seconds or last.p95_seconds,
    )  # fmt: skip
