from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.recorder import Recorder
from bench.result import (
    ErrorCount,
    Failure,
    Latency,
    NotReconciled,
    Phases,
    Reconciliation,
    Result,
    change_percent,
)
from tests.benchmark.runs import run_of, settle

EMPTY = Latency(count=0)
COUNTS = st.integers(0, 50)


def result(planned: int, succeeded: int, failed: int, not_attempted: int) -> Result:
    errors = (ErrorCount(Failure("550", "no"), failed),) if failed else ()
    return Result(
        planned=planned,
        succeeded=succeeded,
        failed=failed,
        not_attempted=not_attempted,
        wall_seconds=2.0,
        interrupted_by="",
        latency=Latency(count=succeeded),
        phases=Phases(connect=EMPTY, auth=EMPTY, transaction=EMPTY),
        errors=errors,
    )


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_result_whose_counts_do_not_add_up_cannot_be_made(
    planned: int, succeeded: int, failed: int, not_attempted: int
) -> None:
    if planned == succeeded + failed + not_attempted:
        assert result(planned, succeeded, failed, not_attempted).attempted == succeeded + failed
    else:
        with pytest.raises(ValueError, match="planned"):
            result(planned, succeeded, failed, not_attempted)


def test_errors_listed_must_be_the_failures_counted() -> None:
    with pytest.raises(ValueError, match="errors"):
        Result(
            planned=1,
            succeeded=0,
            failed=1,
            not_attempted=0,
            wall_seconds=1.0,
            interrupted_by="",
            latency=EMPTY,
            phases=Phases(connect=EMPTY, auth=EMPTY, transaction=EMPTY),
            errors=(),
        )


def test_latencies_must_be_the_successes() -> None:
    with pytest.raises(ValueError, match="latencies"):
        Result(
            planned=1,
            succeeded=1,
            failed=0,
            not_attempted=0,
            wall_seconds=1.0,
            interrupted_by="",
            latency=EMPTY,
            phases=Phases(connect=EMPTY, auth=EMPTY, transaction=EMPTY),
            errors=(),
        )


def test_throughput_is_successes_over_wall_time() -> None:
    figures = result(10, 6, 2, 2)
    assert figures.throughput_per_second == 3.0
    assert figures.throughput_per_minute == 180.0
    assert figures.success_rate == 0.75


def test_a_time_the_clock_cannot_tell_gives_no_throughput() -> None:
    recorder = Recorder(30)
    settle(recorder, [0.0] * 30)
    assert recorder.snapshot(5e-324).throughput_per_second is None


def test_figures_of_nothing_are_none() -> None:
    figures = Recorder(5).snapshot(0.0)
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


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(100.0, 150.0, 50.0), (2.0, 1.0, -50.0), (None, 1.0, None), (0.0, 1.0, None)],
)
def test_change_in_percent(
    before: float | None, after: float | None, expected: float | None
) -> None:
    assert change_percent(before, after) == expected
