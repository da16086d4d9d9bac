"""The comparison for a person at a terminal: one row a figure, then what to beware of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from bench.reports import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

_PERCENT = "\N{NO-BREAK SPACE}%"
_COLOURS = {"better": "green", "worse": "bold red", "better and worse": "yellow"}


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Print a document of kind `comparison`; words in it are never taken for markup."""
    console.print(
        f"{len(document['baseline'])} baseline against {len(document['candidate'])} candidate "
        f"runs: medians, the change, and its interval{sureness(document)}",
        soft_wrap=True,
    )
    console.print(_table(document))
    for warning in document["warnings"]:
        console.print(Text(f"Beware: {warning}", "yellow"), soft_wrap=True)
    verdict = document["verdict"]
    console.print(Text(f"Verdict: {verdict}", _COLOURS.get(verdict, "")))


def sureness(document: Mapping[str, Any]) -> str:
    """Return how sure the intervals are, to stand after "interval"; "" when there is none."""
    least = min(
        (row["interval"]["confidence"] for row in document["figures"] if row["interval"]),
        default=None,
    )
    # Rounded down: 95 % is said when it is reached.
    return "" if least is None else f" at {math.floor(least * 100 + 1e-9)} % confidence"


def bounds(row: Mapping[str, Any]) -> str:
    """Return the interval of a row as changes."""
    interval = row["interval"]
    if interval is None:
        return words.NOTHING
    low, high = (
        "∞" if bound is None else words.change(bound - 1)
        for bound in (interval["low"], interval["high"])
    )
    return f"{low.removesuffix(_PERCENT)}…{high}"


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for head in ("baseline", "candidate", "change", "interval"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in document["figures"]:
        table.add_row(
            row["title"],
            words.in_unit(row["baseline"]["median"], row["unit"]),
            words.in_unit(row["candidate"]["median"], row["unit"]),
            words.change(row["change"]),
            bounds(row),
            Text(row["verdict"], _COLOURS.get(row["verdict"], "")),
        )
    for row in document["counts"]:
        table.add_row(
            row["name"].capitalize(),
            words.count(row["baseline"]),
            words.count(row["candidate"]),
            words.NOTHING,
            words.NOTHING,
            Text(row["verdict"], _COLOURS.get(row["verdict"], "")),
        )
    return table
