from __future__ import annotations

import os
import signal
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from bench.process import process_meter
from tests.benchmark.runs import command, invoked, process_of, strict_json
from tests.benchmark.test_cli_private_proxy import processes_naming
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.skipif(not process_meter.is_available(), reason="needs Linux"),
]

RUN_SECONDS = PATIENCE_SECONDS
RELAYS = ["splice", "naive", "proxy", "proxy-data"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Environment in which all temporary files of the command lie; checks that nothing stays."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)  # TMPDIR is read again in this process, too
    yield {"TMPDIR": str(temporary)}
    # What was killed may be seen for a moment yet; what had only begun to start is ended by its
    # guard, which then removes the folder.
    deadline = time.monotonic() + RUN_SECONDS
    while processes_naming(str(temporary)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes_naming(str(temporary))
    assert not list(temporary.iterdir())


def test_every_relay_is_measured_and_compared(tmp_path: Path, place: dict[str, str]) -> None:
    # The workload with the fewest messages.
    arguments = ("--quick", "--workload", "rtt", "--rtt", "1ms", "--repeat", "1")
    written = ("--json", "--output", "c.json")
    code, out, errors = invoked(tmp_path, "cost", *arguments, *written, environment=place)
    assert code == 0, errors
    document = strict_json(out)
    assert document == strict_json((tmp_path / "c.json").read_text())
    assert document["kind"] == "cost"
    assert document["environment"]["cpu_count"] >= 1
    (measured,) = document["workloads"]
    assert [result["relay"] for result in measured["results"]] == RELAYS
    for result in measured["results"]:
        assert_measured(result, measured["messages"])
    by_relay = {result["relay"]: result for result in measured["results"]}
    assert by_relay["splice"]["cpu_ratio_to_splice"] == 1.0
    assert by_relay["naive"]["cpu_ratio_to_naive"] == 1.0
    assert by_relay["naive"]["medians"]["turns_per_message"] == pytest.approx(4.0, abs=0.2)
    verdicts = [target["verdict"] for target in document["reach"]]
    assert set(verdicts) <= {"reached", "missed", "not measured"}
    assert verdicts.count("not measured") >= 6


def assert_measured(result: dict[str, Any], messages: int) -> None:
    assert (result["error"], result["skipped"]) == (None, None)
    (repeat,) = result["repeats"]
    assert repeat == result["medians"]
    assert repeat["messages"] == messages
    assert repeat["cpu_us_per_message"] > 0
    assert repeat["throughput_per_second"] > 0
    assert 0 < repeat["p50_ms"] <= repeat["p99_ms"]
    assert repeat["peak_mib"] > 5


def test_a_crowd_and_one_relay_only(tmp_path: Path, place: dict[str, str]) -> None:
    arguments = ("--quick", "--workload", "crowd", "--workload", "idle", "--relay", "proxy")
    code, out, errors = invoked(tmp_path, "cost", *arguments, "--json", environment=place)
    assert code == 0, errors
    workloads = {one["name"]: one for one in strict_json(out)["workloads"]}
    (idle,) = workloads["idle"]["results"]
    assert idle["medians"]["idle_clients"] > 0
    assert idle["medians"]["kib_per_idle_client"] > 0
    (crowd,) = workloads["crowd"]["results"]
    assert crowd["medians"]["idle_crowd_ratio"] > 0
    assert crowd["medians"]["trickling_crowd_ratio"] > 0
    if crowd["event_loop_lag"] is not None:
        at_most = crowd["event_loop_lag"]["p99_ms_at_most"]
        assert at_most is None or at_most > 0  # none: beyond the last bucket, on a busy machine


async def test_a_relay_that_dies_is_an_error_of_its_row_alone(
    tmp_path: Path, place: dict[str, str]
) -> None:
    arguments = ("--quick", "--workload", "kept", "--relay", "splice", "--relay", "naive")
    async with command(
        tmp_path, "cost", *arguments, "--repeat", "2", "--json", environment=place
    ) as running:
        await running.error_text("kept: naive, 1 of 2")
        os.kill(process_of("bench.controls.naive", place["TMPDIR"]), signal.SIGKILL)
        code, out, errors = await running.end(RUN_SECONDS)
    assert code == 1, errors
    (kept,) = strict_json(out)["workloads"]
    splice, naive = kept["results"]
    assert splice["error"] is None
    assert len(splice["repeats"]) == 2
    assert naive["error"]
    assert naive["medians"]["cpu_us_per_message"] is None


async def test_ctrl_c_ends_everything_it_started(tmp_path: Path, place: dict[str, str]) -> None:
    two = ("--relay", "splice", "--relay", "proxy")
    arguments = ("--quick", "--workload", "kept", "--repeat", "50", *two)
    async with command(tmp_path, "cost", *arguments, environment=place) as running:
        await running.error_text("kept: proxy, 1 of 50")
        os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
        code, out, errors = await running.end(RUN_SECONDS)
    assert code == 130
    assert out == ""
    assert "Stopped" in errors


async def test_a_second_signal_leaves_nothing_behind(tmp_path: Path, place: dict[str, str]) -> None:
    async with command(
        tmp_path, "cost", "--quick", "--workload", "kept", "--repeat", "50", environment=place
    ) as running:
        await running.error_text("kept: splice, 1 of 50")
        # Two different ones, since the kernel makes one of two that are alike. Which comes first
        # is its affair, and so is whether all has ended well before the second.
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        code, _, _ = await running.end(RUN_SECONDS)
    assert code in {130, 143}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("cost", "--workload", "nothing"), "is not one of kept"),
        (("cost", "--relay", "nobody"), "--relay"),
        (("cost", "--rtt", "soon"), "is not a duration"),
        (("--json", "cost"), "has no effect before cost"),
        (("sandwich",), "sandwich"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    code, _, errors = invoked(tmp_path, *arguments)
    assert code == 2
    assert complaint in " ".join(errors.replace("│", " ").split())


def test_help_names_every_workload(tmp_path: Path) -> None:
    code, out, _ = invoked(tmp_path, "cost", "--help")
    assert code == 0
    for word in ("kept", "fifty-mailboxes", "--strict", "--pipelined"):
        assert word in out
