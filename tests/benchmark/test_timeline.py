from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measurement.timeline import MAX_BINS, TimelineRecorder

TIMES = st.lists(st.one_of(st.floats(0, 1), st.floats(0, 100_000)), max_size=60)


def timeline(times: list[float]) -> TimelineRecorder:
    made = TimelineRecorder()
    for time in times:
        made.add_success(time, 0.01)
    return made


@given(TIMES)
def test_everything_is_in_the_bin_of_its_time_and_bins_are_bounded(times: list[float]) -> None:
    shown = timeline(times).snapshot()
    assert len(shown.bins) <= MAX_BINS
    assert sum(stretch.successful for stretch in shown.bins) == len(times)
    for number, stretch in enumerate(shown.bins):
        assert stretch.start_seconds == pytest.approx(number * shown.bin_seconds, abs=0.001)
        within = [time for time in times if int(time / shown.bin_seconds) == number]
        assert stretch.successful == len(within)


@given(TIMES, TIMES, TIMES)
def test_merging_is_adding_all_and_associative(
    a: list[float], b: list[float], c: list[float]
) -> None:
    x, y, z = timeline(a), timeline(b), timeline(c)
    merged = x.merge(y).merge(z).snapshot()
    assert merged == x.merge(y.merge(z)).snapshot()
    assert merged == timeline(a + b + c).snapshot()


def test_a_short_run_has_fine_bins_and_a_gap_is_shown_as_such() -> None:
    made = TimelineRecorder()
    made.add_success(0.05, 0.004)
    made.add_failure(0.31)
    made.add_drop(0.32)
    shown = made.snapshot()
    assert shown.bin_seconds == 0.1
    assert [(one.successful, one.failed, one.dropped) for one in shown.bins] == [
        *((1, 0, 0), (0, 0, 0), (0, 0, 0)),
        (0, 1, 1),
    ]
    assert shown.bins[0].p95_seconds == pytest.approx(0.004, rel=0.04)
    assert shown.bins[3].p50_seconds is None


def test_nothing_has_no_bins() -> None:
    assert TimelineRecorder().snapshot().bins == ()
