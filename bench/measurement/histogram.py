"""A histogram of any number of durations in bounded memory."""

from __future__ import annotations

import math
from collections import Counter

from bench.measurement.result import Bucket, Distribution

PRECISION_BITS = 7  # 128 buckets for each power of two: a bucket is < 0.8 % of its value
COARSE_BITS = 5  # 32: < 3.2 %; for pictures
MAX_MICROSECONDS = (1 << 36) - 1  # 19 hours; longer durations count as this long


class Histogram:
    """A log-linear histogram of whole microseconds: at most 3,840 buckets, exact below 256 µs.

    Count, sum, minimum and maximum are exact. `merge` is associative and commutative. Fewer
    `precision_bits` than the default of 7 make fewer and wider buckets.
    """

    __slots__ = ("_bits", "_buckets", "count", "max", "min", "sum")

    def __init__(self, precision_bits: int = PRECISION_BITS) -> None:
        self._bits = precision_bits
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.sum = 0  # microseconds
        self.min = 0  # microseconds; 0 if empty
        self.max = 0  # microseconds; likewise

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]

    def add(self, microseconds: int) -> None:
        """Count one value; a negative value counts as 0."""
        value = min(max(microseconds, 0), MAX_MICROSECONDS)
        self.min = min(self.min, value) if self.count else value
        self.max = max(self.max, value)
        self.count += 1
        self.sum += value
        self._buckets[_bucket(value, self._bits)] += 1

    def add_seconds(self, seconds: float) -> None:
        """Count a duration, rounded to the microsecond."""
        self.add(round(seconds * 1e6))

    def merge(self, other: Histogram) -> Histogram:
        """Return a histogram of the values of both.

        Raises:
            ValueError: their precisions differ.
        """
        if self._bits != other._bits:
            raise ValueError("histograms of different precision")
        merged = Histogram(self._bits)
        merged._buckets = self._buckets + other._buckets
        merged.count = self.count + other.count
        merged.sum = self.sum + other.sum
        merged.min = min((h.min for h in (self, other) if h.count), default=0)
        merged.max = max(self.max, other.max)
        return merged

    def quantile(self, q: float) -> int:
        """Return the value of rank ⌈q·count⌉ in microseconds, rounded up by at most 1 %.

        Raises:
            ValueError: the histogram is empty, or `q` is not between 0 and 1.
        """
        if not self.count or not 0 <= q <= 1:
            raise ValueError("no such quantile")
        rank = max(1, math.ceil(round(q * self.count, 6)))  # 0.07 * 100 is a little more than 7
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return max(self.min, min(_upper_bound(bucket, self._bits), self.max))
        raise AssertionError("the buckets hold fewer values than were counted")

    def quantile_seconds(self, q: float) -> float | None:
        """Return the same in seconds; None if the histogram is empty."""
        return self.quantile(q) / 1e6 if self.count else None

    def snapshot(self) -> Distribution:
        """Return the distribution in seconds."""
        if not self.count:
            return Distribution(count=0)
        return Distribution(
            count=self.count,
            min_seconds=self.min / 1e6,
            max_seconds=self.max / 1e6,
            avg_seconds=self.sum / self.count / 1e6,
            p50_seconds=self.quantile(0.50) / 1e6,
            p90_seconds=self.quantile(0.90) / 1e6,
            p95_seconds=self.quantile(0.95) / 1e6,
            p99_seconds=self.quantile(0.99) / 1e6,
            p999_seconds=self.quantile(0.999) / 1e6,
        )

    def coarse(self) -> tuple[Bucket, ...]:
        """Return the non-empty buckets, ascending, each < 3.2 % of its value wide."""
        counts: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            counts[_bucket(_upper_bound(bucket, self._bits), COARSE_BITS)] += count
        return tuple(
            Bucket(_upper_bound(bucket, COARSE_BITS) / 1e6, counts[bucket])
            for bucket in sorted(counts)
        )

    def _state(self) -> tuple[object, ...]:
        return (self._bits, self.count, self.sum, self.min, self.max, self._buckets)


def _bucket(value: int, bits: int) -> int:
    shift = max(0, value.bit_length() - bits - 1)
    return (shift << bits) + (value >> shift)


def _upper_bound(bucket: int, bits: int) -> int:
    shift = max(0, (bucket >> bits) - 1)
    return ((bucket - (shift << bits) + 1) << shift) - 1
