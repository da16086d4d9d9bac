from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.analysis import assertions, sample_size
from bench.load.generator_usage import GeneratorUsage
from bench.measurement.recorder import Recorder
from bench.measurement.result import (
    IdleClientFigures,
    NotReconciled,
    ProviderFigures,
    Reconciliation,
)
from bench.measurement.sample import SendFailure
from bench.plan.arrivals import Pace, Rate
from bench.plan.workloads import ConnectionReuse, Recipients, Sizes, Workload
from bench.reports import formatting, html_export, json_export, terminal
from tests.benchmark.runs import exported, plan, run_of, sample, settle, strict_json

if TYPE_CHECKING:
    from pathlib import Path

    from bench.plan.scenarios import RunPlan

OUTCOMES = st.lists(
    st.one_of(st.floats(0, 100), st.sampled_from(("550", "timeout", "connection refused"))),
    max_size=30,
)
CLEAN = Reconciliation(acknowledged=2, arrived=2, lost=0, duplicated=0, corrupted=0, unexpected=0)


OPEN = Pace(num_emails=40, rate=Rate(per_second=20))


def shown_figures(text: str) -> dict[str, str]:
    """Return what the screen says, by its label; a heading stands before the labels below it."""
    figures: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if not colon:
            continue
        if not line.startswith(" "):
            heading = label.partition(" (")[0]
        name = f"{heading}/{label.strip()}" if line.startswith(" ") else heading
        figures.setdefault(name, value.strip())
    return figures


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@given(
    OUTCOMES,
    st.integers(0, 5),
    st.floats(0, 1000),
    st.sampled_from(("", "SIGINT")),
    st.sampled_from((plan(40), plan(40, pace=OPEN))),
)
def test_json_is_valid_and_agrees_with_the_screen(
    outcomes: list[str | float], rest: int, wall_seconds: float, interrupted_by: str, what: RunPlan
) -> None:
    recorder = Recorder(len(outcomes) + rest)
    for message, outcome in enumerate(outcomes):
        if outcome == "timeout":
            recorder.drop(message, 1.0)
        else:
            recorder.add(sample(message, outcome))
    run = run_of(recorder.snapshot(wall_seconds, interrupted_by), plan=what)
    results = exported(run)["results"]
    shown = shown_figures(terminal.render(run))
    assert results["planned"] == sum(
        results[name] for name in ("successful", "failed", "not_attempted", "dropped")
    )
    for label, name in (
        ("Attempted", "total_requests"),
        ("Successful", "successful"),
        ("Failed", "failed"),
        ("Not attempted", "not_attempted"),
        ("Dropped", "dropped"),
        ("Late starts", "late_starts"),
    ):
        assert shown[label] == str(results[name])
    assert shown["Total time"] == f"{results['total_time_seconds']:.2f} s"
    rate = number(results["throughput_rps"], 2)
    assert shown["Throughput/Overall"].startswith(f"{rate} messages/s")
    assert shown["Throughput/Per minute"] == number(results["throughput_rpm"], 2)
    titles = {"Latency": "latency"}
    if what.pace is OPEN:
        titles["Service time"] = "service_time"
    for title, name in titles.items():
        for label, figure in (
            *(("Min", "min"), ("Max", "max"), ("Average", "avg"), ("P50 (median)", "p50")),
            *(("P90", "p90"), ("P95", "p95"), ("P99", "p99"), ("P99.9", "p999")),
        ):
            told = formatting.figure(results[name], figure)
            assert shown[f"{title}/{label}"] == told.replace("\N{NO-BREAK SPACE}", " ")
            assert told.startswith("~") is (f"{figure}_seconds" in results[name]["rough"])


def test_layout_of_the_report() -> None:
    recorder = Recorder(3)
    settle(recorder, [0.1, 0.2, "550"])
    lines = terminal.render(run_of(recorder.snapshot(1.0), CLEAN)).splitlines()
    heads = [line.split(":")[0].strip() for line in lines if line]
    assert lines[9:12] == ["=" * 80, "LOAD TEST RESULTS", "=" * 80]
    for expected in (
        *("Target", "Messages", "Concurrent connections", "From", "To"),
        *("Total time", "Attempted", "Successful", "Failed", "Success rate"),
        *("Throughput", "Overall", "Per minute", "Latency", "Min", "Max", "Average"),
        *("P50 (median)", "P95", "P99", "Errors (1)", "Lost", "Duplicated", "Corrupted"),
    ):
        assert expected in heads
    assert "  550 because: 1" in lines
    assert "Success rate:    66.67 %" in lines


def test_a_partial_run_says_so_and_how_many_were_sent() -> None:
    recorder = Recorder(5)
    settle(recorder, [0.1, 0.2, "550"])
    run = run_of(recorder.snapshot(1.0, "SIGTERM"))
    text = terminal.render(run)
    assert "LOAD TEST RESULTS (PARTIAL)" in text
    assert "Stopped after 2 successful messages (SIGTERM)" in text
    assert exported(run)["partial"] is True


def test_all_but_one_is_not_shown_as_all() -> None:
    recorder = Recorder(100_000)
    settle(recorder, [0.001] * 99_999 + ["550"])
    assert "Success rate:    99.99 %" in terminal.render(run_of(recorder.snapshot(1.0)))


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_screen_and_page_say_the_same_of_success(succeeded: int, failed: int) -> None:
    recorder = Recorder(succeeded + failed)
    settle(recorder, [0.001] * succeeded + ["550"] * failed)
    run = run_of(recorder.snapshot(1.0))
    screen = shown_figures(terminal.render(run))["Success rate"]
    page = formatting.percent(json_export.document(run)["results"]["success_rate"])  # type: ignore[index]
    assert screen == page.replace("\N{NO-BREAK SPACE}", " ")
    assert screen != "100 %"
    assert (screen == "0 %") is (succeeded == 0)


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
    assert (document["schema_version"], document["kind"]) == (2, "run")
    assert document["reconciliation"]["lost"] == 0
    assert document["environment"]["loop"] == "asyncio"


def test_every_wish_is_in_the_document_and_on_the_screen() -> None:
    workload = Workload(
        sizes=Sizes.parse("4k:70,1m:5"),
        recipients=Recipients(1, 5),
        reuse=ConnectionReuse(20),
        is_pipelined=True,
        slow_bytes_per_second=9000.0,
        idle_clients=7,
    )
    pace = Pace(
        duration_seconds=5,
        warmup_seconds=2,
        rate=Rate(per_second=20, ramp_from_per_second=5, ramp_seconds=3),
    )
    mailboxes = tuple(f"m{number}@x.test" for number in range(12))
    what = plan(pace=pace, workload=workload, mailboxes=mailboxes)
    recorder = Recorder(pace.planned, pace.warmup_seconds)
    recorder.add(sample(0, 0.1, is_warmup=True))
    provider = ProviderFigures(
        connections_opened=3,
        peak_connections_per_mailbox=2,
        auth_accepted=3,
        auth_refused=0,
        transactions_accepted=1,
        transactions_refused=0,
        turns=9,
        token_requests=None,
    )
    idle = IdleClientFigures(clients=7, refused=1, lost=2)
    result = recorder.snapshot(0.0, "SIGINT")
    run = run_of(result, plan=what, provider=provider, idle_clients=idle)
    document = exported(run)
    config = document["config"]
    assert (config["model"], config["duration_seconds"], config["num_emails"]) == ("open", 5, None)
    assert (config["ramp_from_per_second"], config["ramp_seconds"]) == (5, 3)
    assert (config["connection"], config["messages_per_connection"]) == ("20-messages", 20)
    assert (config["sizes"], config["size_bytes"]) == ("4k:70,1m:5", None)
    assert (config["mailboxes"], len(config["from_emails"])) == (12, 10)
    assert document["warmup"] == {"seconds": 2, "requests": 1, "failed": 0, "dropped": 0}
    assert document["idle_crowd"] == {"clients": 7, "refused": 1, "lost": 2}
    assert document["provider"]["token_requests"] is None
    text = terminal.render(run)
    for line in (
        "Arrivals:                20 a second, from 5 within 3 s\n",
        "Warm-up:                 2 s\n",
        "Message size:            4k:70,1m:5\n",
        "20 messages a connection, pipelined, 1-5 recipients a message, ",
        "content at 9000 bytes/s, 7 idle clients\n",
        "Warm-up:         1 message, 0 failed, 0 dropped; not counted above\n",
        "Idle clients:    7, 1 refused, 2 lost\n",
        "  Turns:         9 round trips that were waited for\n",
        "  Connections:   3 opened, peak 2 a mailbox\n",
    ):
        assert line in text


def test_a_run_by_duration_in_the_closed_model_plans_no_number() -> None:
    run = run_of(Recorder(None).snapshot(0.0), plan=plan(pace=Pace(duration_seconds=3)))
    results = exported(run)["results"]
    assert (results["planned"], results["not_attempted"]) == (None, None)
    assert "Not attempted:   –\n" in terminal.render(run)


def test_an_error_is_told_with_its_step_on_screen_page_and_in_json() -> None:
    recorder = Recorder(3)
    for number, failure in enumerate(
        (
            SendFailure("535", "5.7.8 no", "AUTH"),
            SendFailure("535", "5.7.8 no", "AUTH"),
            SendFailure("535", ""),
        )
    ):
        recorder.add(sample(number, "535", failure=failure))
    run = run_of(recorder.snapshot(1.0))
    document = exported(run)
    assert document["errors"] == [
        {"step": "AUTH", "code": "535", "text": "5.7.8 no", "count": 2},
        {"step": None, "code": "535", "text": "", "count": 1},
    ]
    (checked,) = assertions.check(document, ["errors.535==3"])
    assert checked["is_met"]
    assert "Errors (3):\n  AUTH: 535 5.7.8 no: 2\n  535: 1\n" in terminal.render(run)
    page = html_export.render(document)
    assert '<th scope="col" class="words">Step</th>' in page
    assert '<tr><td class="words">AUTH</td><th scope="row" class="words">535</th>' in page
    assert '<desc id="errors-wide-desc">535: 3</desc>' in page


def test_the_columns_of_the_phases_are_aligned_whatever_their_units() -> None:
    recorder = Recorder(4)
    for number, seconds in enumerate((0.000412, 0.00123, 0.0456, 4000.0)):
        recorder.add(sample(number, seconds, connect_seconds=seconds * 10))
    lines = terminal.render(run_of(recorder.snapshot(4001.0))).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Phases:"))
    table = lines[at : at + 4]
    assert len({len(line) for line in table}) == 1
    assert "412 µs" in table[3]
    assert "1 h 6 min" in table[3]
    heads = re.finditer(r"\S+", table[0])
    edges = [head.end() for head in heads][1:]
    for row in table[1:]:
        assert all(row[edge : edge + 2] in ("", "  ") for edge in edges)
        assert all(row[edge - 1] != " " for edge in edges)


def test_nothing_on_the_screen_is_called_a_request_or_an_email() -> None:
    recorder = Recorder(2, 1.0)
    settle(recorder, [0.1, "550"])
    shown = terminal.render(run_of(recorder.snapshot(1.0), CLEAN))
    assert not re.search(r"(?i)request|e-?mail|\bsends\b", shown.replace("@gmail", ""))


def test_connections_that_were_open_before_are_no_failure() -> None:
    recorder = Recorder(2, 5.0)
    recorder.add(sample(0, 0.1, is_warmup=True))
    recorder.add(sample(1, 0.1))
    provider = ProviderFigures(
        connections_opened=0,
        peak_connections_per_mailbox=3,
        auth_accepted=0,
        auth_refused=0,
        transactions_accepted=2,
        transactions_refused=0,
        turns=9,
        token_requests=0,
    )
    run = run_of(recorder.snapshot(1.0), provider=provider)
    text = terminal.render(run)
    before = "The connections were opened in the warm-up, which the phases leave out."
    assert "Connections:   none opened: existing ones were used, peak 3 a mailbox\n" in text
    assert "AUTH:          none needed, 0 refused\n" in text
    assert f"  {before}\n" in text
    page = html_export.render(exported(run))
    assert "none opened: existing ones were used" in page
    assert before in page
    assert ">opened in the warm-up</text>" in page
    idle = terminal.render(
        run_of(recorder.snapshot(1.0), provider=replace(provider, transactions_accepted=0))
    )
    assert "Connections:   0 opened" in idle
    assert "AUTH:          0 accepted" in idle


def test_nobody_logs_in_is_said_in_words() -> None:
    run = run_of(Recorder(1).snapshot(0.0), mechanism="none")
    assert "Login:                   none\n" in terminal.render(run)


@pytest.mark.parametrize("count", [150, 5000])
def test_a_note_of_rough_figures_stands_only_where_one_is_marked(count: int) -> None:
    recorder = Recorder(count)
    settle(recorder, [0.01] * count)
    document = exported(run_of(recorder.snapshot(9.0)))
    headline, rest = html_export.render(document).split("</dl>", 1)
    note = "rough: fewer than 10"
    assert ("<dd>~" in headline) is (note in rest[: rest.index("</section>")]) is (count == 150)
    assert note in rest  # of the p99.9 in the table


def test_a_generator_that_was_the_bottleneck_is_warned_of() -> None:
    watch = GeneratorUsage(cpu_seconds=0.95, watched_seconds=1.0)
    run = run_of(Recorder(1).snapshot(0.0), generator=watch.figures(1, 0, cores=8))
    assert exported(run)["generator"]["was_bottleneck"] is True
    sentence = (
        "The generator was the bottleneck, not the target: it used 95% of a core. The target "
        "may be faster than shown. "
    )
    advice = exported(run)["generator"]["advice"]
    assert advice.startswith("Use more --processes")
    assert f"Warning: {sentence}{advice}\n" in terminal.render(run)
    assert html_export.render(exported(run)).count(f"{sentence}{advice}<") == 2


def test_assertions_are_told_one_by_one() -> None:
    text = terminal.render_assertions(
        [
            {"expression": "p95<=5ms", "value": 0.25, "is_met": False, "caution": "few"},
            {"expression": "lost==0", "value": None, "is_met": False},
            {"expression": "success>=0.9", "value": 1.0, "is_met": True},
        ]
    )
    assert text.splitlines() == [
        "Assertions:",
        "  NOT MET  p95<=5ms  (250 ms)",
        "           Beware: few.",
        "  NOT MET  lost==0  (not known: nothing was reconciled with a sandbox)",
        "  met      success>=0.9  (100 %)",
    ]


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
    recorder.add(sample(0, "550", failure=SendFailure("550", "[bold red]no[/]")))
    out = io.StringIO()
    terminal.show(Console(file=out), terminal.render(run_of(recorder.snapshot(1.0))))
    assert "  550 [bold red]no[/]: 1\n" in out.getvalue()


def test_controls_in_json_are_escaped_and_stay_the_same_text() -> None:
    text = "\x1b\x7f\x9b31m\ud800é"
    encoded = json_export.encode({"text": text})
    assert not set(encoded) & set("\x1b\x7f\x9b\ud800")
    assert strict_json(encoded) == {"text": text}


def test_a_run_that_is_too_short_is_no_measurement_on_screen_and_page() -> None:
    recorder = Recorder(100)
    settle(recorder, [0.01] * 100)
    run = run_of(recorder.snapshot(0.081))
    said = "100 messages in 81.0 ms show that it works, not how fast it is"
    assert f"Warning: {said}" in terminal.render(run)
    assert exported(run)["results"]["is_short"] is True
    assert said in html_export.render(exported(run)).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "messages", "is_short"),
    [
        (2.0, 200, False),
        (1.95, 200, False),  # of `--duration 2`, whose last message came before its end
        (1.89, 10_000, True),
        (60.0, 199, True),
        (None, None, True),
    ],
)
def test_a_measurement_takes_seconds_and_messages(
    seconds: float | None, messages: int | None, is_short: bool
) -> None:
    assert sample_size.is_short(seconds, messages) is is_short


def test_percentiles_of_few_messages_are_there_and_marked() -> None:
    recorder = Recorder(100)
    settle(recorder, [0.01 * (at + 1) for at in range(100)])
    run = run_of(recorder.snapshot(1.0))
    latency = exported(run)["results"]["latency"]
    assert latency["rough"] == ["p95_seconds", "p99_seconds", "p999_seconds"]
    assert latency["p99_seconds"] == pytest.approx(0.99, rel=0.01)
    text = terminal.render(run)
    assert "P90:           901 ms\n" in text
    assert "P99:           ~991 ms\n" in text
    assert "~ rough: fewer than 10 values lie beyond it." in text
    page = html_export.render(exported(run))
    assert f"<dd>{formatting.ABOUT}{formatting.duration(latency['p99_seconds'])}" in page


def test_messages_that_arrived_all_the_same_are_warned_of() -> None:
    recorder = Recorder(3)
    settle(recorder, [0.1, 0.2, "timeout"])
    found = Reconciliation(
        acknowledged=2, arrived=3, lost=0, duplicated=0, corrupted=0, unexpected=1
    )
    run = run_of(recorder.snapshot(3.0), found)
    sentence = (
        "1 message arrived although the client was told of a failure, or nothing: "
        "sent again, as clients do, they arrive twice."
    )
    assert f"Warning: {sentence}" in terminal.render(run)
    assert sentence in html_export.render(exported(run))
    assert "arrive twice" not in terminal.render(run_of(recorder.snapshot(3.0), CLEAN))


def test_the_provider_is_told_on_screen_page_and_in_json() -> None:
    settings = {
        "behaviour": {"dialect": "gmail", "rtt_seconds": 0.08},
        "faults": [],
        "token_endpoint": {"ttl_seconds": 60.0, "rotation": "none"},
        "seed": 0,
    }
    run = run_of(Recorder(1).snapshot(0.0), provider_settings=settings)
    assert exported(run)["provider_settings"] == settings
    told = "gmail, rtt 80 ms, token ttl 60 s"
    assert f"Provider:                {told}\n" in terminal.render(run)
    assert f"Provider: {told}" in html_export.render(exported(run))
    unknown = run_of(Recorder(1).snapshot(0.0))
    assert exported(unknown)["provider_settings"] is None
    assert "Provider: " not in terminal.render(unknown)
