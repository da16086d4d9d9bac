from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.plan.arrivals import Pace, ProcessShare, Rate

PER_SECOND = st.floats(0.01, 10_000)
RATES = st.one_of(
    st.builds(Rate, per_second=PER_SECOND),
    st.builds(
        Rate,
        per_second=PER_SECOND,
        ramp_from_per_second=st.one_of(st.just(0.0), PER_SECOND),
        ramp_seconds=st.floats(0.1, 1000),
    ),
)
NUMBERS = st.integers(0, 1_000_000)


@given(RATES, NUMBERS)
def test_messages_are_due_in_their_order(rate: Rate, number: int) -> None:
    assert rate.due_seconds(0) == 0.0
    assert rate.due_seconds(number) < rate.due_seconds(number + 1)


@given(RATES, NUMBERS)
def test_counting_is_the_inverse_of_being_due(rate: Rate, number: int) -> None:
    # Between the moments of two messages the earlier ones are due, and no more.
    due, following = rate.due_seconds(number), rate.due_seconds(number + 1)
    middle = (due + following) / 2
    assume(due < middle < following)
    assert rate.count_before(middle) == number + 1


@given(RATES, NUMBERS)
def test_a_message_due_at_the_end_is_beyond_it(rate: Rate, number: int) -> None:
    assert rate.count_before(rate.due_seconds(number)) in (number, number + 1)
    assert rate.count_before(0) == 0


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_whole_rates_and_durations_make_whole_numbers(per_second: int, seconds: int) -> None:
    assert Rate(per_second=per_second).count_before(seconds) == per_second * seconds


@given(RATES, st.floats(0, 2000))
def test_as_many_are_due_as_the_rate_has_added_up(rate: Rate, seconds: float) -> None:
    steps = 1000
    width = seconds / steps
    added = sum(rate.at((step + 0.5) * width) * width for step in range(steps))
    # The midpoint rule is off only in the one step in which the ramp ends.
    error = width * abs(rate.per_second - rate.ramp_from_per_second)
    assert abs(rate.count_before(seconds) - added) <= 1 + error + added * 1e-6


def test_a_ramp_from_nothing() -> None:
    rate = Rate(per_second=100, ramp_from_per_second=0, ramp_seconds=10)
    assert rate.count_before(10) == 500
    assert rate.due_seconds(500) == pytest.approx(10)
    assert rate.due_seconds(600) == pytest.approx(11)
    assert rate.due_seconds(125) == pytest.approx(5)  # 10/s², half of it squared
    assert (rate.at(0), rate.at(5), rate.at(50)) == (0, 50, 100)


def test_a_ramp_may_fall() -> None:
    rate = Rate(per_second=10, ramp_from_per_second=90, ramp_seconds=10)
    assert rate.count_before(10) == 500
    assert rate.due_seconds(500) == pytest.approx(10)


@pytest.mark.parametrize(
    ("pace", "planned", "warmup_count"),
    [
        (Pace(num_emails=7), 7, 0),
        (Pace(num_emails=7, warmup_seconds=2), 7, None),
        (Pace(duration_seconds=5), None, 0),
        (Pace(duration_seconds=5, rate=Rate(per_second=20)), 100, 0),
        (Pace(duration_seconds=5, warmup_seconds=2, rate=Rate(per_second=20)), 100, 40),
        (Pace(num_emails=7, warmup_seconds=2, rate=Rate(per_second=20)), 7, 40),
    ],
)
def test_what_is_planned(pace: Pace, planned: int | None, warmup_count: int | None) -> None:
    assert (pace.planned, pace.warmup_count) == (planned, warmup_count)


def test_a_ramp_that_has_hardly_begun_may_leave_nothing_to_be_measured() -> None:
    rate = Rate(per_second=10, ramp_from_per_second=0, ramp_seconds=100)
    assert Pace(duration_seconds=0.2, warmup_seconds=0.3, rate=rate).is_empty
    assert not Pace(duration_seconds=20, warmup_seconds=0.3, rate=rate).is_empty
    assert not Pace(duration_seconds=0.2).is_empty  # as many as the time allows


@pytest.mark.parametrize("amount", [{}, {"num_emails": 1, "duration_seconds": 1.0}])
def test_a_pace_has_a_number_or_a_duration(amount: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either"):
        Pace(**amount)  # type: ignore[arg-type]


@given(st.integers(0, 500), st.integers(1, 8))
def test_shares_divide_a_run(total: int, processes: int) -> None:
    numbers = [
        share.number(position)
        for share in (ProcessShare(index, processes) for index in range(processes))
        for position in range(share.count(total))
    ]
    assert sorted(numbers) == list(range(total))
