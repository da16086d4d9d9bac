"""Shows a run's progress on standard error: a bar on a terminal, else occasional lines."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import rich.progress
from rich.console import Console
from rich.text import Text

from bench.reports import formatting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bench.measurement.recorder import Recorder
    from bench.measurement.sample import Sample
    from bench.plan.arrivals import Pace

_BAR_SECONDS = 0.2  # between two updates
_LINE_SECONDS = 5.0


class Progress:
    """Prints progress; prints nothing if `is_silent`."""

    def __init__(self, *, is_silent: bool = False, is_verbose: bool = False) -> None:
        self._is_silent = is_silent
        self._is_verbose = is_verbose
        self._console = Console(stderr=True, highlight=False)

    def announce(self, text: str, *, even_if_silent: bool = False) -> None:
        """Print a text of one or several lines."""
        if even_if_silent or not self._is_silent:
            with suppress(OSError):  # a closed terminal must not prevent the clean-up
                shown = formatting.harmless(text, keeps_lines=True)
                self._console.print(Text(shown), soft_wrap=True)

    def on_sample(self, sample: Sample) -> None:
        """Print a failure, if that was requested."""
        if self._is_verbose and sample.failure is not None:
            # A server's text must not look like a line of ours.
            self.announce(f"Message {sample.number}: {formatting.harmless(str(sample.failure))}")

    @asynccontextmanager
    async def following(
        self, pace: Pace, recorder: Recorder, measured_seconds: Callable[[], float]
    ) -> AsyncIterator[None]:
        """Show the recorder's figures while the context is entered."""
        if self._is_silent:
            yield
            return
        view = _View(pace, recorder, measured_seconds)
        follower = self._follow_bar if self._console.is_terminal else self._follow_lines
        task = asyncio.create_task(follower(view))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _follow_bar(self, view: _View) -> None:
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(20),
            rich.progress.TextColumn("{task.fields[amount]}"),
            rich.progress.TextColumn("{task.fields[figures]}"),
        )
        with rich.progress.Progress(
            *columns, console=self._console, auto_refresh=False, transient=True
        ) as bar:
            task = bar.add_task("", total=1.0, amount="", figures="")
            while True:
                bar.update(
                    task,
                    description=view.phase,
                    completed=view.share,
                    amount=view.amount,
                    figures=view.figures(),
                    refresh=True,
                )
                await asyncio.sleep(_BAR_SECONDS)

    async def _follow_lines(self, view: _View) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self.announce(f"{view.phase} {view.amount}: {view.figures()}")


class _View:
    """The current figures of a run, as text."""

    def __init__(
        self, pace: Pace, recorder: Recorder, measured_seconds: Callable[[], float]
    ) -> None:
        self._pace = pace
        self._recorder = recorder
        self._measured_seconds = measured_seconds

    @property
    def phase(self) -> str:
        return "Warming up" if self._measured_seconds() < 0 else "Sending"

    @property
    def share(self) -> float:
        planned, duration = self._recorder.planned, self._pace.duration_seconds
        if planned is not None:
            return self._recorder.settled / planned if planned else 1.0
        return max(0.0, self._measured_seconds()) / duration if duration else 0.0

    @property
    def amount(self) -> str:
        if self._measured_seconds() < 0:
            return f"{self._recorder.warmup_requests}"
        planned = self._recorder.planned
        settled = self._recorder.settled
        if planned is not None:
            return f"{settled}/{planned}"
        return f"{settled} in {self._measured_seconds():.0f} of {self._pace.duration_seconds:g} s"

    def figures(self) -> str:
        recorder, seconds = self._recorder, self._measured_seconds()
        achieved = recorder.succeeded / seconds if seconds > 0 else 0.0
        rate = self._pace.rate
        if rate is None:
            words = [f"{achieved:.1f}/s"]
        else:
            due = rate.at(max(0.0, seconds) + self._pace.warmup_seconds)
            words = [f"{achieved:.1f}/s of {due:.1f}/s"]
        p50, p95 = (recorder.latency.quantile_seconds(q) for q in (0.50, 0.95))
        if p50 is not None and p95 is not None:
            words.append(f"p50 {p50 * 1000:.1f} ms, p95 {p95 * 1000:.1f} ms")
        words.append(f"{recorder.succeeded} ok, {recorder.failed} failed")
        words.append(f"{recorder.in_flight} in flight")
        if recorder.dropped:
            words.append(f"{recorder.dropped} dropped")
        return ", ".join(words)
