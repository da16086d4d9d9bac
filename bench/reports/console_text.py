"""Sentences on a screen: whole words in each line, and nothing that could command a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from bench.reports import formatting

if TYPE_CHECKING:
    from rich.console import Console


def print_sentence(console: Console, text: str, style: str = "") -> None:
    """Print a sentence: on a terminal in lines that end between words, elsewhere in one line."""
    console.print(Text(formatting.harmless(text), style), soft_wrap=not console.is_terminal)
