"""The comparison as a terminal report: a row for each figure, then the warnings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from bench.reports import formatting
from bench.reports.console_text import print_sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

_PERCENT = "\N{NO-BREAK SPACE}%"
# The column's heading, by whether it is the change of the pairs.
CHANGE = {True: "Pairs' change", False: "Change"}
_COLOURS = {"better": "green", "worse": "bold red", "better and worse": "yellow"}


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Print a document of kind `comparison`; its text is never interpreted as markup."""
    for one in document["differs"]:
        print_sentence(console, f"Differs: {one}")
    for warning in document["warnings"]:
        print_sentence(console, f"Beware: {warning}", "yellow")
    if document["differs"] or document["warnings"]:
        console.print()
    print_sentence(
        console,
        f"{len(document['baseline'])} baseline against {len(document['candidate'])} candidate "
        f"runs: medians; the change, its interval{sureness(document)}, and what each figure shows "
        "by itself",
    )
    console.print(_table(document))
    for note in notes(document):
        print_sentence(console, note)
    verdict, reservation = document["verdict"], document["reservation"]
    doubt = ", with a reservation" if reservation else ""
    print_sentence(console, f"Verdict: {verdict}{doubt}", _COLOURS.get(verdict, ""))
    print_sentence(console, f"{document['reason']} {reservation or ''}".rstrip())


def notes(document: Mapping[str, Any]) -> list[str]:
    """Return the notes that explain the table."""
    titles = ", ".join(row["title"] for row in document["figures"] if row["decides"])
    decided = (
        f"What decides, together: {titles} (marked *), and mail lost, doubled or changed on one "
        "side only. Each of the others is judged by itself: of several, one may differ by chance."
    )
    if all(row["change_of"] == "medians" for row in document["figures"]):
        return [decided]
    return [
        "The change is the median over every pair of a baseline and a candidate run "
        f"({document['method']['estimate']}): it need not be that of the two medians beside it, "
        "and where runs scatter it may even point the other way.",
        decided,
    ]


def sureness(document: Mapping[str, Any]) -> str:
    """Return the intervals' confidence, to follow the word "interval"; "" without intervals."""
    least = min(
        (row["interval"]["confidence"] for row in document["figures"] if row["interval"]),
        default=None,
    )
    # Rounded down: 95 % is shown only if it is reached.
    return "" if least is None else f" at {math.floor(least * 100 + 1e-9)} % confidence"


def bounds(row: Mapping[str, Any]) -> str:
    """Return the interval of a row, as relative changes."""
    interval = row["interval"]
    if interval is None:
        return formatting.NOTHING
    low, high = (
        "∞" if bound is None else formatting.change(bound - 1)
        for bound in (interval["low"], interval["high"])
    )
    return f"{low.removesuffix(_PERCENT)}…{high}"


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    of_pairs = any(row["change_of"] == "pairs" for row in document["figures"])
    for head in ("baseline", "candidate", CHANGE[of_pairs].lower(), "interval"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("by itself")
    for row in document["figures"]:
        table.add_row(
            f"{row['title']}{' *' if row['decides'] else ''}",
            formatting.in_unit(row["baseline"]["median"], row["unit"]),
            formatting.in_unit(row["candidate"]["median"], row["unit"]),
            formatting.change(row["change"]),
            bounds(row),
            _verdict(row["verdict"], is_coloured=row["decides"]),
        )
    for row in document["counts"]:
        table.add_row(
            f"{row['name'].capitalize()} *",
            formatting.count(row["baseline"]),
            formatting.count(row["candidate"]),
            formatting.NOTHING,
            formatting.NOTHING,
            _verdict(row["verdict"], is_coloured=True),
        )
    return table


def _verdict(verdict: str, *, is_coloured: bool) -> Text:
    shown = "nothing shown" if verdict == "no difference shown" else verdict  # 80 columns
    return Text(shown, _COLOURS.get(verdict, "") if is_coloured else "")
