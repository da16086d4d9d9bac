"""The person at the terminal: what is said to them, what they type, what their machine can show."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from xoauth2_proxy.commands.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_LINE = 16_384  # characters; Microsoft's codes alone have 1,500


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Streams and surroundings of one run of a command."""

    output: TextIO
    errors: TextIO
    input: TextIO
    environ: Mapping[str, str] = field(repr=False)
    open_browser: Callable[[str], bool]  # as `webbrowser.open`
    invocation: Invocation = Invocation()  # noqa: RUF009 - it is immutable

    def say(self, text: str = "") -> None:
        """Write a line, at once and unbroken, so that what it holds can be copied."""
        print(self.invocation.typed(text), file=self.output, flush=True)

    def tell(self, text: str) -> None:
        """Write prose, broken between words where a person looks on."""
        if self.output.isatty():
            columns = shutil.get_terminal_size().columns
            text = textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)
        print(text, file=self.output, flush=True)

    def complain(self, text: str) -> None:
        """Write a line about what went wrong."""
        print(f"xoauth2-proxy: {self.invocation.typed(text)}", file=self.errors, flush=True)

    async def line(self) -> str:
        """Return what the person types next; "" at the end of the input. It may be cancelled."""
        return await _in_background(lambda: self.input.readline(_MAX_LINE))

    def show(self, url: str) -> None:
        """Open a page in the person's browser; not to be waited for, and it may fail."""
        threading.Thread(target=self.open_browser, args=(url,), daemon=True).start()

    @property
    def lacks_browser(self) -> str:
        """Why no browser can be opened here that the person sees; "" if one can."""
        if self.environ.get("BROWSER"):
            return ""
        if self.environ.get("SSH_CONNECTION") or self.environ.get("SSH_TTY"):
            return "this is an SSH session"
        displays = ("DISPLAY", "WAYLAND_DISPLAY")
        if sys.platform not in ("darwin", "win32") and not any(map(self.environ.get, displays)):
            return "this machine has no display"
        return ""


async def _in_background(work: Callable[[], str]) -> str:
    """Return what blocking work returns. A thread that outlives the command does not hold it up."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def finish(text: str, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(text)
        else:
            done.set_exception(error)

    def run() -> None:
        text, error = "", None
        try:
            text = work()
        except Exception as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, text, error)

    threading.Thread(target=run, daemon=True).start()
    return await done
