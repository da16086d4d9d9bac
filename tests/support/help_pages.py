"""Reads the help of a program and of its sub-commands, and of theirs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_COMMANDS = re.compile(r"^Commands:\n((?: .*\n)+)", re.MULTILINE)
# What typer writes for a value to which we give no name of our own.
PYTHON_TYPE = re.compile(r"<(?:str|int|float|bool|file|path|dir\w*|Path|list\[.*|\w+ range)>")


def help_pages(show: Callable[..., str], *command: str) -> Iterator[str]:
    """Yield the help of the command, then that of each command in it."""
    page = show(*command, "--help")
    yield page
    if listed := _COMMANDS.search(page):
        for name in re.findall(r"^  (\S+)", listed[1], re.MULTILINE):
            yield from help_pages(show, *command, name)
