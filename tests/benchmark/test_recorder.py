from __future__ import annotations

import pickle
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measurement.recorder import LATE_SECONDS, MAX_ERROR_KINDS, Recorder
from bench.measurement.sample import OTHER, SendFailure
from tests.benchmark.runs import sample, settle

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
    numbers = range(len(outcomes) + rest)
    acknowledged = [recorder.is_acknowledged(number) for number in numbers]
    expected = [isinstance(outcome, float) for outcome in outcomes] + [False] * rest
    assert acknowledged == expected


def test_a_message_cannot_be_settled_twice() -> None:
    recorder = Recorder(2)
    recorder.add(sample(1, 0.1))
    with pytest.raises(ValueError, match="twice"):
        recorder.add(sample(1, "550"))
    with pytest.raises(ValueError, match="twice"):
        recorder.drop(1, 0.0)


def test_latencies_of_failures_are_not_measured() -> None:
    recorder = Recorder(2)
    settle(recorder, [0.5, "550"])  # the failure took 9 s
    assert recorder.snapshot(1.0).latency.max_seconds == 0.5


def test_phases_of_an_opened_connection_count_even_if_its_message_fails() -> None:
    recorder = Recorder(1)
    recorder.add(sample(0, "550", connect_seconds=0.25, auth_seconds=0.5))
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


def test_errors_keep_their_words() -> None:
    recorder = Recorder(2)
    settle(recorder, ["550", "550"])
    (error,) = recorder.snapshot(1.0).errors
    assert (error.failure, error.count) == (SendFailure("550", "because"), 2)


def test_the_warm_up_is_counted_apart_and_is_acknowledged_all_the_same() -> None:
    recorder = Recorder(1, warmup_seconds=3.0)
    recorder.add(sample(0, 5.0, is_warmup=True))
    recorder.add(sample(1, "550", is_warmup=True))
    recorder.drop(2, -1.0, is_warmup=True)
    recorder.add(sample(3, 0.1))
    result = recorder.snapshot(1.0)
    assert (result.planned, result.succeeded, result.failed, result.not_attempted) == (1, 1, 0, 0)
    assert (result.latency.max_seconds, result.errors, result.dropped) == (0.1, (), 0)
    warmup = result.warmup
    assert (warmup.seconds, warmup.requests, warmup.failed, warmup.dropped) == (3.0, 2, 1, 1)
    assert recorder.acknowledged == 2
    assert [recorder.is_acknowledged(number) for number in range(5)] == [
        *(True, False, False),
        *(True, False),
    ]


def test_dropped_messages_are_planned_and_not_attempted() -> None:
    recorder = Recorder(4)
    recorder.add(sample(0, 0.1))
    recorder.drop(1, 2.0)
    result = recorder.snapshot(1.0)
    assert (result.dropped, result.attempted, result.not_attempted) == (1, 1, 2)
    assert sum(stretch.dropped for stretch in result.timeline.bins) == 1


def test_late_starts_and_whose_they_are() -> None:
    recorder = Recorder(4)
    for number, (lateness, has_waited) in enumerate(
        [(0.0, False), (LATE_SECONDS, False), (LATE_SECONDS + 0.001, False), (1.0, True)]
    ):
        recorder.add(sample(number, 0.1, lateness_seconds=lateness, has_waited=has_waited))
    result = recorder.snapshot(1.0)
    assert (result.late_starts, recorder.own_late_starts) == (2, 1)
    assert (result.lateness.count, result.lateness.max_seconds) == (4, 1.0)


EVENTS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 10), st.sampled_from(("550", "timeout", "drop"))),
        st.floats(-1, 200),
    ),
    max_size=60,
)


def recorded(events: list[tuple[Any, float]], shares: int) -> list[Recorder]:
    """Deal the events out to recorders, each with numbers of its own."""
    recorders = [Recorder(len(events), 1.0) for _ in range(shares)]
    for number, (outcome, at_seconds) in enumerate(events):
        recorder, is_warmup = recorders[number % shares], at_seconds < 0
        if outcome == "drop":
            recorder.drop(number, at_seconds, is_warmup=is_warmup)
        else:
            recorder.add(sample(number, outcome, at_seconds=at_seconds, is_warmup=is_warmup))
    return recorders


@given(EVENTS, st.integers(1, 4))
def test_merging_shares_of_a_run_is_recording_it_whole(
    events: list[tuple[Any, float]], shares: int
) -> None:
    (whole,) = recorded(events, 1)
    parts = pickle.loads(pickle.dumps(recorded(events, shares)))
    merged = reduce(Recorder.merge, parts)
    assert merged.snapshot(2.0) == whole.snapshot(2.0)
    numbers = range(len(events))
    assert [merged.is_acknowledged(n) for n in numbers] == [
        whole.is_acknowledged(n) for n in numbers
    ]


@given(EVENTS)
def test_merging_is_associative(events: list[tuple[Any, float]]) -> None:
    a, b, c = recorded(events, 3)
    assert a.merge(b).merge(c).snapshot(1.0) == a.merge(b.merge(c)).snapshot(1.0)


def test_recorders_with_the_same_message_or_of_other_runs_do_not_merge() -> None:
    first, second = Recorder(2), Recorder(2)
    first.add(sample(1, 0.1))
    second.add(sample(1, "550"))
    with pytest.raises(ValueError, match="twice"):
        first.merge(second)
    with pytest.raises(ValueError, match="different runs"):
        Recorder(2).merge(Recorder(3))


def test_in_flight_is_what_was_taken_up_and_has_not_ended() -> None:
    recorder = Recorder(5)
    for number in range(3):
        recorder.begin(number, is_warmup=number == 0)
    recorder.add(sample(0, 0.1, is_warmup=True))
    recorder.add(sample(1, "550"))
    recorder.drop(4, 0.0)
    assert recorder.in_flight == 1
