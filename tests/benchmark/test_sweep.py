from __future__ import annotations

import io
import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from bench.analysis import sweep
from bench.analysis.sweep import (
    MAX_STEPS,
    Parameter,
    StepFigures,
    figures,
    knee,
    loads,
    reason_to_stop,
)
from bench.measurement.recorder import Recorder
from bench.reports import html_export, json_export, sweep_table
from tests.benchmark.runs import exported, run_of, sample, settle, strict_json

POSITIVE = st.floats(min_value=1e-3, max_value=1e5)


def step(load: float, throughput: float, mean: float, success: float = 1.0) -> StepFigures:
    return StepFigures(load, throughput, mean, mean * 2, success)


@st.composite
def sweeps(draw: st.DrawFn) -> list[StepFigures]:
    count = draw(st.integers(min_value=3, max_value=12))
    rising = sorted(draw(st.sets(POSITIVE, min_size=count, max_size=count)))
    return [step(load, draw(POSITIVE), draw(POSITIVE)) for load in rising]


def saturating(connections: float, capacity: float = 8.0, seconds: float = 0.01) -> StepFigures:
    """A closed system that serves `capacity` at once, by the asymptotes of its throughput."""
    throughput = min(connections, capacity) / seconds
    return step(connections, throughput, connections / throughput)


def test_the_knee_of_a_closed_system_is_its_capacity() -> None:
    found = knee([saturating(2.0**power) for power in range(8)])
    assert found.load == 8.0
    assert "8" in found.reason


def test_the_knee_of_an_open_system_lies_at_half_its_capacity() -> None:
    # M/M/1: power is λ times µ less λ, greatest at µ/2 (Kleinrock).
    steps = [step(rate, rate, 1 / (100 - rate)) for rate in range(10, 100, 10)]
    assert knee(steps).load == 50


@given(sweeps())
def test_no_step_has_more_power_than_the_knee(steps: list[StepFigures]) -> None:
    found = knee(steps)
    if found.load is not None:
        (there,) = (one for one in steps if one.load == found.load)
        assert all(one.power <= there.power for one in steps)
        assert steps[0].load < found.load < steps[-1].load


@given(sweeps(), st.sampled_from([0.001, 60.0, 1000.0]), st.sampled_from([0.25, 2.0, 8.0]))
def test_units_do_not_move_the_knee(steps: list[StepFigures], time: float, amount: float) -> None:
    powers = sorted(one.power for one in steps)
    assume(powers[-1] > powers[-2] * 1.000001)
    scaled = [
        StepFigures(
            one.load * amount,
            (one.throughput_per_second or 0) * amount / time,
            (one.mean_seconds or 0) * time,
            (one.p95_seconds or 0) * time,
            one.success_rate,
        )
        for one in steps
    ]
    before, after = knee(steps).load, knee(scaled).load
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert math.isclose(before * amount, after)


@given(sweeps(), st.data())
def test_a_step_that_fails_never_is_the_knee(steps: list[StepFigures], data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=len(steps) - 1))
    # Refusals are quick: without this rule the failing step would look like the best.
    steps[index] = step(steps[index].load, 1e6, 1e-6, success=0.5)
    assert knee(steps).load != steps[index].load


def test_power_that_still_grows_has_no_knee_yet() -> None:
    found = knee([saturating(load) for load in (1, 2, 4)])
    assert found.load is None
    assert found.reason.startswith("The knee is above 4, the highest load tried")


def test_power_that_only_falls_has_its_knee_below() -> None:
    found = knee([saturating(load) for load in (8, 16, 32)])
    assert found.load is None
    sentence = "The knee is at or below 8, the lowest load tried: try lower ones."
    assert found.reason == sentence
    steps = [saturating(load, capacity=1.0) for load in (1, 2, 4)]
    assert "at 1, the lowest load there is" in knee(steps, least=1.0).reason


def test_two_steps_show_no_knee() -> None:
    assert knee([saturating(1), saturating(2)]).load is None


def test_failures_at_the_top_leave_the_knee_below_them_unknown_only_if_power_grew() -> None:
    steps = [saturating(load) for load in (1, 2, 4, 8)]
    found = knee([*steps, step(16, 1e6, 1e-6, success=0.5)])
    # The greatest power of the steps that succeeded: what lies above did not succeed.
    assert found.load == 8


def test_a_sweep_goes_on_while_throughput_grows_whatever_the_latency() -> None:
    assert reason_to_stop([step(1, 100, 0.01), step(2, 150, 0.5)]) == ""


def test_a_sweep_ends_when_latency_explodes_without_a_gain() -> None:
    assert "25 times the least" in reason_to_stop([step(1, 100, 0.01), step(2, 105, 0.25)])


def test_a_sweep_ends_when_messages_fail() -> None:
    assert "only 90 %" in reason_to_stop([step(1, 100, 0.01), step(2, 105, 0.01, success=0.9)])


def test_one_step_is_no_reason_to_end() -> None:
    assert reason_to_stop([step(1, 100, 9.0)]) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,4,8", [1, 2, 4, 8]),
        ("5", [5]),
        ("50..800", [50, 100, 200, 400, 800]),
        ("50..700", [50, 100, 200, 400, 700]),
        (" 0.5,1 ", [0.5, 1]),
    ],
)
def test_loads_are_a_list_or_a_range(text: str, expected: list[float]) -> None:
    assert loads(text) == expected


def test_a_range_can_be_spread_evenly() -> None:
    assert loads("50..800", 4) == [50, 300, 550, 800]
    with pytest.raises(ValueError, match="not a range"):
        loads("1,2,4", 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "neither a list"),
        ("a,b", "neither a list"),
        ("1,,2", "neither a list"),
        ("4,2", "does not rise"),
        ("2,2", "does not rise"),
        ("0,1", "begin above 0"),
        ("800..50", "does not rise"),
        ("0..8", "does not rise from above 0"),
        ("1..8:4", "neither a list"),
        (",".join(map(str, range(1, 60))), f"more than {MAX_STEPS}"),
    ],
)
def test_other_loads_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        loads(text)


@given(
    st.floats(min_value=0.001, max_value=1000).map(lambda number: round(number, 3)),
    st.floats(min_value=1.001, max_value=1000).map(lambda number: round(number, 3)),
)
def test_a_range_doubles_from_its_first_to_its_last(first: float, factor: float) -> None:
    last = round(first * factor, 3)
    assume(last > first)
    found = loads(f"{first:.3f}..{last:.3f}")
    assert (found[0], found[-1]) == (first, last)
    assert all(1 < later / earlier <= 2.000001 for earlier, later in pairwise(found))


def test_figures_count_what_was_dropped_as_not_succeeded() -> None:
    recorder = Recorder(planned=4)
    settle(recorder, [0.1, 0.3])
    recorder.drop(2, 0.5)
    recorder.add(sample(3, "421"))
    found = figures(7, exported(run_of(recorder.snapshot(2.0))))
    assert (found.load, found.success_rate) == (7, 0.5)
    assert found.throughput_per_second == 1.0
    assert found.mean_seconds == pytest.approx(0.2)


def test_the_table_marks_what_is_rough_and_names_what_was_too_short() -> None:
    recorder = Recorder(planned=50)
    settle(recorder, [0.01] * 50)
    steps = [(1.0, exported(run_of(recorder.snapshot(0.5))))]
    steps[0][1]["generator"] |= {"was_bottleneck": True, "reason": "\x1b[2J"}
    made = sweep.document("127.0.0.1:2525", Parameter.CONCURRENT, steps)
    steps[0][1]["generator"]["advice"] = "Use another."
    out = io.StringIO()
    sweep_table.show(Console(file=out, width=100), made)
    shown = out.getvalue().replace("\N{NO-BREAK SPACE}", " ")
    assert "10.0 ms ~10.0 ms ~10.0 ms" in " ".join(shown.split())
    assert "~ rough: fewer than 10 values lie beyond it." in shown
    assert "1 of 1 steps were too short" in shown
    assert "\x1b" not in shown
    assert "at 1 (\\x1b[2J). Use another." in shown
    heads, row = (" ".join(line.split()) for line in shown.splitlines()[2:4])
    assert heads.endswith("dropped generator knee")
    assert row.endswith("0 bottleneck")
    assert "~10.0" in html_export.render(strict_json(json_export.encode(made)))


def test_the_document_is_strict_json_and_makes_a_page() -> None:
    steps = []
    for load in (1.0, 2.0, 4.0):
        recorder = Recorder(planned=3)
        settle(recorder, [0.01 * load] * 3)
        steps.append((load, exported(run_of(recorder.snapshot(1.0)))))
    made = sweep.document("127.0.0.1:2525", Parameter.CONCURRENT, steps, interrupted_by="SIGINT")
    read = strict_json(json_export.encode(made))
    assert (read["kind"], read["partial"], read["interrupted_by"]) == ("sweep", True, "SIGINT")
    assert [one["load"] for one in read["steps"]] == [1, 2, 4]
    assert read["knee"]["load"] is None
    assert "Sweep of 127.0.0.1:2525" in html_export.render(read)


def test_a_note_of_rough_figures_stands_only_where_one_is_shown() -> None:
    recorder = Recorder(planned=2000)
    settle(recorder, [0.01] * 2000)  # the p99.9 of which is rough, and not shown
    made = sweep.document(
        "127.0.0.1:2525", Parameter.CONCURRENT, [(1.0, exported(run_of(recorder.snapshot(9.0))))]
    )
    out = io.StringIO()
    sweep_table.show(Console(file=out, width=100), made)
    assert "rough" not in out.getvalue()
    assert "rough: " not in html_export.render(strict_json(json_export.encode(made)))
