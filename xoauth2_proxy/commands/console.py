"""Prints a command's answer and complaints, and reads what a person types who signs in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

import rich.console
from rich.text import Text

from xoauth2_proxy.commands.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_MAX_LINE = 16_384  # characters; Microsoft's codes alone have 1,500
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal(Console):
    """A console at which a person types, on a machine that may have a browser."""

    input: TextIO
    environ: Mapping[str, str] = field(repr=False)
    open_browser: Callable[[str], bool]  # as `webbrowser.open`

    async def line(self) -> str:
        """Return what the person types next; "" at the end of the input. It may be cancelled."""
        line: Future[str] = Future()
        line.set_running_or_notify_cancel()

        def read() -> None:
            try:
                line.set_result(self.input.readline(_MAX_LINE))
            except Exception as error:
                line.set_exception(error)

        # A daemon: the command does not wait for it to end.
        threading.Thread(target=read, daemon=True).start()
        return await asyncio.wrap_future(line)

    def show(self, url: str) -> None:
        """Start to open a page in the person's browser, which may fail."""
        threading.Thread(target=self.open_browser, args=(url,), daemon=True).start()

    @property
    def lacks_browser(self) -> str:
        """Why the person would see no browser that is opened here; "" if they would."""
        if self.environ.get("BROWSER"):
            return ""
        if self.environ.get("SSH_CONNECTION") or self.environ.get("SSH_TTY"):
            return "this is an SSH session"
        displays = ("DISPLAY", "WAYLAND_DISPLAY")
        if sys.platform not in ("darwin", "win32") and not any(map(self.environ.get, displays)):
            return "this machine has no display"
        return ""


def span(seconds: float) -> str:
    """Return a length of time in its largest unit: 40 s, 5 min, 3 h, 12 d."""
    seconds = max(0.0, seconds)
    for unit, length, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds // 86_400)} d"
