"""The times at which messages are due. Pure arithmetic, without a clock.

In the closed model a message starts when a connection is free. In the open model message n is due
when the integral of the rate reaches n, regardless of the messages before it. The rate is constant,
or first rises (or falls) linearly to its final value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_LATENESS_SECONDS = 10.0
# A count of arrivals this close to a whole number is that number: the difference is the rounding
# error of a few multiplications at any rate.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The arrival rate, in messages per second."""

    per_second: float  # more than 0
    ramp_from_per_second: float = 0.0  # only with a ramp
    ramp_seconds: float = 0.0  # 0: none

    def count_before(self, seconds: float) -> int:
        """Return the number of messages due before this time after the start."""
        return math.ceil(_rounded(self._integral(seconds))) if seconds > 0 else 0

    def due_seconds(self, number: int) -> float:
        """Return the due time of message `number`, counted from 0, after the start."""
        if number == 0:
            return 0.0
        ramped = self._integral(self.ramp_seconds)
        if number >= ramped:
            return self.ramp_seconds + (number - ramped) / self.per_second
        # n = f·t + g·t²/2, solved in the form that keeps precision when g is small.
        first, growth = self.ramp_from_per_second, self._growth
        return 2 * number / (first + math.sqrt(max(0.0, first * first + 2 * growth * number)))

    def at(self, seconds: float) -> float:
        """Return the rate at this time after the start, in messages per second."""
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
    """The amount and the times: closed model without a rate; by count or by duration."""

    num_emails: int | None = None  # exactly one of this and the next is given
    duration_seconds: float | None = None  # from the end of the warm-up
    warmup_seconds: float = 0.0  # messages started or due before that are not measured
    rate: Rate | None = None  # None: the closed model
    max_lateness_seconds: float = MAX_LATENESS_SECONDS  # later messages are dropped

    def __post_init__(self) -> None:
        if (self.num_emails is None) == (self.duration_seconds is None):
            raise ValueError("either a number of messages or a duration")

    @property
    def warmup_count(self) -> int | None:
        """The number of messages in the warm-up; None: as many as the time allows."""
        if not self.warmup_seconds:
            return 0
        return None if self.rate is None else self.rate.count_before(self.warmup_seconds)

    @property
    def planned(self) -> int | None:
        """The number of messages to measure; None: as many as the time allows."""
        if self.num_emails is not None or self.rate is None or self.duration_seconds is None:
            return self.num_emails
        whole = self.rate.count_before(self.warmup_seconds + self.duration_seconds)
        return whole - self.rate.count_before(self.warmup_seconds)

    @property
    def is_empty(self) -> bool:
        """Whether no message is due in the measured time."""
        return self.planned == 0

    @property
    def end_seconds(self) -> float | None:
        """The time after the start when the last message is due; None in a run by count."""
        if self.duration_seconds is None:
            return None
        return self.warmup_seconds + self.duration_seconds

    @property
    def about(self) -> str:
        """A description of the plan."""
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
    """One process's share of the messages: every `of`-th, from `index`.

    Connections are divided likewise. So in the open model a message may wait for a connection of
    its own process while another process has a free one: with few connections per process, some
    messages start later than they would in a single process.
    """

    index: int = 0
    of: int = 1

    def number(self, position: int) -> int:
        """Return the number of our message at this position, counted from 0."""
        return self.index + position * self.of

    def count(self, total: int) -> int:
        """Return the number of our messages out of `total`."""
        return max(0, (total - self.index + self.of - 1) // self.of)


def _rounded(value: float) -> float:
    nearest = round(value)
    return nearest if abs(value - nearest) <= _ROUNDING * max(1.0, abs(value)) else value
