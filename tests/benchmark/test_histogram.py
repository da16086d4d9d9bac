from __future__ import annotations

import math
import pickle
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measurement.histogram import COARSE_BITS, MAX_MICROSECONDS, Histogram

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


@given(VALUES)
def test_coarse_buckets_hold_every_value_and_are_narrow(values: list[int]) -> None:
    buckets = histogram(values).coarse()
    assert sum(bucket.count for bucket in buckets) == len(values)
    bounds = [bucket.up_to_seconds for bucket in buckets]
    assert bounds == sorted(set(bounds))
    for value in values:
        bound = min(bound for bound in bounds if bound * 1e6 >= value - 1e-6)
        assert bound * 1e6 <= value * 1.041 + 1  # 0.8 % and 3.2 %


def test_histograms_of_different_precision_do_not_merge() -> None:
    with pytest.raises(ValueError, match="precision"):
        Histogram().merge(Histogram(COARSE_BITS))


def test_it_pickles() -> None:
    made = histogram([1, 1000, 123456])
    assert pickle.loads(pickle.dumps(made)) == made
