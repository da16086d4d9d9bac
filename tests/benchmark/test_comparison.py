from __future__ import annotations

import io
import itertools
import math
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.analysis.comparison import FIGURES, compare
from bench.analysis.confidence import interval, reach, runs_needed
from bench.reports import comparison_table, html_export, json_export
from tests.support.run_documents import run_document, steady

if TYPE_CHECKING:
    from collections.abc import Sequence

values = st.lists(st.floats(0.001, 1000), min_size=3, max_size=6)


def run(scale: float = 1.0, minute: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a run whose latencies are `scale` times, and its throughput a part of, the usual."""
    outcomes = steady(200, 0.01 * scale, per_second=100 / scale)
    usual = {"results__total_time_seconds": 2.0} | changes  # long enough for a measurement
    return run_document(outcomes, timestamp=f"2025-11-20T05:{minute:02}:00+00:00", **usual)


def runs(scales: Sequence[float], first_minute: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [run(scale, first_minute + 2 * at, **changes) for at, scale in enumerate(scales)]


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document["figures"]}


@given(values, values)
def test_the_other_way_round_the_interval_is_inverted(
    first: list[float], second: list[float]
) -> None:
    one, other = interval(first, second), interval(second, first)
    assert one is not None
    assert other is not None
    assert one.confidence == other.confidence
    assert one.low == pytest.approx(1 / other.high)
    assert one.ratio == pytest.approx(1 / other.ratio)
    assert one.low <= one.ratio <= one.high


@given(values, values, st.floats(0.01, 100))
def test_a_factor_on_one_side_is_a_factor_on_the_interval(
    first: list[float], second: list[float], factor: float
) -> None:
    plain, scaled = interval(first, second), interval(first, [one * factor for one in second])
    assert plain is not None
    assert scaled is not None
    assert scaled.low == pytest.approx(plain.low * factor)
    assert scaled.high == pytest.approx(plain.high * factor)


@pytest.mark.parametrize(("first", "second"), [(3, 3), (3, 4), (4, 4), (3, 6), (5, 5)])
def test_the_confidence_is_the_share_of_all_arrangements(first: int, second: int) -> None:
    """Each way to deal distinct values to two like sides is as probable as any other."""
    numbers = [float(2**power) for power in range(first + second)]
    dealt = list(itertools.combinations(numbers, first))
    covering, confidence = 0, 0.0
    for one in dealt:
        found = interval(one, [number for number in numbers if number not in one])
        assert found is not None
        covering += found.low < 1 < found.high
        confidence = found.confidence
    assert confidence == pytest.approx(covering / len(dealt))
    assert confidence >= 0.95 or (first, second) in {(3, 3), (3, 4)}


def test_of_like_sides_as_few_are_called_different_as_was_promised() -> None:
    chance = random.Random(5)
    told = 0
    for _ in range(1000):
        one, other = ([chance.lognormvariate(0, 0.5) for _ in range(4)] for _ in range(2))
        found = interval(one, other)
        assert found is not None
        told += not found.low <= 1 <= found.high
    assert told <= 50  # 2.9 % expected, 5 % allowed


def test_fewer_than_three_values_a_side_have_no_interval() -> None:
    assert interval([1.0, 1.0], [5.0] * 9) is None


def test_zeros_are_compared_without_a_number_that_is_not_finite_in_json() -> None:
    before = runs([1, 1, 1], results__success_rate=0.0)
    after = runs([1, 1, 1], results__success_rate=1.0)
    document = compare(before, after)
    success = by_name(document)["success"]
    assert success["verdict"] == "better"
    assert success["interval"]["high"] is None
    json_export.encode(document)
    both = by_name(compare(before, before))["success"]
    assert both["verdict"] == "no difference shown"


def test_one_run_a_side_cannot_tell_however_far_apart_they_are() -> None:
    document = compare([run(1)], [run(100)])
    assert {row["verdict"] for row in document["figures"]} == {"cannot tell"}  # type: ignore[attr-defined]
    assert document["verdict"] == "cannot tell"
    throughput = by_name(document)["throughput"]
    assert throughput["change"] == pytest.approx(-0.99)
    assert throughput["interval"] is None
    assert "not enough runs to tell: 1 and 1" in throughput["reason"]
    assert "Too few runs to decide: 1 against 1" in str(document["reason"])


def test_a_clear_change_is_better_or_worse_by_what_is_good_of_a_figure() -> None:
    slow, fast = [1.0, 1.01, 0.99, 1.02, 1.0], [0.8, 0.81, 0.79, 0.82, 0.8]
    better, worse = compare(runs(slow), runs(fast)), compare(runs(fast), runs(slow))
    for name in ("throughput", "mean", "p50", "p95", "p99"):
        assert by_name(better)[name]["verdict"] == "better", name
        assert by_name(worse)[name]["verdict"] == "worse", name
    assert (better["verdict"], worse["verdict"]) == ("better", "worse")
    p50 = by_name(better)["p50"]
    assert p50["change"] == pytest.approx(-0.2, abs=0.01)
    assert p50["interval"]["low"] <= 1 + p50["change"] <= p50["interval"]["high"] < 1
    assert p50["interval"]["confidence"] >= 0.95


def test_runs_that_overlap_show_no_difference() -> None:
    scales = [0.9, 1.1, 1.0, 0.95, 1.05]
    document = compare(runs(scales), runs(scales[::-1]))
    assert document["verdict"] == "no difference shown"


def test_a_change_smaller_than_what_matters_is_not_called_one() -> None:
    before, after = runs([1.0, 1.001, 0.999, 1.0]), runs([1.02, 1.021, 1.019, 1.02])
    assert compare(before, after)["verdict"] == "worse"
    assert compare(before, after, min_change=0.05)["verdict"] == "no difference shown"


def test_better_in_one_and_worse_in_another_is_both() -> None:
    before, after = runs([1] * 5), runs([1] * 5, results__throughput_rps=500.0)
    for each in after:
        each["results"]["success_rate"] = 0.9
    assert compare(before, after)["verdict"] == "better and worse"


def test_the_generators_own_cost_is_told_and_not_judged() -> None:
    after = runs([1, 1, 1, 1], generator__cpu_share=0.9)
    document = compare(runs([1, 1, 1, 1]), after)
    assert by_name(document)["cpu_share"]["verdict"] == "different"
    assert document["verdict"] == "no difference shown"


def test_figures_are_the_documents_own_and_never_computed_from_others() -> None:
    before = runs([1, 1, 1], results__total_time_seconds=12345.0)
    document = compare(before, runs([2, 2, 2]))
    paths = {figure.name: figure.path.split(".") for figure in FIGURES}
    for name, row in by_name(document).items():
        for side, documents in (("baseline", before), ("candidate", runs([2, 2, 2]))):
            for shown, one in zip(row[side]["runs"], documents, strict=True):
                found: Any = one
                for step in paths[name]:
                    found = found[step]
                assert shown == found


def test_a_figure_that_a_side_does_not_have_cannot_be_told() -> None:
    document = compare(runs([1, 1, 1]), [run_document() for _ in range(3)])
    p95 = by_name(document)["p95"]
    assert (p95["verdict"], p95["reason"]) == ("cannot tell", "a side has no such figure")
    assert p95["change"] is None


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(0, 0, "no difference shown"), (0, 1, "worse"), (2, 0, "better"), (1, 2, "cannot tell")],
)
def test_a_lost_message_needs_no_statistics(before: int, after: int, verdict: str) -> None:
    document = compare([run(reconciliation__lost=before)], [run(reconciliation__lost=after)])
    (lost,) = (row for row in document["counts"] if row["name"] == "lost")  # type: ignore[attr-defined]
    assert lost["verdict"] == verdict
    assert document["verdict"] == (verdict if verdict in {"better", "worse"} else "cannot tell")


def test_whether_mail_was_lost_is_not_guessed_where_it_was_not_checked() -> None:
    document = compare([run(), run(reconciliation=None)], [run()])
    assert document["counts"][0]["baseline"] is None  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"environment__python": "3.14"},
            "The machine or its software was not the same: python: 3.11.2 against 3.14.",
        ),
        (
            {"generator__was_bottleneck": True, "generator__reason": "CPU 99 %"},
            "In 1 of 1 run of the candidate the generator was the bottleneck (CPU 99 %)",
        ),
        ({"partial": True}, "1 run ended early"),
    ],
)
def test_what_makes_a_comparison_doubtful_is_said(changes: dict[str, Any], words: str) -> None:
    said = compare([run()], [run(**changes)])["warnings"]
    assert [one for one in said if words in one], said  # type: ignore[attr-defined]


def test_conditions_that_differ_are_listed_with_their_values() -> None:
    document = compare([run(), run(config__processes=2)], [run(environment__load_average=9.0)])
    assert document["differences"] == [
        {
            "field": "config.processes",
            "title": "processes",
            "baseline": [1, 2],
            "candidate": [1],
        }
    ]
    assert document["differs"] == []
    assert document["warnings"] == ["The runs of one side differ: processes: 1 or 2 against 1."]


def test_what_was_varied_on_purpose_is_told_with_its_values_and_not_warned_of() -> None:
    changes: dict[str, Any] = {
        "config__connection": "per-message",
        "config__messages_per_connection": 1,
        "config__is_pipelined": True,
        "config__slow_bytes_per_second": 2000.0,
        "config__warmup_seconds": 5.0,
        "config__sizes": "1m",
        "config__size_bytes": 1048576,
        "config__model": "open",
        "config__arrival_rate_per_second": 50.0,
        "config__max_lateness_seconds": 10.0,
    }
    document = compare([run()], [run(**changes)])
    assert document["differs"] == [
        "warm-up: 0 s against 5 s",
        "arrivals a second: none against 50",
        "connection: kept against per-message",
        "pipelined: no against yes",
        "sizes: 4096 against 1m",
        "bytes a second of content: none against 2000",
    ]
    row = '<th scope="row">warm-up</th><td class="words">0 s</td><td class="words">5 s</td>'
    assert row in html_export.render(document)
    assert document["warnings"] == []


def test_a_generator_at_its_limit_is_a_reservation_of_the_verdict() -> None:
    slow: dict[str, Any] = {"generator__was_bottleneck": True, "generator__reason": "CPU 99 %"}
    after = [*runs([2, 2, 2], 1), run(2, 59, **slow)]
    document = compare(runs([1, 1, 1, 1]), after)
    reservation = (
        "With a reservation: the generator was the bottleneck in 1 of 4 runs of the candidate, "
        "so that its limit may be what was compared, and not the target's."
    )
    assert document["reservation"] == reservation
    out = io.StringIO()
    comparison_table.show(Console(file=out, width=80), document)
    assert "Verdict: worse, with a reservation\n" in out.getvalue()
    assert out.getvalue().rstrip().endswith(reservation)
    page = html_export.render(document)
    assert "<h1>Comparison: worse, with a reservation</h1>" in page
    assert reservation.replace("'", "&#39;") in page
    assert compare(runs([1]), runs([1]))["reservation"] is None


def test_what_to_beware_of_stands_above_the_figures_in_lines_of_whole_words() -> None:
    document = compare(
        runs([1, 1, 1]), runs([2, 2, 2], config__concurrent=20, environment__python="3.14")
    )
    lines = []
    for is_terminal in (True, False):
        out = io.StringIO()
        comparison_table.show(Console(file=out, width=60, force_terminal=is_terminal), document)
        lines.append(re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines())
    terminal, elsewhere = lines
    assert elsewhere[0] == "Differs: connections at once: 10 against 20"
    assert elsewhere[1].startswith("Beware: The machine or its software")
    figures = next(at for at, one in enumerate(elsewhere) if one.startswith("Throughput"))
    assert figures > 1
    words = " ".join(" ".join(elsewhere).split()).split()
    assert set(" ".join(terminal).split()) <= set(words)  # none is cut
    prose = [one for one in terminal if "   " not in one]
    assert all(len(one) <= 60 for one in prose)


def test_two_addresses_are_listed_and_not_warned_of() -> None:
    document = compare([run()], [run(target="127.0.0.1:9")])
    assert [row["field"] for row in document["differences"]] == ["target"]  # type: ignore[attr-defined]
    assert document["warnings"] == []


def test_sides_measured_one_after_the_other_are_doubted_and_in_turn_are_not() -> None:
    scales = [1.0, 1.01, 0.99, 1.0]
    assert "in turn" in str(compare(runs(scales), runs(scales, 30))["warnings"])
    assert compare(runs(scales), runs(scales, 1))["warnings"] == []


def test_no_run_is_no_side() -> None:
    with pytest.raises(ValueError, match="a run"):
        compare([], [run()])


def test_the_table_shows_each_figure_with_its_verdict_and_no_markup() -> None:
    document = compare(runs([1, 1, 1]), runs([2, 2, 2], target="[bold]host[/]:25"))
    out = io.StringIO()
    comparison_table.show(Console(file=out, width=80), document)
    lines = out.getvalue().splitlines()
    (throughput,) = (line for line in lines if line.startswith("Throughput"))
    assert throughput.split()[-1] == "worse"
    assert "at 90 % confidence" in lines[0]  # three runs a side: no more
    assert all(len(line) <= 80 for line in lines[1:13])
    assert lines[-2] == "Verdict: cannot tell"
    assert lines[-1].startswith("Too few runs to decide: 3 against 3.")


@given(st.lists(st.floats(0, 1e9), min_size=3, max_size=5), st.lists(st.floats(0, 1e9), min_size=3))
def test_any_figures_give_json(first: list[float], second: list[float]) -> None:
    before = [run_document(results__throughput_rps=one) for one in first]
    after = [run_document(results__throughput_rps=one) for one in second]
    document = compare(before, after)
    json_export.encode(document)
    change = by_name(document)["throughput"]["change"]
    assert change is None or math.isfinite(change)


# What decides


PROVIDER = {
    "behaviour": {"dialect": "outlook", "rtt_seconds": 0.08, "withhold": []},
    "faults": [{"step": "end", "action": "drop", "rate": 0.01, "nth": 1}],
    "token_endpoint": {"ttl_seconds": 3600.0, "rotation": "none"},
    "seed": 7,
}


class Relay:
    """Draws runs of a relay: noisy figures that go together, and maybe some failures."""

    def __init__(self, seed: int, *, noise: float, failures: float) -> None:
        self._chance = random.Random(seed)
        self._noise, self._failures = noise, failures
        self._usual = run()

    def runs(self, count: int, speed: float = 1.0) -> list[dict[str, Any]]:
        return [self._run(speed) for _ in range(count)]

    def _run(self, speed: float) -> dict[str, Any]:
        common = self._chance.gauss(0, 1)
        results = dict(self._usual["results"])
        latency = {
            name: self._noisy(0.01 / speed, -common)
            for name in ("avg_seconds", "p50_seconds", "p95_seconds", "p99_seconds")
        }
        results["throughput_rps"] = self._noisy(1000 * speed, common)
        results["latency"] = results["latency"] | latency
        if self._failures:
            failed = sum(self._chance.random() < self._failures for _ in range(200))
            results["success_rate"] = 1 - failed / 200
        return self._usual | {"results": results}

    def _noisy(self, usual: float, common: float) -> float:
        return usual * max(0.1, 1 + self._noise * (0.6 * common + 0.8 * self._chance.gauss(0, 1)))


@pytest.mark.parametrize("failures", [0.0, 0.02])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_relay_compared_with_itself_is_seldom_called_better_or_worse(
    count: int, failures: float
) -> None:
    relay = Relay(count, noise=0.05, failures=failures)
    verdicts = [compare(relay.runs(count), relay.runs(count))["verdict"] for _ in range(250)]
    told = sum(verdict in {"better", "worse", "better and worse"} for verdict in verdicts)
    assert told / 250 <= (0.0 if count < 4 else 0.08)  # 5 % promised, and the chance of 250 draws


@pytest.mark.parametrize("failures", [0.0, 0.02])
def test_a_fifth_less_throughput_is_found_with_five_runs_a_side(failures: float) -> None:
    relay = Relay(5, noise=0.05, failures=failures)
    verdicts = [compare(relay.runs(5), relay.runs(5, 0.8))["verdict"] for _ in range(100)]
    assert verdicts.count("worse") >= 95


def test_a_figure_that_was_not_named_in_advance_does_not_decide() -> None:
    after = runs([1] * 5, results__latency__p99_seconds=9.0)
    document = compare(runs([1] * 5), after)
    p99 = by_name(document)["p99"]
    assert (p99["verdict"], p99["decides"]) == ("worse", False)
    assert document["verdict"] == "no difference shown"
    assert "Throughput, Success rate: nothing beyond chance" in str(document["reason"])
    assert document["method"]["decided_by"] == ["throughput", "success"]  # type: ignore[index]


def open_runs(p95: Sequence[float], dropped: Sequence[int]) -> list[dict[str, Any]]:
    return [
        run(
            config__model="open",
            results__latency__p95_seconds=one,
            results__dropped=count,
            results__throughput_rps=100 + one,
        )
        for one, count in zip(p95, dropped, strict=True)
    ]


def test_in_the_open_model_latency_and_dropped_messages_decide() -> None:
    usual, none = [0.010, 0.011, 0.012, 0.013], [0] * 4
    slow, many = [0.020, 0.021, 0.022, 0.023], [7, 8, 9, 10]
    before = open_runs(usual, none)
    assert compare(before, open_runs(slow, none))["verdict"] == "worse"
    assert compare(before, open_runs(usual, many))["verdict"] == "cannot tell"
    usual, none, many = [*usual, 0.014], [*none, 0], [*many, 11]
    document = compare(open_runs(usual, none), open_runs(usual, many))
    assert document["verdict"] == "worse"
    assert by_name(document)["dropped"]["interval"]["low"] is None  # from none to some: infinite
    assert "Dropped is worse" in str(document["reason"])
    json_export.encode(document)


def test_what_fails_at_random_takes_another_run_a_side() -> None:
    before, after = runs([1, 1.01, 1.02, 1.03]), runs([2, 2.01, 2.02, 2.03])
    assert compare(before, after)["verdict"] == "worse"
    before[0]["results"]["success_rate"] = 0.99
    document = compare(before, after)
    assert document["verdict"] == "cannot tell"
    assert "4 against 4. Measure each side at least 5 times" in str(document["reason"])
    assert compare([*before, run(0.99)], [*after, run(1.99)])["verdict"] == "worse"


def test_a_side_that_sends_nothing_at_all_is_worse_however_few_the_runs() -> None:
    dead = run_document([(0.5, "535")])
    assert compare([run()], [dead])["verdict"] == "worse"
    assert compare([dead], [run()])["verdict"] == "better"
    assert compare([dead], [dead])["verdict"] == "cannot tell"
    assert compare([run(), dead], [dead])["verdict"] == "cannot tell"
    assert "No message succeeded in any of the candidate's" in str(
        compare([run()], [dead])["reason"]
    )


def test_the_number_of_runs_for_a_confidence() -> None:
    assert reach(2, 9) == 0
    assert reach(3, 3) == pytest.approx(0.9)
    assert [runs_needed(1 - 0.05 / figures) for figures in (1, 2, 3, 7)] == [4, 5, 5, 6]


def test_the_change_is_named_for_what_it_is_where_it_contradicts_the_medians() -> None:
    first, second = [1000.0, 1100, 1260, 2000, 2100], [900.0, 950, 1687, 1700, 1750]
    before = [run(results__throughput_rps=one) for one in first]
    after = [run(results__throughput_rps=one) for one in second]
    document = compare(before, after)
    throughput = by_name(document)["throughput"]
    assert throughput["baseline"]["median"] < throughput["candidate"]["median"]
    assert throughput["change"] < 0
    assert throughput["change_of"] == "pairs"
    out = io.StringIO()
    comparison_table.show(Console(file=out, width=80), document)
    assert "pairs' change" in out.getvalue()
    assert "need not be that of the two medians" in out.getvalue()
    assert by_name(compare(before[:1], after[:1]))["throughput"]["change_of"] == "medians"


def test_another_provider_is_another_condition() -> None:
    settings: dict[str, Any] = PROVIDER
    gmail = settings | {"behaviour": settings["behaviour"] | {"dialect": "gmail"}, "seed": 8}
    document = compare([run(provider_settings=settings)], [run(provider_settings=gmail)])
    assert document["differences"] == [
        {
            "field": "provider_settings.behaviour.dialect",
            "title": "provider's profile",
            "baseline": ["outlook"],
            "candidate": ["gmail"],
        },
        {
            "field": "provider_settings.seed",
            "title": "provider's seed",
            "baseline": [7],
            "candidate": [8],
        },
    ]
    assert document["differs"] == [
        "provider's profile: outlook against gmail",
        "provider's seed: 7 against 8",
    ]
    faultless = compare(
        [run(provider_settings=settings)], [run(provider_settings=settings | {"faults": []})]
    )
    assert faultless["differs"] == ["provider's faults: end:drop:rate=0.01 against none"]
    same = compare([run(provider_settings=settings)], [run(provider_settings=settings)])
    assert same["differences"] == []


def test_a_provider_that_is_not_known_is_null_in_older_documents_too() -> None:
    older = run()
    del older["provider_settings"]
    assert compare([older], [run()])["differences"] == []
    document: dict[str, Any] = compare([older], [run(provider_settings=PROVIDER)])
    (row,) = document["differences"]
    assert (row["field"], row["baseline"]) == ("provider_settings", [None])
    assert "outlook" in row["candidate"][0]
    assert "end:drop:rate=0.01" in row["candidate"][0]


def test_runs_that_are_too_short_to_measure_are_doubted() -> None:
    document = compare([run()], [run(results__total_time_seconds=0.08)])
    assert "1 of 2 runs were too short" in str(document["warnings"])
