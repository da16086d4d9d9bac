"""Counts and times a run's messages in bounded memory, whatever their number.

I1: each planned message is settled at most once; one never settled was not attempted.
"""

from __future__ import annotations

import math
from collections import Counter

from bench.result import (
    OTHER,
    ErrorCount,
    Failure,
    Latency,
    Phases,
    Result,
    Sample,
)

_PRECISION_BITS = 7  # 128 buckets for each power of two: a bucket is < 0.8 % of its value
MAX_MICROSECONDS = (1 << 36) - 1  # 19 hours; longer is counted as this long
MAX_ERROR_KINDS = 50  # a server that numbers its replies may not fill the memory


class Histogram:
    """A log-linear histogram of whole microseconds: at most 3,840 buckets, exact below 256 µs.

    Count, sum, least and greatest are exact. `merge` is associative and commutative.
    """

    __slots__ = ("_buckets", "count", "max", "min", "sum")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.sum = 0  # microseconds
        self.min = 0  # microseconds; 0 when nothing was added
        self.max = 0  # microseconds; likewise

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]

    def add(self, microseconds: int) -> None:
        """Count one value; below 0 counts as 0."""
        value = min(max(microseconds, 0), MAX_MICROSECONDS)
        self.min = min(self.min, value) if self.count else value
        self.max = max(self.max, value)
        self.count += 1
        self.sum += value
        self._buckets[_bucket(value)] += 1

    def add_seconds(self, seconds: float) -> None:
        """Count a duration, rounded to the microsecond."""
        self.add(round(seconds * 1e6))

    def merge(self, other: Histogram) -> Histogram:
        """Return a histogram of the values of both."""
        merged = Histogram()
        merged._buckets = self._buckets + other._buckets
        merged.count = self.count + other.count
        merged.sum = self.sum + other.sum
        merged.min = min((h.min for h in (self, other) if h.count), default=0)
        merged.max = max(self.max, other.max)
        return merged

    def quantile(self, q: float) -> int:
        """Return the value of rank ⌈q·count⌉ in microseconds, never less and at most 1 % more.

        Raises:
            ValueError: nothing was added, or `q` is not within 0 and 1.
        """
        if not self.count or not 0 <= q <= 1:
            raise ValueError("no such quantile")
        rank = max(1, math.ceil(round(q * self.count, 6)))  # 0.07 * 100 is a little more than 7
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return max(self.min, min(_upper_bound(bucket), self.max))
        raise AssertionError("the buckets hold fewer values than were counted")

    def snapshot(self) -> Latency:
        """Return the distribution in seconds."""
        if not self.count:
            return Latency(count=0)
        return Latency(
            count=self.count,
            min_seconds=self.min / 1e6,
            max_seconds=self.max / 1e6,
            avg_seconds=self.sum / self.count / 1e6,
            p50_seconds=self.quantile(0.50) / 1e6,
            p95_seconds=self.quantile(0.95) / 1e6,
            p99_seconds=self.quantile(0.99) / 1e6,
        )

    def _state(self) -> tuple[object, ...]:
        return (self.count, self.sum, self.min, self.max, self._buckets)


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - _PRECISION_BITS - 1)
    return (shift << _PRECISION_BITS) + (value >> shift)


def _upper_bound(bucket: int) -> int:
    shift = max(0, (bucket >> _PRECISION_BITS) - 1)
    return ((bucket - (shift << _PRECISION_BITS) + 1) << shift) - 1


class Recorder:
    """The account of a run: what became of each planned message, and how long it took."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.succeeded = 0
        self.failed = 0
        self._settled = bytearray(planned)  # 0: not attempted
        self._acknowledged = bytearray(planned)  # 1: the final reply was positive
        self._latency = Histogram()
        self._connect = Histogram()
        self._auth = Histogram()
        self._transaction = Histogram()
        self._errors: Counter[Failure] = Counter()

    def add(self, sample: Sample) -> None:
        """Settle one message.

        Raises:
            ValueError: it was settled before.
        """
        if self._settled[sample.number]:
            raise ValueError(f"message {sample.number} was settled twice")
        self._settled[sample.number] = 1
        if sample.connect_seconds is not None:
            self._connect.add_seconds(sample.connect_seconds)
        if sample.auth_seconds is not None:
            self._auth.add_seconds(sample.auth_seconds)
        if sample.failure is not None:
            self._add_failure(sample.failure)
            return
        self.succeeded += 1
        self._acknowledged[sample.number] = 1
        self._latency.add_seconds(sample.latency_seconds)
        if sample.transaction_seconds is not None:
            self._transaction.add_seconds(sample.transaction_seconds)

    def is_acknowledged(self, number: int) -> bool:
        """Whether message `number` got a positive final reply."""
        return number < self.planned and bool(self._acknowledged[number])

    def snapshot(self, wall_seconds: float, interrupted_by: str = "") -> Result:
        """Return the figures so far.

        Raises:
            ValueError: a message was not counted, or counted twice.
        """
        return Result(
            planned=self.planned,
            succeeded=self.succeeded,
            failed=self.failed,
            not_attempted=self._settled.count(0),
            wall_seconds=wall_seconds,
            interrupted_by=interrupted_by,
            latency=self._latency.snapshot(),
            phases=Phases(
                connect=self._connect.snapshot(),
                auth=self._auth.snapshot(),
                transaction=self._transaction.snapshot(),
            ),
            errors=tuple(ErrorCount(*error) for error in self._errors.most_common()),
        )

    def _add_failure(self, failure: Failure) -> None:
        self.failed += 1
        if failure not in self._errors and len(self._errors) >= MAX_ERROR_KINDS:
            failure = Failure(OTHER, "")
        self._errors[failure] += 1
