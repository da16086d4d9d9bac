from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cost import lag, table
from bench.cost.content import content
from bench.cost.figures import Figures, Measured, Outcome, Row, medians, p99_ms, ratio
from bench.cost.goals import Target, Verdict, targets
from bench.cost.plan import WORKLOADS, Method, RelayName, mailbox, workloads

RTT_SECONDS = 0.04


def outcome(workload: str, **by_relay: list[Figures]) -> Outcome:
    rows = [
        Row(relay=RelayName(name.replace("_", "-")), repeats=repeats)
        for name, repeats in by_relay.items()
    ]
    return Outcome(measured=[Measured(workload=WORKLOADS[workload], rows=rows)])


def cpu(*values: float) -> list[Figures]:
    return [Figures(cpu_us_per_message=value) for value in values]


def verdicts(measured: Outcome) -> dict[str, Verdict]:
    return {
        f"{target.measure} {target.unit}": target.verdict
        for target in targets(measured, RTT_SECONDS)
        if target.verdict is not Verdict.NOT_MEASURED
    }


def test_medians_leave_out_what_was_not_measured() -> None:
    repeats = [Figures(p50_ms=value, peak_mib=None) for value in (3.0, 1.0, 8.0)]
    assert medians(repeats) == Figures(p50_ms=3.0, messages=0, window_seconds=0.0)
    assert medians([]) == Figures()


def test_a_row_with_an_error_has_no_figures() -> None:
    row = Row(relay=RelayName.PROXY, repeats=cpu(100.0), error="2 messages were lost")
    assert row.medians == Figures()
    measured = Measured(workload=WORKLOADS["kept"], rows=[row])
    assert Outcome(measured=[measured]).has_errors


@pytest.mark.parametrize(("value", "base"), [(None, 1.0), (1.0, None), (1.0, 0.0)])
def test_a_ratio_that_cannot_be_said(value: float | None, base: float | None) -> None:
    assert ratio(value, base) is None


def test_nothing_measured_is_neither_reached_nor_missed() -> None:
    found = targets(Outcome(), RTT_SECONDS)
    assert len(found) == 12
    assert {target.verdict for target in found} == {Verdict.NOT_MEASURED}


def test_cpu_is_compared_with_the_controls_medians() -> None:
    kept = outcome("kept", splice=cpu(40, 50, 900), proxy=cpu(125, 100, 130))
    assert verdicts(kept) == {"CPU a message, kept connection × splice": Verdict.REACHED}
    large = outcome("large", naive=cpu(30_000), proxy=cpu(3_001))
    assert verdicts(large) == {
        "CPU of a 1 MB message ms": Verdict.MISSED,
        "CPU of a 1 MB message × naive": Verdict.REACHED,
    }


def test_the_worse_of_both_peaks_counts() -> None:
    memory = outcome("memory", proxy=[Figures(peak_mib=80)], proxy_data=[Figures(peak_mib=121)])
    assert list(verdicts(memory).values()) == [Verdict.MISSED]


@pytest.mark.parametrize(("turns", "verdict"), [(1.004, "reached"), (1.02, "missed")])
def test_a_connection_opened_in_the_window_is_forgiven(turns: float, verdict: str) -> None:
    kept = outcome("kept", proxy=[Figures(turns_per_message=turns)])
    assert list(verdicts(kept).values()) == [verdict]


def test_a_minimum_is_missed_from_below() -> None:
    target = Target(measure="", unit="", limit=0.8, value=0.79, is_minimum=True)
    assert target.verdict is Verdict.MISSED


def test_lag_is_read_from_cumulative_buckets() -> None:
    name = "xoauth2_proxy_event_loop_lag_seconds"
    text = (
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{le="0.001"}} 5.0\n{name}_bucket{{le="0.02"}} 99.0\n'
        f'{name}_bucket{{le="+Inf"}} 100.0\n{name}_count 100.0\nother_bucket{{le="1"}} 7\n'
    )
    assert lag.parse(text) == {0.001: 5, 0.02: 94, float("inf"): 1}
    assert p99_ms(lag.parse(text)) == 20.0
    assert lag.parse("nothing of the kind 1.0\n") == {}
    assert p99_ms({}) is None


def test_lag_beyond_the_last_bucket_is_not_below_it() -> None:
    assert p99_ms({0.02: 1, 1.0: 0, float("inf"): 1}) == 1000.0


def test_lag_of_all_rows_is_added() -> None:
    both = outcome("kept", proxy=cpu(1), proxy_data=cpu(1))
    for row in both.measured[0].rows:
        lag.add(row.lag, lag.difference({0.01: 5, 0.02: 1}, {0.01: 2}))
    assert both.lag == {0.01: 6, 0.02: 2}


@pytest.mark.parametrize("size_bytes", [0, 1, 300, 4096, 1_000_000])
def test_the_content_is_whole_lines_stuffed_and_ended(size_bytes: int) -> None:
    message = content(size_bytes)
    assert message.wire.endswith(b"\r\n.\r\n")
    assert message.wire.count(b"\r\n.\r\n") == 1
    assert message.wire.count(b"\n") == message.wire.count(b"\r\n")
    assert abs(len(message.wire) - size_bytes) < 300 + size_bytes // 1000
    assert (b"\r\n.." in message.wire) is (size_bytes >= 4096)


def test_quick_is_smaller_and_chooses_no_other_workloads() -> None:
    assert [one.name for one in workloads((), is_quick=False)] == list(WORKLOADS)
    (quick,) = workloads(("idle",), is_quick=True)
    assert (quick.name, quick.method) == ("idle", Method.IDLE)
    assert quick.crowd < WORKLOADS["idle"].crowd


def test_mailboxes_are_different() -> None:
    assert len({mailbox(number) for number in range(50)}) == 50


def test_the_report_for_a_person() -> None:
    measured = outcome("kept", splice=cpu(50), proxy=cpu(200))
    measured.measured[0].rows += [
        Row(relay=RelayName.NAIVE, error="3 messages were acknowledged, [2] arrived"),
        Row(relay=RelayName.PROXY_DATA, skipped="no room"),
    ]
    text = io.StringIO()
    console = Console(file=text, width=80)
    table.show(console, measured, targets(measured, RTT_SECONDS))
    report = text.getvalue()
    assert "kept: 20 clients keep their connection" in report
    assert "naive: 3 messages were acknowledged, [2] arrived" in report
    assert "proxy-data: no room" in report
    (row,) = (line for line in report.splitlines() if line.startswith("proxy "))
    assert row.split()[:3] == ["proxy", "200", "4.00"]
    assert any(line.endswith("missed") for line in map(str.strip, report.splitlines()))
    assert "not measured" in report
