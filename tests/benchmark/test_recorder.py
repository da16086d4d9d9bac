from __future__ import annotations

import math
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.recorder import MAX_ERROR_KINDS, MAX_MICROSECONDS, Histogram, Recorder
from bench.result import OTHER, Failure, Sample
from tests.benchmark.runs import settle

MICROSECONDS = st.one_of(
    st.integers(0, 1000), st.integers(0, 10_000_000), st.integers(0, MAX_MICROSECONDS)
)
VALUES = st.lists(MICROSECONDS, max_size=200)
QUANTILES = st.one_of(st.sampled_from((0.0, 0.5, 0.95, 0.99, 1.0)), st.floats(0, 1))


def histogram(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


@given(VALUES.filter(bool), QUANTILES)
def test_quantile_is_never_less_than_the_ranked_value_and_at_most_one_percent_more(
    values: list[int], q: float
) -> None:
    rank = max(1, math.ceil(round(q * len(values), 6)))
    exact = sorted(values)[rank - 1]
    assert exact <= histogram(values).quantile(q) <= exact * 1.01


@given(VALUES.filter(bool))
def test_count_sum_least_and_greatest_are_exact(values: list[int]) -> None:
    made = histogram(values)
    assert (made.count, made.sum, made.min, made.max) == (
        len(values),
        sum(values),
        min(values),
        max(values),
    )


@given(VALUES, VALUES, VALUES)
def test_merge_is_associative_and_commutative(a: list[int], b: list[int], c: list[int]) -> None:
    x, y, z = histogram(a), histogram(b), histogram(c)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(y) == y.merge(x)


@given(st.lists(VALUES, max_size=5))
def test_merging_is_adding_all_the_values(parts: list[list[int]]) -> None:
    merged = reduce(Histogram.merge, map(histogram, parts), Histogram())
    assert merged == histogram([value for part in parts for value in part])


@given(st.lists(st.floats(0, 60), max_size=100))
def test_snapshot_is_ordered(seconds: list[float]) -> None:
    made = Histogram()
    for value in seconds:
        made.add_seconds(value)
    latency = made.snapshot()
    assert latency.count == len(seconds)
    if latency.min_seconds is None:
        assert latency.max_seconds is latency.avg_seconds is latency.p50_seconds is None
        return
    figures = (
        latency.min_seconds,
        latency.p50_seconds,
        latency.p95_seconds,
        latency.p99_seconds,
        latency.max_seconds,
    )
    assert list(figures) == sorted(figures, key=lambda figure: figure or 0.0)


def test_rank_does_not_suffer_from_binary_fractions() -> None:
    assert histogram(list(range(1, 101))).quantile(0.07) == 7  # 0.07 * 100 > 7


def test_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="quantile"):
        Histogram().quantile(0.5)


def test_values_beyond_the_range_are_kept_at_its_ends() -> None:
    made = histogram([-5, MAX_MICROSECONDS * 2])
    assert (made.min, made.max) == (0, MAX_MICROSECONDS)
    assert made.quantile(1.0) == MAX_MICROSECONDS


def test_memory_is_bounded_whatever_is_added() -> None:
    made = Histogram()
    for exponent in range(40):
        for step in range(300):
            made.add((1 << exponent) + step * (1 << exponent) // 300)
    assert len(made._buckets) <= 3840


OUTCOMES = st.lists(st.one_of(st.floats(0, 10), st.sampled_from(("550", "timeout"))), max_size=60)


@given(OUTCOMES, st.integers(0, 20))
def test_every_planned_message_is_counted_exactly_once(
    outcomes: list[str | float], rest: int
) -> None:
    recorder = Recorder(len(outcomes) + rest)
    settle(recorder, outcomes)
    result = recorder.snapshot(1.0)
    failed = sum(isinstance(outcome, str) for outcome in outcomes)
    assert (result.planned, result.failed, result.not_attempted) == (
        len(outcomes) + rest,
        failed,
        rest,
    )
    assert result.succeeded == len(outcomes) - failed
    acknowledged = [recorder.is_acknowledged(number) for number in range(result.planned)]
    expected = [isinstance(outcome, float) for outcome in outcomes] + [False] * rest
    assert acknowledged == expected


def test_a_message_cannot_be_settled_twice() -> None:
    recorder = Recorder(2)
    recorder.add(Sample(number=1, latency_seconds=0.1))
    with pytest.raises(ValueError, match="twice"):
        recorder.add(Sample(number=1, latency_seconds=0.1, failure=Failure("550", "")))


def test_latencies_of_failures_are_not_measured() -> None:
    recorder = Recorder(2)
    settle(recorder, [0.5, "550"])  # the failure took 9 s
    assert recorder.snapshot(1.0).latency.max_seconds == 0.5


def test_phases_of_an_opened_connection_count_even_if_its_message_fails() -> None:
    recorder = Recorder(1)
    recorder.add(
        Sample(
            number=0,
            latency_seconds=1.0,
            failure=Failure("550", ""),
            connect_seconds=0.25,
            auth_seconds=0.5,
        )
    )
    phases = recorder.snapshot(1.0).phases
    assert (phases.connect.max_seconds, phases.auth.max_seconds) == (0.25, 0.5)
    assert phases.transaction.count == 0


def test_error_kinds_are_bounded_and_none_is_lost() -> None:
    recorder = Recorder(500)
    settle(recorder, [f"5{number}" for number in range(500)])
    errors = recorder.snapshot(1.0).errors
    assert len(errors) == MAX_ERROR_KINDS + 1
    assert sum(error.count for error in errors) == 500
    assert errors[0].failure.code == OTHER
