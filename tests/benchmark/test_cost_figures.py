from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from bench.cost import table
from bench.cost.figures import (
    CostFigures,
    CostResults,
    RelayRow,
    WorkloadResult,
    medians,
    ratio,
)
from bench.cost.goals import Goal, GoalVerdict, goals
from bench.cost.workloads import WORKLOADS, Method, RelayName, workloads
from bench.load.messages import SameMessage
from bench.reconciliation import loop_lag

RTT_SECONDS = 0.04


def outcome(workload: str, **by_relay: list[CostFigures]) -> CostResults:
    rows = [
        RelayRow(relay=RelayName(name.replace("_", "-")), repeats=repeats)
        for name, repeats in by_relay.items()
    ]
    return CostResults(measured=[WorkloadResult(workload=WORKLOADS[workload], rows=rows)])


def cpu(*values: float) -> list[CostFigures]:
    return [CostFigures(cpu_us_per_message=value) for value in values]


def verdicts(measured: CostResults) -> dict[str, GoalVerdict]:
    return {
        f"{target.measure} {target.unit}": target.verdict
        for target in goals(measured, RTT_SECONDS)
        if target.verdict is not GoalVerdict.NOT_MEASURED
    }


def test_medians_leave_out_what_was_not_measured() -> None:
    repeats = [CostFigures(p50_ms=value, peak_mib=None) for value in (3.0, 1.0, 8.0)]
    assert medians(repeats) == CostFigures(p50_ms=3.0, messages=0, window_seconds=0.0)
    assert medians([]) == CostFigures()


def test_a_row_with_an_error_has_no_figures() -> None:
    row = RelayRow(relay=RelayName.PROXY, repeats=cpu(100.0), error="2 messages were lost")
    assert row.medians == CostFigures()
    measured = WorkloadResult(workload=WORKLOADS["kept"], rows=[row])
    assert measured.median(RelayName.PROXY) == CostFigures()


@pytest.mark.parametrize(("value", "base"), [(None, 1.0), (1.0, None), (1.0, 0.0)])
def test_a_ratio_that_cannot_be_said(value: float | None, base: float | None) -> None:
    assert ratio(value, base) is None


def test_nothing_measured_is_neither_reached_nor_missed() -> None:
    found = goals(CostResults(), RTT_SECONDS)
    assert len(found) == 13
    assert {target.verdict for target in found} == {GoalVerdict.NOT_MEASURED}


def test_cpu_is_compared_with_the_controls_medians() -> None:
    kept = outcome("kept", splice=cpu(40, 50, 900), proxy=cpu(90, 80, 130))
    assert verdicts(kept) == {"CPU a message, kept connection × splice": GoalVerdict.REACHED}
    large = outcome("large", naive=cpu(30_000), splice=cpu(600), proxy=cpu(3_001))
    assert verdicts(large) == {
        "CPU of a 1 MB message × splice": GoalVerdict.MISSED,
        "CPU of a 1 MB message ms": GoalVerdict.MISSED,
        "CPU of a 1 MB message × naive": GoalVerdict.REACHED,
    }


def test_the_worse_of_both_peaks_counts() -> None:
    memory = outcome(
        "memory", proxy=[CostFigures(peak_mib=80)], proxy_data=[CostFigures(peak_mib=121)]
    )
    assert list(verdicts(memory).values()) == [GoalVerdict.MISSED]


@pytest.mark.parametrize(("turns", "verdict"), [(1.004, "reached"), (1.02, "missed")])
def test_a_connection_opened_in_the_window_is_forgiven(turns: float, verdict: str) -> None:
    kept = outcome("kept", proxy=[CostFigures(turns_per_message=turns)])
    assert list(verdicts(kept).values()) == [verdict]


def test_a_minimum_is_missed_from_below() -> None:
    target = Goal(measure="", unit="", limit=0.8, value=0.79, is_minimum=True)
    assert target.verdict is GoalVerdict.MISSED


def test_lag_is_read_from_cumulative_buckets() -> None:
    name = "xoauth2_proxy_event_loop_lag_seconds"
    text = (
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{le="0.001"}} 5.0\n{name}_bucket{{le="0.02"}} 99.0\n'
        f'{name}_bucket{{le="+Inf"}} 100.0\n{name}_count 100.0\nother_bucket{{le="1"}} 7\n'
    )
    assert loop_lag.parse(text) == {0.001: 5, 0.02: 94, float("inf"): 1}
    assert loop_lag.p99_ms(loop_lag.parse(text)) == 20.0
    assert loop_lag.parse("nothing of the kind 1.0\n") == {}
    assert loop_lag.p99_ms(Counter({})) is None


def test_lag_beyond_the_last_bucket_is_not_below_it() -> None:
    assert loop_lag.p99_ms(Counter({0.02: 1, 1.0: 0, float("inf"): 1})) == 1000.0


def test_lag_of_all_rows_is_added() -> None:
    both = outcome("kept", proxy=cpu(1), proxy_data=cpu(1))
    for row in both.measured[0].rows:
        row.lag.update({0.01: 3, 0.02: 1})
    assert both.lag == {0.01: 6, 0.02: 2}


@pytest.mark.parametrize("size_bytes", [0, 1, 300, 4096, 1_000_000])
def test_the_content_is_whole_lines_stuffed_and_ended(size_bytes: int) -> None:
    octets = SameMessage(size_bytes).content(0, "").octets
    assert octets.endswith(b"\r\n.\r\n")
    assert octets.count(b"\r\n.\r\n") == 1
    assert octets.count(b"\n") == octets.count(b"\r\n")
    assert abs(len(octets) - size_bytes) < 300 + size_bytes // 1000
    assert (b"\r\n.." in octets) is (size_bytes >= 4096)


def test_quick_is_smaller_and_chooses_no_other_workloads() -> None:
    assert [one.name for one in workloads((), is_quick=False)] == list(WORKLOADS)
    (quick,) = workloads(("idle",), is_quick=True)
    assert (quick.name, quick.method) == ("idle", Method.IDLE)
    assert quick.crowd < WORKLOADS["idle"].crowd


def test_the_report_for_a_person() -> None:
    measured = outcome("kept", splice=cpu(50), proxy=cpu(200))
    measured.measured[0].rows += [
        RelayRow(relay=RelayName.NAIVE, error="3 messages were acknowledged, [2] arrived"),
        RelayRow(relay=RelayName.PROXY_DATA, skipped="no room"),
    ]
    text = io.StringIO()
    console = Console(file=text, width=80)
    table.show(console, measured, goals(measured, RTT_SECONDS))
    report = text.getvalue()
    assert "kept: 20 clients keep their connection" in report
    assert "naive: 3 messages were acknowledged, [2] arrived" in report
    assert "proxy-data: no room" in report
    (row,) = (line for line in report.splitlines() if line.startswith("proxy "))
    assert row.split()[:3] == ["proxy", "200", "4.00"]
    assert any(line.endswith("missed") for line in map(str.strip, report.splitlines()))
    assert "not measured" in report
