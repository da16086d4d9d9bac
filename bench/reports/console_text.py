"""Prints sentences with lines broken between words and without control sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from bench.reports import formatting

if TYPE_CHECKING:
    from rich.console import Console


def print_sentence(console: Console, text: str, style: str = "") -> None:
    """Print a sentence, wrapped between words on a terminal, in one line elsewhere."""
    console.print(Text(formatting.harmless(text), style), soft_wrap=not console.is_terminal)
