"""The terminal of a person who signs in: what is printed, what they type, and their browser."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from xoauth2_proxy.commands.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_LINE = 16_384  # characters; Microsoft's codes alone have 1,500


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
