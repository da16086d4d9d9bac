"""Hands out the turns to send: applies the arithmetic of arrivals to the clock.

A free connection takes the next message and waits until it is due. So no message is late while a
connection is free, and the queue needs no memory: it consists of the messages that are due and not
yet taken. The lateness at which they are dropped limits the queue.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.plan.arrivals import ProcessShare

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.plan.arrivals import Pace, Rate

_DROPS_AT_ONCE = 500  # before yielding to the event loop


@dataclass(frozen=True, slots=True)
class Turn:
    """A message to be sent now."""

    number: int
    due: float | None  # on the clock of time.perf_counter; None: the closed model
    has_waited: bool  # it was due before a connection was free
    is_warmup: bool


class Pacer:
    """The turns of a run. Every number is handed out, or passed to `on_drop`, at most once."""

    def __init__(
        self, pace: Pace, on_drop: Callable[[int, bool], None], share: ProcessShare | None = None
    ) -> None:
        self.started = 0.0  # on the clock of time.perf_counter
        self._began = 0.0  # our own start; later than `started` if this process is late
        self._pace = pace
        self._on_drop = on_drop  # called with the number and whether it belongs to the warm-up
        self._share = share or ProcessShare()
        self._position = 0
        self._measured = 0  # handed out in the closed model, without the warm-up
        self._is_stopped = False
        self._reserved: set[int] = set()  # by connections that wait until the message is due
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def measured_from(self) -> float:
        """The start of measurement, on the clock of time.perf_counter."""
        return self.started + self._pace.warmup_seconds

    @property
    def ends(self) -> float | None:
        """The time after which no message is due, on the same clock; None in a run by count."""
        end_seconds = self._pace.end_seconds
        return None if end_seconds is None else self.started + end_seconds

    async def start(self, at: float | None = None) -> None:
        """Start the clock at `at`, common to several processes; without it, now.

        Returns at that time, or at `stop`.
        """
        self.started = self._began = time.perf_counter()
        if at is not None:
            self.started = at
            await self._until(at)
            self._began = time.perf_counter()

    def stop(self) -> None:
        """Hand out no more turns."""
        self._is_stopped = True
        self._wake_all()

    async def turn(self) -> Turn | None:
        """Return the next turn as soon as it is due; None if there are no more."""
        if self._pace.rate is None:
            return self._closed_turn()
        return await self._open_turn(self._pace.rate)

    async def pause(self, seconds: float) -> None:
        """Wait this long before asking for a turn, or until there are no more.

        The caller holds no turn meanwhile; others may take it.
        """
        now = time.perf_counter()
        if self._is_over(now):
            return
        await self._sleep(seconds if self.ends is None else min(seconds, self.ends - now))

    async def drop_rest(self) -> None:
        """Drop the due messages that were not started in time.

        In the closed model, in a run by count and after `stop` there are none.
        """
        if self._is_stopped or self._pace.rate is None or self._pace.end_seconds is None:
            return
        warmup_count = self._pace.warmup_count or 0
        end = warmup_count + (self._pace.planned or 0)
        for number in sorted(self._reserved):
            self._on_drop(number, number < warmup_count)
        self._reserved.clear()
        while self._share.number(self._position) < end:
            number = self._next_number()
            self._on_drop(number, number < warmup_count)
            if self._position % _DROPS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _closed_turn(self) -> Turn | None:
        now = time.perf_counter()
        if self._is_over(now):
            return None
        is_warmup = now < self.measured_from
        self._measured += not is_warmup
        if self._is_over(now):
            self._wake_all()  # paused connections have no turn to wait for
        return Turn(self._next_number(), None, has_waited=False, is_warmup=is_warmup)

    def _is_over(self, now: float) -> bool:
        if self._is_stopped or now < self.measured_from:
            return self._is_stopped
        if self._pace.num_emails is not None:
            return self._measured >= self._share.count(self._pace.num_emails)
        return self.ends is None or now >= self.ends

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
                self._reserved.add(number)
                await self._until(due)
                self._reserved.discard(number)
                if self._is_stopped:
                    return None
                return Turn(number, due, has_waited=False, is_warmup=is_warmup)
            if lateness_seconds <= self._pace.max_lateness_seconds:
                # Messages due before our own start waited for us, not for a connection.
                return Turn(number, due, has_waited=due >= self._began, is_warmup=is_warmup)
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
        # A timer is rounded to the millisecond and may fire a little early.
        while not self._is_stopped and (delay := due - time.perf_counter()) > 0:
            await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, future)
        self._waiting.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._waiting.discard(future)

    def _wake_all(self) -> None:
        for future in self._waiting:
            _wake(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
