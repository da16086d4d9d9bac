from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measurement.recorder import Recorder
from bench.measurement.result import (
    Distribution,
    ErrorCount,
    NotReconciled,
    Phases,
    Reconciliation,
    Result,
    Timeline,
    Warmup,
)
from bench.measurement.sample import SendFailure
from tests.benchmark.runs import run_of, settle

EMPTY = Distribution(count=0)
COUNTS = st.integers(0, 50)


def result(planned: int | None, succeeded: int, failed: int, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "not_attempted": None if planned is None else planned - succeeded - failed,
        "dropped": 0,
        "late_starts": 0,
        "wall_seconds": 2.0,
        "interrupted_by": "",
        "latency": Distribution(count=succeeded),
        "service_time": EMPTY,
        "lateness": EMPTY,
        "phases": Phases(connect=EMPTY, auth=EMPTY, transaction=EMPTY),
        "histogram": (),
        "timeline": Timeline(0.1, ()),
        "warmup": Warmup(seconds=0.0, requests=0, failed=0, dropped=0),
        "errors": (ErrorCount(SendFailure("550", "no"), failed),) if failed else (),
    }
    return Result(planned=planned, succeeded=succeeded, failed=failed, **(values | changes))


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_result_whose_counts_do_not_add_up_cannot_be_made(
    planned: int, succeeded: int, failed: int, rest: int, dropped: int
) -> None:
    if planned == succeeded + failed + rest + dropped:
        made = result(planned, succeeded, failed, not_attempted=rest, dropped=dropped)
        assert made.attempted == succeeded + failed
    else:
        with pytest.raises(ValueError, match="planned"):
            result(planned, succeeded, failed, not_attempted=rest, dropped=dropped)


def test_what_was_not_planned_cannot_be_left_over() -> None:
    assert result(None, 3, 1).attempted == 4
    with pytest.raises(ValueError, match="together"):
        result(None, 3, 1, not_attempted=0)


def test_errors_listed_must_be_the_failures_counted() -> None:
    with pytest.raises(ValueError, match="errors"):
        result(1, 0, 1, errors=())


def test_latencies_must_be_the_successes() -> None:
    with pytest.raises(ValueError, match="latencies"):
        result(1, 1, 0, latency=EMPTY)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (result(None, 3, 0), True),
        (result(None, 3, 1), False),
        (result(4, 3, 0), False),
        (result(3, 3, 0), True),
        (result(4, 3, 0, dropped=1, not_attempted=0), False),
    ],
)
def test_complete_is_all_that_was_planned_or_taken_up(made: Result, expected: bool) -> None:
    assert made.is_complete is expected


def test_throughput_is_successes_over_wall_time() -> None:
    figures = result(10, 6, 2)
    assert figures.throughput_per_second == 3.0
    assert figures.throughput_per_minute == 180.0
    assert figures.success_rate == 0.6  # 6 of 8, and 2 that nobody tried


@pytest.mark.parametrize(
    ("ended_by", "expected"), [("", 0.5), ("process lost", 0.5), ("SIGINT", 0.625)]
)
def test_success_is_of_all_that_should_have_been_sent(ended_by: str, expected: float) -> None:
    made = result(10, 5, 1, dropped=2, not_attempted=2)
    assert replace(made, interrupted_by=ended_by).success_rate == expected


def test_a_time_the_clock_cannot_tell_gives_no_throughput() -> None:
    recorder = Recorder(30)
    settle(recorder, [0.0] * 30)
    assert recorder.snapshot(5e-324).throughput_per_second is None


def test_figures_of_nothing_are_none() -> None:
    figures = Recorder(5).snapshot(0.0, "SIGINT")
    assert figures.success_rate is None
    assert figures.throughput_per_second is None
    assert figures.throughput_per_minute is None


@pytest.mark.parametrize(
    ("outcomes", "reconciliation", "expected"),
    [
        ([0.1, 0.1], NotReconciled("no sandbox"), True),
        ([0.1, "550"], NotReconciled("no sandbox"), False),
        ([0.1], NotReconciled("no sandbox"), False),  # one was not attempted
        ([0.1, 0.1], {"lost": 1}, False),
        ([0.1, 0.1], {"duplicated": 1}, False),
        ([0.1, 0.1], {"corrupted": 1}, False),
        ([0.1, 0.1], {"unexpected": 1}, True),
    ],
)
def test_success_is_every_message_sent_and_none_lost_doubled_or_changed(
    outcomes: list[str | float], reconciliation: NotReconciled | dict[str, int], expected: bool
) -> None:
    recorder = Recorder(2)
    settle(recorder, outcomes)
    if isinstance(reconciliation, dict):
        counts = {
            "acknowledged": 2,
            "arrived": 2,
            "lost": 0,
            "duplicated": 0,
            "corrupted": 0,
            "unexpected": 0,
        }
        found: NotReconciled | Reconciliation = Reconciliation(**(counts | reconciliation))
    else:
        found = reconciliation
    assert run_of(recorder.snapshot(1.0), found).is_success is expected
