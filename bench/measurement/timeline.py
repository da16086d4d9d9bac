"""The timeline of a run in at most 600 bins; as it grows, bins are merged in pairs.

A message belongs to the bin in which it ended, so a stalled server leaves a gap.
"""

from __future__ import annotations

from bench.measurement.histogram import COARSE_BITS, Histogram
from bench.measurement.result import Timeline, TimelineBin

MAX_BINS = 600
_FIRST_BIN_SECONDS = 0.1


class _BinRecorder:
    __slots__ = ("dropped", "failed", "latency")

    def __init__(self) -> None:
        self.failed = 0
        self.dropped = 0
        self.latency = Histogram(COARSE_BITS)  # of successful messages

    def merge(self, other: _BinRecorder) -> _BinRecorder:
        merged = _BinRecorder()
        merged.failed = self.failed + other.failed
        merged.dropped = self.dropped + other.dropped
        merged.latency = self.latency.merge(other.latency)
        return merged


class TimelineRecorder:
    """Counts messages by the time of their end, from the start of measurement."""

    __slots__ = ("_bins", "_doublings")

    def __init__(self) -> None:
        self._doublings = 0
        self._bins: dict[int, _BinRecorder] = {}

    @property
    def bin_seconds(self) -> float:
        """The current length of a bin."""
        return _FIRST_BIN_SECONDS * float(1 << self._doublings)

    def add_success(self, at_seconds: float, latency_seconds: float) -> None:
        """Count a message accepted at this time."""
        self._at(at_seconds).latency.add_seconds(latency_seconds)

    def add_failure(self, at_seconds: float) -> None:
        """Count a message that failed at this time."""
        self._at(at_seconds).failed += 1

    def add_drop(self, at_seconds: float) -> None:
        """Count a message dropped at this time."""
        self._at(at_seconds).dropped += 1

    def merge(self, other: TimelineRecorder) -> TimelineRecorder:
        """Return the combined timeline; both began at the same moment. Associative."""
        merged = TimelineRecorder()
        merged._doublings = max(self._doublings, other._doublings)
        for one in (self, other):
            shift = merged._doublings - one._doublings
            for index, found in one._bins.items():
                there = merged._bins.get(index >> shift)
                merged._bins[index >> shift] = found.merge(there or _BinRecorder())
        return merged

    def snapshot(self) -> Timeline:
        """Return the bins from the start to the last non-empty one."""
        bins, width = self._bins, self.bin_seconds
        empty = _BinRecorder()
        return Timeline(
            width,
            tuple(
                _figures(index * width, bins.get(index, empty))
                for index in range(max(bins, default=-1) + 1)
            ),
        )

    def _at(self, seconds: float) -> _BinRecorder:
        index = max(0, int(seconds / self.bin_seconds))
        while index >= MAX_BINS:
            self._halve()
            index >>= 1
        found = self._bins.get(index)
        if found is None:
            found = self._bins[index] = _BinRecorder()
        return found

    def _halve(self) -> None:
        self._doublings += 1
        halved: dict[int, _BinRecorder] = {}
        for index, found in self._bins.items():
            there = halved.get(index >> 1)
            halved[index >> 1] = found if there is None else found.merge(there)
        self._bins = halved


def _figures(start_seconds: float, found: _BinRecorder) -> TimelineBin:
    return TimelineBin(
        start_seconds=round(start_seconds, 3),
        successful=found.latency.count,
        failed=found.failed,
        dropped=found.dropped,
        p50_seconds=found.latency.quantile_seconds(0.50),
        p95_seconds=found.latency.quantile_seconds(0.95),
    )
