from __future__ import annotations

import io
import os
import re
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.recorder import Recorder
from bench.reports import json_export, terminal
from bench.result import Failure, NotReconciled, Reconciliation, Sample
from tests.benchmark.runs import exported, run_of, settle, strict_json

if TYPE_CHECKING:
    from pathlib import Path

OUTCOMES = st.lists(
    st.one_of(st.floats(0, 100), st.sampled_from(("550", "timeout", "connection refused"))),
    max_size=30,
)
CLEAN = Reconciliation(acknowledged=2, arrived=2, lost=0, duplicated=0, corrupted=0, unexpected=0)


@given(OUTCOMES, st.integers(0, 5), st.floats(0, 1000), st.sampled_from(("", "SIGINT")))
def test_json_is_valid_and_agrees_with_the_screen(
    outcomes: list[str | float], rest: int, wall_seconds: float, interrupted_by: str
) -> None:
    recorder = Recorder(len(outcomes) + rest)
    settle(recorder, outcomes)
    run = run_of(recorder.snapshot(wall_seconds, interrupted_by))
    results = exported(run)["results"]
    text = terminal.render(run)
    assert results["planned"] == (
        results["successful"] + results["failed"] + results["not_attempted"]
    )
    rate = results["throughput_rps"]
    shown = "–" if rate is None else f"{rate:.2f}"
    assert f"Overall:       {shown} requests/sec" in text
    assert f"Successful:      {results['successful']}\n" in text
    p95 = results["latency"]["p95_seconds"]
    assert f"P95:           {'–' if p95 is None else f'{p95:.4f}'}\n" in text


def test_layout_of_the_report() -> None:
    recorder = Recorder(3)
    settle(recorder, [0.1, 0.2, "550"])
    lines = terminal.render(run_of(recorder.snapshot(1.0), CLEAN)).splitlines()
    heads = [line.split(":")[0].strip() for line in lines if line]
    assert lines[9:12] == ["=" * 80, "LOAD TEST RESULTS", "=" * 80]
    for expected in (
        *("Target", "Total emails", "Concurrent connections", "From", "To"),
        *("Total time", "Total requests", "Successful", "Failed", "Success rate"),
        *("Throughput", "Overall", "Per minute", "Latency (seconds)", "Min", "Max", "Average"),
        *("P50 (median)", "P95", "P99", "Errors (1)", "Lost", "Duplicated", "Corrupted"),
    ):
        assert expected in heads
    assert "  550 because: 1" in lines
    assert "Success rate:    66.66 %" in lines


def test_a_partial_run_says_so_and_how_many_were_sent() -> None:
    recorder = Recorder(5)
    settle(recorder, [0.1, 0.2, "550"])
    run = run_of(recorder.snapshot(1.0, "SIGTERM"))
    text = terminal.render(run)
    assert "LOAD TEST RESULTS (PARTIAL)" in text
    assert "Stopped after 2 successful sends (SIGTERM)" in text
    assert exported(run)["partial"] is True


def test_all_but_one_is_not_shown_as_all() -> None:
    recorder = Recorder(100_000)
    settle(recorder, [0.001] * 99_999 + ["550"])
    assert "Success rate:    99.99 %" in terminal.render(run_of(recorder.snapshot(1.0)))


def test_reconciliation_that_was_impossible_is_null_with_its_reason() -> None:
    run = run_of(Recorder(1).snapshot(0.0), NotReconciled("the proxy runs without the sandbox"))
    document = exported(run)
    assert document["reconciliation"] is None
    assert document["reconciliation_not_checked_because"] == "the proxy runs without the sandbox"
    assert "not checked (the proxy runs without the sandbox)" in terminal.render(run)


def test_document_names_and_version() -> None:
    recorder = Recorder(2)
    settle(recorder, [0.1, 0.2])
    document = exported(run_of(recorder.snapshot(1.0), CLEAN))
    assert document["schema_version"] == 1
    assert document["reconciliation"]["lost"] == 0
    assert set(document["results"]["latency"]) == {
        *("min_seconds", "max_seconds", "avg_seconds"),
        *("p50_seconds", "p95_seconds", "p99_seconds"),
    }
    assert set(document["results"]["phases"]) == {"connect", "auth", "transaction"}
    assert document["environment"]["loop"] == "asyncio"


def test_comparison_shows_the_change_in_percent() -> None:
    first, second = Recorder(2), Recorder(2)
    settle(first, [0.1, 0.1])
    settle(second, [0.05, 0.05])
    runs = [run_of(first.snapshot(2.0)), run_of(second.snapshot(1.0))]
    document = strict_json(json_export.encode(json_export.comparison_document(runs)))
    assert document["comparison"]["throughput_rps"]["change_percent"] == 100.0
    assert document["partial"] is False
    text = terminal.render_comparison(*runs)
    assert re.search(r"Throughput \(requests/sec\) +1\.00 +2\.00 +\+100\.0 %", text)
    assert re.search(r"P95 latency \(seconds\) +0\.1000 +0\.0500 +-50\.0 %", text)


def test_comparison_with_one_run_is_partial() -> None:
    document = json_export.comparison_document([run_of(Recorder(1).snapshot(0.0))])
    assert document["comparison"] is None
    assert document["partial"] is True


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_export.encode({"x": float("inf")})


def test_writing_leaves_a_whole_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    json_export.write({"a": "é"}, path)
    assert strict_json(path.read_text("utf-8")) == {"a": "é"}
    assert os.listdir(tmp_path) == ["result.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.mkdir()
    with pytest.raises(OSError, match="result"):
        json_export.write({}, path)
    assert os.listdir(tmp_path) == ["result.json"]


def test_words_of_a_server_are_not_markup() -> None:
    recorder = Recorder(1)
    failure = Failure("550", "[bold red]no[/]")
    recorder.add(Sample(number=0, latency_seconds=0.1, failure=failure))
    out = io.StringIO()
    terminal.show(Console(file=out), terminal.render(run_of(recorder.snapshot(1.0))))
    assert "  550 [bold red]no[/]: 1\n" in out.getvalue()
