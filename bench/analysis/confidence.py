"""The ratio between two groups of measurements, with a confidence interval.

The estimate is Hodges and Lehmann's: the median of the ratios of every pair. Its interval is the
one that belongs to the Mann-Whitney test, with that test's exact distribution (Hollander, Wolfe
and Chicken, Nonparametric Statistical Methods, 3rd edition, §4.2 and §4.3; R's
`wilcox.test(conf.int = TRUE)` computes the same on the logarithms).

Why not a bootstrap: benchmark figures are skewed and have outliers, so no distribution can be
assumed, and with three or four runs a bootstrap's intervals are far too narrow. This interval
states its true confidence: three runs a side reach 90 %, no more. It is exact and not random, so
the same documents always give the same answer.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_RUNS = 3  # a side; two would reach a confidence of 67 % at best
WANTED = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio and the bounds it lies within; infinite where a value of the first group is 0."""

    ratio: float
    low: float
    high: float
    confidence: float  # 0 to 1; less than requested if there are too few values


def interval(
    first: Sequence[float], second: Sequence[float], wanted: float = WANTED
) -> Interval | None:
    """Return the factor by which the second group's values exceed the first's; none is below 0.

    None if a group has fewer than `MIN_RUNS` values. Swapping the groups inverts the interval.
    Its confidence is at least the one requested, if the number of values allows it.
    """
    if min(len(first), len(second)) < MIN_RUNS:
        return None
    ratios = sorted(_ratio(one, other) for one in first for other in second)
    cut, confidence = _cut(len(first), len(second), wanted)
    return Interval(
        ratio=_middle(ratios), low=ratios[cut], high=ratios[-1 - cut], confidence=confidence
    )


def reach(first: int, second: int) -> float:
    """Return the highest confidence that groups of these sizes can reach; 0 if too small."""
    if min(first, second) < MIN_RUNS:
        return 0.0
    return 1 - 2 / math.comb(first + second, first)


def runs_needed(wanted: float) -> int:
    """Return how many values a side are needed for this confidence, which is less than 1."""
    count = MIN_RUNS
    while reach(count, count) < wanted:
        count += 1
    return count


def _ratio(one: float, other: float) -> float:
    if one == other:
        return 1.0  # two zeros included
    return other / one if one else math.inf


def _middle(ratios: Sequence[float]) -> float:
    low, high = statistics.median_low(ratios), statistics.median_high(ratios)
    return low if low == high else math.sqrt(low * high) if low else 0.0


def _cut(first: int, second: int, wanted: float) -> tuple[int, float]:
    """Return how many ratios to leave out at each end, and the confidence of what remains."""
    arrangements = math.comb(first + second, first)
    ways = _ways(first, second)
    outside = 2 * ways[0]
    cut = 0
    while outside + 2 * ways[cut + 1] <= (1 - wanted) * arrangements:
        cut += 1
        outside += 2 * ways[cut]
    return cut, max(0.0, 1 - outside / arrangements)


def _ways(first: int, second: int) -> list[int]:
    """Return how many arrangements of two groups have each value of the Mann-Whitney statistic.

    These are the coefficients of the Gaussian binomial: a product of (1 - q^(first+i)) / (1 - q^i).
    """
    ways = [1] + [0] * (first * second)
    for i in range(1, second + 1):
        for k in range(len(ways) - 1, first + i - 1, -1):
            ways[k] -= ways[k - first - i]
        for k in range(i, len(ways)):
            ways[k] += ways[k - i]
    return ways
