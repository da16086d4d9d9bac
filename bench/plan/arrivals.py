"""When to send: pure arithmetic, no clock and no waiting.

In the closed model a message begins when a connection is free. In the open model message n is due
at a time of its own, whatever became of those before: the moment at which the integral of the rate
reaches n. The rate is constant, or climbs (falls) evenly to it over a first stretch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_LATENESS_SECONDS = 10.0
# Below this difference from a whole number a count of arrivals is that number: what is lost is the
# rounding of a few multiplications, whatever the rate.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many messages are due a second."""

    per_second: float  # more than 0
    ramp_from_per_second: float = 0.0  # only with a ramp
    ramp_seconds: float = 0.0  # 0: none

    def count_before(self, seconds: float) -> int:
        """Return how many messages are due before this time from the start."""
        return math.ceil(_rounded(self._integral(seconds))) if seconds > 0 else 0

    def due_seconds(self, number: int) -> float:
        """Return when message `number`, from 0, is due, from the start."""
        if number == 0:
            return 0.0
        ramped = self._integral(self.ramp_seconds)
        if number >= ramped:
            return self.ramp_seconds + (number - ramped) / self.per_second
        # n = f·t + g·t²/2, solved in the form that loses nothing when g is small.
        first, growth = self.ramp_from_per_second, self._growth
        return 2 * number / (first + math.sqrt(max(0.0, first * first + 2 * growth * number)))

    def at(self, seconds: float) -> float:
        """Return the rate at this time from the start, in messages a second."""
        if seconds >= self.ramp_seconds:
            return self.per_second
        return self.ramp_from_per_second + self._growth * seconds

    @property
    def _growth(self) -> float:
        return (self.per_second - self.ramp_from_per_second) / self.ramp_seconds

    def _integral(self, seconds: float) -> float:
        within = min(seconds, self.ramp_seconds)
        mean = (self.ramp_from_per_second + self.at(within)) / 2 if within > 0 else 0.0
        return mean * within + self.per_second * (seconds - within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much is sent and when: closed without a rate; by count, or else for a time."""

    num_emails: int | None = None  # exactly one of this and the next is given
    duration_seconds: float | None = None  # from the end of the warm-up
    warmup_seconds: float = 0.0  # what begins, or is due, before that is not measured
    rate: Rate | None = None  # None: the closed model
    max_lateness_seconds: float = MAX_LATENESS_SECONDS  # a message later than that is dropped

    def __post_init__(self) -> None:
        if (self.num_emails is None) == (self.duration_seconds is None):
            raise ValueError("either a number of messages or a duration")

    @property
    def warmup_count(self) -> int | None:
        """How many messages the warm-up has; None: as many as the time allows."""
        if not self.warmup_seconds:
            return 0
        return None if self.rate is None else self.rate.count_before(self.warmup_seconds)

    @property
    def planned(self) -> int | None:
        """How many messages are to be measured; None: as many as the time allows."""
        if self.num_emails is not None or self.rate is None or self.duration_seconds is None:
            return self.num_emails
        whole = self.rate.count_before(self.warmup_seconds + self.duration_seconds)
        return whole - self.rate.count_before(self.warmup_seconds)

    @property
    def is_empty(self) -> bool:
        """Whether not one message is due in what is measured."""
        return self.planned == 0

    @property
    def end_seconds(self) -> float | None:
        """When nothing more becomes due, from the start; None: by count, whenever that is."""
        if self.duration_seconds is None:
            return None
        return self.warmup_seconds + self.duration_seconds

    @property
    def about(self) -> str:
        """What is planned, in words."""
        what = (
            f"{self.num_emails} messages"
            if self.num_emails is not None
            else f"messages for {self.duration_seconds:g} s"
        )
        if self.rate is not None:
            what += f", {self.rate.per_second:g} a second,"
        return what


@dataclass(frozen=True, slots=True)
class ProcessShare:
    """Which messages are ours: every `of`-th, from `index`; several processes divide a run so.

    Connections are divided likewise. So in the open model a message may wait for a connection of
    its own process while one of another process is free: with few connections for each process,
    some messages begin later than they would in a single one.
    """

    index: int = 0
    of: int = 1

    def number(self, position: int) -> int:
        """Return the number of our message at this position, from 0."""
        return self.index + position * self.of

    def count(self, total: int) -> int:
        """Return how many of `total` messages are ours."""
        return max(0, (total - self.index + self.of - 1) // self.of)


def _rounded(value: float) -> float:
    nearest = round(value)
    return nearest if abs(value - nearest) <= _ROUNDING * max(1.0, abs(value)) else value
