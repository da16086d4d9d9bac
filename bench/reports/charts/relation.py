"""Charts of several runs: the curve of a sweep, and the changes and runs of a comparison."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.reports import formatting
from bench.reports.charts.drawing import Drawing, both_sizes
from bench.reports.charts.scales import along, from_zero, logarithmic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from bench.reports.charts.scales import Scale

_ROW = 38  # units of height: a line of text and its mark
_PANEL = 170  # units of height of one of two charts with a common axis
_LEAST_SPAN = 0.05  # of a change: a smaller span would exaggerate noise
_TITLE_WIDTH = 96  # units, of "p95 latency"
_MULTIPLIED = 8  # the least ratio of the last step to the first
_ARROW = 12  # units from a mark to the tip of the arrow beside it
_MOST_SPAN = 10.0  # times: larger changes are drawn at the edge


def curve(
    loads: Sequence[float],
    throughputs: Sequence[float | None],
    latencies: Sequence[float | None],
    knee: float | None,
    title: str,
) -> Markup:
    """Return the charts of throughput and p95 over the load, one above the other."""

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 2 * _PANEL + 66, left=62)
        x = _load_axis(loads, sheet)
        bottom = sheet.bottom
        _panel(sheet, 12, x, (loads, throughputs), formatting.plain, "throughput a second", "ok")
        _panel(sheet, _PANEL + 22, x, (loads, latencies), formatting.tick, "p95 latency", "p95")
        sheet.bottom = bottom
        sheet.x_axis(x, formatting.plain, title)
        if knee is not None:
            sheet.line(x(knee), 38, x(knee), bottom, "knee")
            is_left = x(knee) > sheet.width * 0.7
            place = x(knee) - 6 if is_left else max(x(knee) + 6, _TITLE_WIDTH)
            sheet.text(
                place,
                _PANEL + 30,
                f"knee at {formatting.plain(knee)}",
                at="end" if is_left else "start",
            )
        return sheet.svg(
            "curve",
            "Throughput and p95 latency against the load",
            f"{len(loads)} steps. "
            + (
                "No knee was found."
                if knee is None
                else f"The knee is at {formatting.plain(knee)}."
            ),
        )

    return both_sizes(draw)


def _load_axis(loads: Sequence[float], sheet: Drawing) -> Scale:
    """Return a scale with a number for each step; logarithmic if the steps multiply."""
    low, high = min(loads, default=1.0), max(loads, default=1.0)
    if low <= 0 or high < low * _MULTIPLIED:
        return along(high * 1.05, sheet.left, sheet.right, most=6)
    scale = logarithmic(low / 1.1, high * 1.1, sheet.left, sheet.right)
    return replace(scale, ticks=tuple(loads))


def _panel(
    sheet: Drawing,
    top: float,
    x: Scale,
    values: tuple[Sequence[float], Sequence[float | None]],
    label: Callable[[float], str],
    *words_and_kind: str,
) -> None:
    title, kind = words_and_kind
    sheet.top, sheet.bottom = top + 26, top + _PANEL - 14
    known = [(load, value) for load, value in zip(*values, strict=True) if value is not None]
    y = from_zero(max((value for _, value in known), default=1.0), sheet.bottom, sheet.top, most=5)
    sheet.y_axis(y, label)
    sheet.text(4, top + 8, title, "name")
    points = [(x(load), y(value)) for load, value in known]
    sheet.path(points, f"line-{kind}")
    for point in points:
        if kind == "ok":
            sheet.dot(*point, kind="dot-ok")
        else:
            sheet.square(*point, kind="dot-p95")


def forest(figures: Sequence[Mapping[str, Any]]) -> Markup:
    """Return the chart of each change with its interval; a ring if there is no interval.

    Values outside the chart, such as a change to 0, are drawn at its edge with an arrow; a figure
    that a side does not have is listed without a mark.
    """
    rows = list(figures)
    bounds = [1.0]
    for row in rows:
        interval = row["interval"] or {}
        factors = (_factor(row), interval.get("low"), interval.get("high"))
        bounds += [factor for factor in factors if factor and factor < math.inf]
    high = min(_MOST_SPAN, max(*bounds, 1 + _LEAST_SPAN))
    low = max(1 / _MOST_SPAN, min(*bounds, 1 / (1 + _LEAST_SPAN)))

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 12 + _ROW * len(rows) + 40, left=4)
        margin = (high / low) ** 0.06
        most = 7 if sheet.is_narrow else 11
        x = logarithmic(low / margin, high * margin, sheet.left + 14, sheet.right - 8, most)
        sheet.line(x(1), 8, x(1), sheet.bottom, "zero")
        for number, row in enumerate(rows):
            _whisker(sheet, 12.0 + number * _ROW, row, x)
        sheet.x_axis(x, formatting.change_tick, "change against the baseline, axis logarithmic")
        spoken = "; ".join(f"{row['title']}: {row['verdict']}" for row in rows)
        return sheet.svg("forest", "Changes and their intervals", f"{spoken}.")

    return both_sizes(draw)


def _factor(row: Mapping[str, Any]) -> float | None:
    """Return a figure's change as a factor, 0 to infinity; None if a side does not have it."""
    before, after = row["baseline"]["median"], row["candidate"]["median"]
    if before is None or after is None:
        return None
    if row["change"] is not None:
        return 1 + float(row["change"])
    # Not a finite number: the baseline is 0.
    return math.inf if after else 1.0


def _whisker(sheet: Drawing, top: float, row: Mapping[str, Any], x: Scale) -> None:
    middle, factor = top + 22, _factor(row)
    sheet.text(sheet.left, top + 8, row["title"], "name")
    sheet.line(sheet.left, middle, sheet.right, middle, "grid")
    if factor is None:
        sheet.text(sheet.right, top + 8, "not drawable: a side does not have it", at="end")
        return
    change = "∞" if factor == math.inf else formatting.change(factor - 1)
    sheet.text(sheet.right, top + 8, f"{change}, {row['verdict']}", at="end")
    interval = row["interval"]
    if interval is not None:
        low, high = (
            math.inf if interval[bound] is None else interval[bound] for bound in ("low", "high")
        )
        sheet.line(x(low), middle, x(high), middle, "whisker")
        for bound in (low, high):
            sheet.line(x(bound), middle - 5, x(bound), middle + 5, "whisker")
    sheet.dot(x(factor), middle, "ring" if interval is None else "dot-ok", radius=4.5)
    if not x.low <= factor <= x.high:
        _arrow(sheet, x(factor), middle, -1 if factor < x.low else 1)


def _arrow(sheet: Drawing, place: float, middle: float, way: int) -> None:
    """Draw an arrowhead, which shows that the value lies beyond the edge."""
    tip = place + way * _ARROW
    sheet.line(place + way * 6, middle - 5, tip, middle, "median")
    sheet.line(place + way * 6, middle + 5, tip, middle, "median")


def dots(name: str, row: Mapping[str, Any], label: Callable[[float], str], spoken: str) -> Markup:
    """Return the chart of one figure of every run, baseline above candidate, medians as bars."""
    sides = ("baseline", "candidate")
    known = {side: [one for one in row[side]["runs"] if one is not None] for side in sides}
    highest = max((one for values in known.values() for one in values), default=1.0)

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 8 + 30 * len(sides) + 26, left=80, bottom=26)
        x = from_zero(highest, sheet.left, sheet.right - 12, most=5 if sheet.is_narrow else 8)
        for number, side in enumerate(sides):
            middle = 20.0 + number * 30
            sheet.text(4, middle + 4, side, "name")
            sheet.line(sheet.left, middle, sheet.right, middle, "grid")
            for value in known[side]:
                if number:
                    sheet.square(x(value), middle, "dot-p95")
                else:
                    sheet.dot(x(value), middle, "dot-ok")
            median = row[side]["median"]
            if median is not None:
                sheet.line(x(median), middle - 10, x(median), middle + 10, "median")
        sheet.x_axis(x, label, "")
        return sheet.svg(f"dots-{name}", f"{row['title']} of every run", spoken)

    return both_sizes(draw)
