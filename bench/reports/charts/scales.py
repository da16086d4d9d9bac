"""Scales from values to positions, and the round numbers along axes. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)
_SHORT_RANGE = 4.0  # from the lowest to the highest value


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps low…high to start…end, which may descend; values outside are clamped."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    ticks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def from_zero(highest: float, start: float, end: float, most: int = 6) -> Scale:
    """Return a linear scale from 0 to a round number that is at least `highest`."""
    step = _round_step(highest / max(1, most - 1)) if highest > 0 else 1.0
    count = max(1, math.ceil(highest / step - 1e-9))
    ticks = tuple(_tidy(step * number) for number in range(count + 1))
    return Scale(low=0.0, high=ticks[-1], start=start, end=end, ticks=ticks)


def along(highest: float, start: float, end: float, most: int = 8) -> Scale:
    """Return a linear scale from 0 to exactly `highest`, with round numbers between."""
    highest = highest if highest > 0 else 1.0
    ticks = from_zero(highest, start, end, most).ticks
    inside = tuple(tick for tick in ticks if tick <= highest * (1 + 1e-9))
    return Scale(low=0.0, high=highest, start=start, end=end, ticks=inside)


def logarithmic(low: float, high: float, start: float, end: float, most: int = 8) -> Scale:
    """Return a logarithmic scale of low…high, both above 0, with round numbers within it."""
    if high < low * 1.05:  # a single value is placed in the middle
        low, high = low / 1.1, high * 1.1
    ticks = next(
        (found for found in _log_ticks(low, high, most) if 2 <= len(found) <= most),
        (low, high),
    )
    return Scale(low=low, high=high, start=start, end=end, is_log=True, ticks=ticks)


def _log_ticks(low: float, high: float, most: int) -> list[tuple[float, ...]]:
    """Return the possible sets of round numbers, the most informative first."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [
        [_tidy(step * 10.0**decade) for decade in decades for step in steps]
        for steps in ((1, 2, 5), (1,))
    ]
    stride = max(1, math.ceil(len(decades) / most))
    choices.append([_tidy(10.0**decade) for decade in decades if decade % stride == 0])
    step = _round_step((high - low) / max(1, most - 2))
    first = math.ceil(low / step - 1e-9)
    # Even steps suit a short range; in a long one they would crowd at the end.
    place = 0 if high < low * _SHORT_RANGE else len(choices)
    choices.insert(place, [_tidy(step * number) for number in range(first, first + most + 1)])
    return [
        tuple(tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9))
        for ticks in choices
    ]


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))


def _tidy(number: float) -> float:
    return float(f"{number:.12g}")  # 0.3, not 0.30000000000000004
