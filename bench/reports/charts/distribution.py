"""The histogram of latencies: bars over a logarithmic axis, with the percentiles marked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.reports import formatting
from bench.reports.charts.drawing import Drawing, both_sizes, width_of
from bench.reports.charts.scales import from_zero, logarithmic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from bench.reports.charts.scales import Scale

_LEAST_SECONDS = 1e-6  # the recorder's resolution; a logarithm needs more than 0
_LEAST_WIDTH = (
    0.016  # of a value: two buckets of the recorder, to avoid bars that are empty by chance
)
_LEAST_HEIGHT = 1.5  # units: a bar of one message among a million stays visible
_MARKS = (("p50", "p50_seconds"), ("p95", "p95_seconds"), ("p99", "p99_seconds"))
_MARK_ROW = 15  # units of height for a mark's text


def histogram(results: Mapping[str, Any]) -> Markup:
    """Return the histogram of latencies; only axes if no message succeeded."""
    buckets, latency = results["histogram"], results["latency"]

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 270)
        sheet.top += _MARK_ROW * len(_MARKS)
        x = logarithmic(
            max(latency["min_seconds"] or 0.001, _LEAST_SECONDS),
            max(latency["max_seconds"] or 0.001, _LEAST_SECONDS),
            sheet.left,
            sheet.right,
            most=6 if sheet.is_narrow else 12,
        )
        edges, counts = bars(buckets, x, most=24 if sheet.is_narrow else 48)
        y = from_zero(max(counts, default=0), sheet.bottom, sheet.top, most=5)
        sheet.y_axis(y, formatting.plain)
        for left, right, count in zip(edges, edges[1:], counts, strict=False):
            if count:
                height = max(_LEAST_HEIGHT, sheet.bottom - y(count))
                start = x(left)
                sheet.rect(start, sheet.bottom - height, x(right) - start - 1, height, "fill-bar")
        sheet.x_axis(x, formatting.tick, "latency, logarithmic axis")
        _marks(sheet, latency, x)
        return sheet.svg("histogram", "Latency of the successful messages", _spoken(latency))

    return both_sizes(draw)


def bars(
    buckets: Sequence[Mapping[str, Any]], x: Scale, most: int
) -> tuple[list[float], list[int]]:
    """Return the edges of bars of equal width on the scale, and each bar's count."""
    span = math.log(x.high / x.low)
    number = max(1, min(most, math.floor(span / _LEAST_WIDTH)))
    counts = [0] * number
    for bucket in buckets:
        share = math.log(max(bucket["up_to_seconds"], x.low) / x.low) / span
        counts[min(number - 1, int(share * number))] += bucket["count"]
    edges = [x.low * math.exp(span * edge / number) for edge in range(number + 1)]
    return edges, counts


def _marks(sheet: Drawing, latency: Mapping[str, Any], x: Scale) -> None:
    """Draw the percentiles as lines, with their labels stacked above the lines."""
    known = [
        (name, latency[key], 12.0 + row * _MARK_ROW)
        for row, (name, key) in enumerate(_MARKS)
        if latency[key] is not None
    ]
    for name, value, top in known:
        sheet.line(x(value), top - 8, x(value), sheet.bottom, f"mark-{name}")
    for name, value, top in known:
        label, place = f"{name} {formatting.figure(latency, name)}", x(value)
        is_left = place + 6 + width_of(label) > sheet.width
        sheet.text(place + (-5 if is_left else 5), top + 2, label, at="end" if is_left else "start")


def _spoken(latency: Mapping[str, Any]) -> str:
    if not latency["count"]:
        return "No message succeeded."
    parts = ", ".join(f"{name} {formatting.figure(latency, name)}" for name, _ in _MARKS)
    return (
        f"{formatting.count(latency['count'])} messages between "
        f"{formatting.duration(latency['min_seconds'])} and "
        f"{formatting.duration(latency['max_seconds'])}; "
        f"{parts}."
    )
