"""How a run is getting on, on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import rich.progress
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.recorder import Recorder
    from bench.result import Sample

_BAR_SECONDS = 0.1  # between two updates
_LINE_SECONDS = 5.0


class Progress:
    """Tells a person what happens meanwhile; nothing of it when `is_silent`."""

    def __init__(self, *, is_silent: bool = False, is_verbose: bool = False) -> None:
        self._is_silent = is_silent
        self._is_verbose = is_verbose
        self._console = Console(stderr=True, highlight=False)

    def announce(self, line: str) -> None:
        """Say one thing."""
        if not self._is_silent:
            self._console.print(Text(line), soft_wrap=True)

    def on_sample(self, sample: Sample) -> None:
        """Say what failed, when that was asked for."""
        if self._is_verbose and sample.failure is not None:
            self.announce(f"Message {sample.number}: {sample.failure}")

    @asynccontextmanager
    async def following(self, recorder: Recorder) -> AsyncIterator[None]:
        """Show the recorder's counts for as long as the context is entered."""
        if self._is_silent:
            yield
            return
        follower = self._follow_bar if self._console.is_terminal else self._follow_lines
        task = asyncio.create_task(follower(recorder))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _follow_bar(self, recorder: Recorder) -> None:
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[figures]}"),
            rich.progress.TimeElapsedColumn(),
        )
        started = time.perf_counter()
        with rich.progress.Progress(
            *columns, console=self._console, auto_refresh=False, transient=True
        ) as bar:
            task = bar.add_task("Sending", total=recorder.planned, figures="")
            while True:
                settled, figures = _figures(recorder, started)
                bar.update(task, completed=settled, figures=figures, refresh=True)
                await asyncio.sleep(_BAR_SECONDS)

    async def _follow_lines(self, recorder: Recorder) -> None:
        started = time.perf_counter()
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            settled, figures = _figures(recorder, started)
            self.announce(f"{settled} of {recorder.planned}: {figures}")


def _figures(recorder: Recorder, started: float) -> tuple[int, str]:
    settled = recorder.succeeded + recorder.failed
    seconds = time.perf_counter() - started
    rate = recorder.succeeded / seconds if seconds > 0 else 0.0
    return settled, f"{rate:.1f}/s, {recorder.succeeded} ok, {recorder.failed} failed"
