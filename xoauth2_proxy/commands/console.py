"""Prints a command's answer, and its complaints on standard error."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import rich.console
from rich.text import Text

from xoauth2_proxy.commands.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIPED_COLUMNS = 200  # in a pipe, lines stay whole for grep


@dataclass(frozen=True, slots=True)
class Console:
    """Where a command prints: standard output and standard error, as a rule."""

    out: rich.console.Console
    err: rich.console.Console
    invocation: Invocation = Invocation()  # noqa: RUF009 - it is immutable

    @classmethod
    def of_process(cls, invocation: Invocation) -> Console:
        """Return the process's own standard output and standard error."""
        is_unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        out = rich.console.Console(width=_PIPED_COLUMNS if is_unknown else None)
        return cls(out, rich.console.Console(stderr=True), invocation)

    def say(self, text: str, style: str = "") -> None:
        """Print a line as it is, unbroken: brackets are no markup, and commands can be copied."""
        self.out.print(Text(self.invocation.typed(text), style=style), soft_wrap=True)

    def tell(self, text: str, indent: int = 0, first: Iterable[tuple[str, str]] = ()) -> None:
        """Print prose, broken between words, to the right of `first`: texts and their styles."""
        line = Text.assemble(*first)
        line.pad_right(max(0, indent - line.cell_len))
        lines = textwrap.wrap(
            text,
            max(20, self.out.width - indent),
            break_long_words=False,
            break_on_hyphens=False,
        )
        line.append(f"\n{' ' * indent}".join(lines))
        line.rstrip()
        self.out.print(line, soft_wrap=True)

    def can_show(self, text: str) -> bool:
        """Return whether the output's encoding has these characters."""
        try:
            text.encode(self.out.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def show_json(self, document: object) -> None:
        """Print a document for programs, whatever the output's encoding is."""
        is_ascii = not self.can_show("ü")
        self.out.file.write(json.dumps(document, indent=2, ensure_ascii=is_ascii) + "\n")

    def complain(self, text: str) -> None:
        """Print what is wrong on standard error."""
        self.err.print(Text(f"xoauth2-proxy: {self.invocation.typed(text)}"), soft_wrap=True)
