"""Counts and times a run's messages in bounded memory plus one octet for each message.

I1: each message is settled at most once; a planned one never settled counts as not attempted.
Recorders of several processes with disjoint numbers merge into the run's; they can be pickled.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bench.measurement.histogram import Histogram
from bench.measurement.result import ErrorCount, Phases, Result, Warmup
from bench.measurement.sample import OTHER, SendFailure
from bench.measurement.timeline import TimelineRecorder

if TYPE_CHECKING:
    from bench.measurement.sample import Sample

__all__ = ["LATE_SECONDS", "MAX_ERROR_KINDS", "Histogram", "Recorder"]

MAX_ERROR_KINDS = 50  # a server that numbers its replies must not fill the memory
LATE_SECONDS = 0.005  # timers have a resolution of 1 ms; late means well above that

# The outcome of a message.
_OPEN, _SUCCEEDED, _FAILED, _DROPPED = range(4)
_WARMUP = 4  # added to the outcome of a warm-up message


class Recorder:
    """The record of a run: the outcome and duration of each message."""

    def __init__(self, planned: int | None, warmup_seconds: float = 0.0) -> None:
        self.planned = planned  # None: as many as the time allows
        self.succeeded = 0
        self.failed = 0
        self.dropped = 0
        self.late_starts = 0
        self.own_late_starts = 0  # those for which a connection was free: the generator was slow
        self.latency = Histogram()
        self._begun = 0
        self._warmup_seconds = warmup_seconds
        self._warmup: Counter[int] = Counter()  # by outcome
        self._fates = bytearray()  # by number; grows as numbers come
        self._service = Histogram()
        self._lateness = Histogram()
        self._connect = Histogram()
        self._auth = Histogram()
        self._transaction = Histogram()
        self._timeline = TimelineRecorder()
        self._errors: Counter[SendFailure] = Counter()

    @property
    def settled(self) -> int:
        """The number of finished messages, without the warm-up."""
        return self.succeeded + self.failed + self.dropped

    @property
    def in_flight(self) -> int:
        """The number of messages started but not finished."""
        return max(0, self._begun - self.succeeded - self.failed - self.warmup_requests)

    @property
    def warmup_requests(self) -> int:
        """The number of finished messages of the warm-up."""
        return self._warmup[_SUCCEEDED] + self._warmup[_FAILED]

    @property
    def acknowledged(self) -> int:
        """The number of messages with a positive final reply, including the warm-up."""
        return self.succeeded + self._warmup[_SUCCEEDED]

    @property
    def failed_by_code(self) -> Counter[str]:
        """The number of failed messages by reply code or kind of error."""
        codes: Counter[str] = Counter()
        for failure, count in self._errors.items():
            codes[failure.code] += count
        return codes

    def begin(self, number: int, *, is_warmup: bool) -> None:
        """Record that a message is started; `add` settles it."""
        self._begun += 1

    def add(self, sample: Sample) -> None:
        """Settle a message that was started.

        Raises:
            ValueError: it was settled before.
        """
        fate = _SUCCEEDED if sample.failure is None else _FAILED
        self._settle(sample.number, fate, is_warmup=sample.is_warmup)
        if sample.is_warmup:
            return
        self._time_start(sample)
        if sample.failure is not None:
            self.failed += 1
            self._timeline.add_failure(sample.at_seconds)
            self._count_error(sample.failure, 1)
            return
        self.succeeded += 1
        self.latency.add_seconds(sample.latency_seconds)
        self._service.add_seconds(sample.service_seconds)
        self._timeline.add_success(sample.at_seconds, sample.latency_seconds)
        if sample.transaction_seconds is not None:
            self._transaction.add_seconds(sample.transaction_seconds)

    def drop(self, number: int, at_seconds: float, *, is_warmup: bool = False) -> None:
        """Settle a message that was due but is dropped.

        Raises:
            ValueError: it was settled before.
        """
        self._settle(number, _DROPPED, is_warmup=is_warmup)
        if not is_warmup:
            self.dropped += 1
            self._timeline.add_drop(at_seconds)

    def is_acknowledged(self, number: int) -> bool:
        """Whether message `number` got a positive final reply."""
        fate = self._fates[number] if number < len(self._fates) else _OPEN
        return fate in (_SUCCEEDED, _SUCCEEDED + _WARMUP)

    def merge(self, other: Recorder) -> Recorder:
        """Return the combined record of two parts of a run, which have different messages.

        Raises:
            ValueError: both have settled the same message, or they belong to different runs.
        """
        if (self.planned, self._warmup_seconds) != (other.planned, other._warmup_seconds):
            raise ValueError("the recorders are of different runs")
        merged = Recorder(self.planned, self._warmup_seconds)
        for name in ("succeeded", "failed", "dropped", "late_starts", "own_late_starts", "_begun"):
            setattr(merged, name, getattr(self, name) + getattr(other, name))
        for name in ("latency", "_service", "_lateness", "_connect", "_auth", "_transaction"):
            setattr(merged, name, getattr(self, name).merge(getattr(other, name)))
        merged._timeline = self._timeline.merge(other._timeline)
        merged._warmup = self._warmup + other._warmup
        merged._fates = _joined(self._fates, other._fates)
        for failure, count in (self._errors + other._errors).most_common():
            merged._count_error(failure, count)
        return merged

    def snapshot(self, wall_seconds: float, interrupted_by: str = "") -> Result:
        """Return the figures so far.

        Raises:
            ValueError: a message was not counted, or counted twice.
        """
        return Result(
            planned=self.planned,
            succeeded=self.succeeded,
            failed=self.failed,
            not_attempted=self._not_attempted(),
            dropped=self.dropped,
            late_starts=self.late_starts,
            wall_seconds=wall_seconds,
            interrupted_by=interrupted_by,
            latency=self.latency.snapshot(),
            service_time=self._service.snapshot(),
            lateness=self._lateness.snapshot(),
            phases=Phases(
                connect=self._connect.snapshot(),
                auth=self._auth.snapshot(),
                transaction=self._transaction.snapshot(),
            ),
            histogram=self.latency.coarse(),
            timeline=self._timeline.snapshot(),
            warmup=Warmup(
                seconds=self._warmup_seconds,
                requests=self.warmup_requests,
                failed=self._warmup[_FAILED],
                dropped=self._warmup[_DROPPED],
            ),
            errors=tuple(
                ErrorCount(failure, self._errors[failure])
                for failure in sorted(self._errors, key=self._rank)
            ),
        )

    def _settle(self, number: int, fate: int, *, is_warmup: bool) -> None:
        fates = self._fates
        if number >= len(fates):
            fates.extend(bytes(number + 1 - len(fates)))
        if fates[number]:
            raise ValueError(f"message {number} was settled twice")
        fates[number] = fate + _WARMUP if is_warmup else fate
        if is_warmup:
            self._warmup[fate] += 1

    def _time_start(self, sample: Sample) -> None:
        if sample.connect_seconds is not None:
            self._connect.add_seconds(sample.connect_seconds)
        if sample.auth_seconds is not None:
            self._auth.add_seconds(sample.auth_seconds)
        if sample.lateness_seconds is None:
            return
        self._lateness.add_seconds(sample.lateness_seconds)
        if sample.lateness_seconds > LATE_SECONDS:
            self.late_starts += 1
            self.own_late_starts += not sample.has_waited

    def _not_attempted(self) -> int | None:
        if self.planned is None:
            return None
        measured = (self._fates.count(fate) for fate in (_SUCCEEDED, _FAILED, _DROPPED))
        return self.planned - sum(measured)

    def _rank(self, failure: SendFailure) -> tuple[int, str, str]:
        return -self._errors[failure], failure.code, failure.text

    def _count_error(self, failure: SendFailure, count: int) -> None:
        if failure not in self._errors and len(self._errors) >= MAX_ERROR_KINDS:
            failure = SendFailure(OTHER, "")
        self._errors[failure] += count


def _joined(fates: bytearray, others: bytearray) -> bytearray:
    size = max(len(fates), len(others))
    joined = int.from_bytes(fates, "little") | int.from_bytes(others, "little")
    octets = bytearray(joined.to_bytes(size, "little"))
    # If both settled the same message, one octet is missing.
    if size - octets.count(0) != sum(len(one) - one.count(0) for one in (fates, others)):
        raise ValueError("a message was settled twice")
    return octets
