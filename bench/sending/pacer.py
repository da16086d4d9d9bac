"""Deals out the turns to send: the one place where the arithmetic of arrivals meets the clock.

A connection that is free takes the next message and waits until it is due. So no message is ever
late while a connection is free, and the waiting line needs no memory: it is the messages that are
due and not yet taken. The line is bounded by the lateness at which they are dropped.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.plan.arrivals import Share

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.plan.arrivals import Pace, Rate

_DROPS_AT_ONCE = 500  # between two chances for the event loop


@dataclass(frozen=True, slots=True)
class Turn:
    """One message to be sent now."""

    number: int
    due: float | None  # on the clock of time.perf_counter; None: the closed model
    has_waited: bool  # it was due before a connection was free
    is_warmup: bool


class Pacer:
    """The turns of one run. Every number is dealt out, or given to `on_drop`, at most once."""

    def __init__(
        self, pace: Pace, on_drop: Callable[[int, bool], None], share: Share | None = None
    ) -> None:
        self.started = 0.0  # on the clock of time.perf_counter
        self._pace = pace
        self._on_drop = on_drop  # called with the number and whether it is of the warm-up
        self._share = share or Share()
        self._position = 0
        self._measured = 0  # dealt out in the closed model, the warm-up's apart
        self._is_stopped = False
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def measured_from(self) -> float:
        """When the measuring begins, on the clock of time.perf_counter."""
        return self.started + self._pace.warmup_seconds

    def start(self) -> None:
        """Let time run from now on."""
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Deal out nothing more."""
        self._is_stopped = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def turn(self) -> Turn | None:
        """Return the next turn as soon as it is due; None when there is none any more."""
        if self._pace.rate is None:
            return self._closed_turn()
        return await self._open_turn(self._pace.rate)

    def _closed_turn(self) -> Turn | None:
        now = time.perf_counter()
        is_warmup = now < self.measured_from
        if self._is_stopped or (not is_warmup and self._is_exhausted(now)):
            return None
        self._measured += not is_warmup
        return Turn(self._next_number(), None, has_waited=False, is_warmup=is_warmup)

    def _is_exhausted(self, now: float) -> bool:
        if self._pace.num_emails is not None:
            return self._measured >= self._share.count(self._pace.num_emails)
        return now >= self.measured_from + (self._pace.duration_seconds or 0.0)

    async def _open_turn(self, rate: Rate) -> Turn | None:
        warmup_count = self._pace.warmup_count or 0
        end = warmup_count + (self._pace.planned or 0)
        drops = 0
        while not self._is_stopped and self._share.number(self._position) < end:
            number = self._next_number()
            due = self.started + rate.due_seconds(number)
            is_warmup = number < warmup_count
            lateness_seconds = time.perf_counter() - due
            if lateness_seconds <= 0:
                await self._until(due)
                if self._is_stopped:
                    return None
                return Turn(number, due, has_waited=False, is_warmup=is_warmup)
            if lateness_seconds <= self._pace.max_lateness_seconds:
                return Turn(number, due, has_waited=True, is_warmup=is_warmup)
            self._on_drop(number, is_warmup)
            drops += 1
            if drops % _DROPS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return None

    def _next_number(self) -> int:
        number = self._share.number(self._position)
        self._position += 1
        return number

    async def _until(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        # A timer may run a little early: it is rounded to the millisecond.
        while not self._is_stopped and (delay := due - time.perf_counter()) > 0:
            future: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(delay, _wake, future)
            self._waiting.add(future)
            try:
                await future
            finally:
                timer.cancel()
                self._waiting.discard(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
