from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.benchmark.runs import command, only_file, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

FOUR_IN_FLIGHT = (
    *("--from", "someone@example.org", "--password", PASSWORD),
    *("--num-emails", "100", "--concurrent", "4"),
)
STOPPING = "Stopping after the messages in flight"


def holding() -> ScriptedServer:
    """Return a server that answers ten messages and holds the replies to further ones back."""
    return ScriptedServer(hold_after=10)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
async def test_first_signal_finishes_the_sends_in_flight_and_reports(
    tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    async with scripted_server(holding()) as server:
        arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT)
        async with command(tmp_path, *arguments) as running:
            await server.held(4)
            running.process.send_signal(number)
            await running.error_text(STOPPING)
            server.released.set()
            code, out, _ = await running.end()
    assert (code, len(server.accepted)) == (expected, 14)
    assert "LOAD TEST RESULTS (PARTIAL)" in out
    assert f"Stopped after 14 successful messages ({number.name})" in out
    document = strict_json(only_file(tmp_path).read_text())
    assert (document["partial"], document["interrupted_by"]) == (True, number.name)
    results = document["results"]
    assert (results["successful"], results["failed"], results["not_attempted"]) == (14, 0, 86)
    assert server.commands.count(b"QUIT") == 4  # no connection was left hanging


async def test_sends_in_flight_that_do_not_end_are_cut_short(tmp_path: Path) -> None:
    async with scripted_server(holding()) as server:
        arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT, "--drain-seconds", "0.1")
        async with command(tmp_path, *arguments) as running:
            await server.held(4)
            running.process.send_signal(signal.SIGINT)
            code, out, _ = await running.end()
    assert code == 130
    assert "Stopped after 10 successful messages" in out
    results = strict_json(only_file(tmp_path).read_text())["results"]
    assert (results["successful"], results["failed"], results["not_attempted"]) == (10, 4, 86)


async def test_stopping_before_the_first_success_is_still_valid_json(tmp_path: Path) -> None:
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT, "--drain-seconds", "0.1")
        async with command(tmp_path, *arguments) as running:
            await server.held(4)
            running.process.send_signal(signal.SIGINT)
            code, out, _ = await running.end()
    assert code == 130
    assert "Stopped after 0 successful messages" in out
    results = strict_json(only_file(tmp_path).read_text())["results"]
    assert results["latency"]["min_seconds"] is None
    assert (results["failed"], results["not_attempted"]) == (4, 96)


async def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with scripted_server(holding()) as server:
        arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT)
        async with command(tmp_path, *arguments) as running:
            await server.held(4)
            running.process.send_signal(signal.SIGINT)
            await running.error_text(STOPPING)
            running.process.send_signal(signal.SIGINT)
            code, out, _ = await running.end()
    assert (code, out) == (130, "")
    assert not os.listdir(tmp_path)


async def test_json_output_is_valid_when_stopped(tmp_path: Path) -> None:
    async with scripted_server(holding()) as server:
        arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT, "--json")
        async with command(tmp_path, *arguments, "--drain-seconds", "0.1") as running:
            await server.held(4)
            running.process.send_signal(signal.SIGTERM)
            code, out, errors = await running.end()
    assert (code, errors) == (143, "")
    assert strict_json(out)["results"]["successful"] == 10


async def test_ctrl_c_at_the_question(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with scripted_server() as server:
            arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT, "--num-emails", "501")
            async with command(tmp_path, *arguments, stdin=terminal) as running:
                await running.error_text("Send 501 messages")
                running.process.send_signal(signal.SIGINT)
                code, _, _ = await running.end()
        assert (code, server.connections) == (130, 0)
    finally:
        os.close(keyboard)
        os.close(terminal)


@pytest.mark.parametrize(
    ("runs", "number"), [(1, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGTERM)]
)
async def test_a_signal_in_the_pause_of_compare_writes_what_there_is(
    tmp_path: Path, runs: int, number: signal.Signals
) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with scripted_server() as server:
            arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT, "--scenario", "compare")
            several = (*arguments, "--runs", str(runs), "-o", "run.json", "--html", "run.html")
            async with command(tmp_path, *several, stdin=terminal) as running:
                await running.error_text("press ENTER")
                running.process.send_signal(number)
                code, out, _ = await running.end()
        assert (code, len(server.accepted)) == (128 + number, 100 * runs)
        assert "COMPARISON" not in out
        assert "Success rate:    100 %" in out
        assert "</html>" in (tmp_path / "run.html").read_text()
        names = ["run.json"] if runs == 1 else ["run-before1.json", "run-before2.json"]
        assert sorted(name for name in os.listdir(tmp_path) if name.endswith(".json")) == names
        for name in names:
            document = strict_json((tmp_path / name).read_text())
            validate(document)  # of a run, which is whole
            assert (document["kind"], document["partial"]) == ("run", False)
    finally:
        os.close(keyboard)
        os.close(terminal)


async def test_stopped_compare_has_one_run(tmp_path: Path) -> None:
    async with scripted_server(holding()) as server:
        arguments = ("--port", str(server.port), *FOUR_IN_FLIGHT, "--scenario", "compare")
        async with command(tmp_path, *arguments) as running:
            await server.held(4)
            running.process.send_signal(signal.SIGINT)
            await running.error_text(STOPPING)
            server.released.set()
            code, _, _ = await running.end()
    document = strict_json(only_file(tmp_path).read_text())
    assert code == 130
    validate(document)
    assert (document["kind"], document["partial"]) == ("run", True)
