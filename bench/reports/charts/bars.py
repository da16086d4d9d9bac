"""Bar charts: the duration of each phase, and the number of errors of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.reports import formatting
from bench.reports.charts.drawing import Drawing, both_sizes
from bench.reports.charts.scales import along

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

_ROW = 40  # units of height: a line of text and a bar
_MOST_ERRORS = 12  # bars; the table lists all
_MOST_LETTERS = 34  # of an error's name in the chart


def phases(results: Mapping[str, Any], *, without: str = "not measured") -> Markup:
    """Return the chart of p50 and p95 of connecting, logging in and the transaction.

    `without` is the text shown if neither connecting nor logging in was measured.
    """
    rows = [
        (title, results["phases"][name])
        for title, name in (
            ("Connect", "connect"),
            ("Log in", "auth"),
            ("Transaction", "transaction"),
        )
    ]
    longest = max((phase["p95_seconds"] or 0.0 for _, phase in rows), default=0.0)

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 12 + _ROW * len(rows) + 40, left=4)
        x = along(longest, sheet.left, sheet.right, most=5 if sheet.is_narrow else 8)
        for number, (title, phase) in enumerate(rows):
            top = 12.0 + number * _ROW
            p50, p95 = phase["p50_seconds"], phase["p95_seconds"]
            sheet.text(sheet.left, top + 8, title, "name")
            if p50 is None or p95 is None:
                said = "not measured" if title == "Transaction" else without
                sheet.text(sheet.right, top + 8, said, at="end")
                continue
            sheet.text(sheet.right, top + 8, _told(phase), at="end")
            sheet.rect(sheet.left, top + 15, x(p95) - sheet.left, 14, "bar-p95")
            sheet.rect(sheet.left, top + 15, max(1.5, x(p50) - sheet.left), 14, "bar-p50")
        sheet.x_axis(x, formatting.tick, "")
        spoken = "; ".join(f"{title}: {_told(phase)}" for title, phase in rows)
        return sheet.svg("phases", "Where the time goes", f"{spoken}.")

    return both_sizes(draw)


def errors(counted: Sequence[tuple[str, int]]) -> Markup:
    """Return the chart of failed messages by code, the most frequent first."""
    shown = counted[:_MOST_ERRORS]
    highest = max((count for _, count in shown), default=0)

    def draw(width: int) -> Markup:
        sheet = Drawing(width, 8 + _ROW * len(shown), left=4, bottom=0)
        x = along(highest, sheet.left, sheet.right)
        for number, (code, count) in enumerate(shown):
            top = 8.0 + number * _ROW
            sheet.text(sheet.left, top + 8, _short(code), "name")
            sheet.text(sheet.right, top + 8, formatting.count(count), at="end")
            sheet.rect(sheet.left, top + 15, max(1.5, x(count) - sheet.left), 14, "bar-failed")
        spoken = ", ".join(f"{_short(code)}: {formatting.count(count)}" for code, count in shown)
        return sheet.svg("errors", "Failed messages by reply code", spoken)

    return both_sizes(draw)


def _told(phase: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {formatting.figure(phase, name)}" for name in ("p50", "p95"))


def _short(code: str) -> str:
    return code if len(code) <= _MOST_LETTERS else f"{code[: _MOST_LETTERS - 1]}…"
