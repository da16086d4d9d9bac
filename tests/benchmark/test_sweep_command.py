from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmark.runs import command, invoked, only_file, outcome, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.beside import beside

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

REPEATS = int(os.environ.get("BENCH_INTERRUPTIONS", "1"))
LOGIN = ("--from", "someone@example.org", "--password", PASSWORD)


def sweeping(server: ScriptedServer, *more: str) -> tuple[str, ...]:
    return ("sweep", "--port", str(server.port), *LOGIN, *more)


def paying(messages: int, **script: Any) -> ScriptedServer:
    """Return a server for which a higher load pays, however slow the machine is.

    The replies come sooner in each step, of so many messages.
    """
    delays = (0.2, 0.1, 0.03)

    def delay_seconds(number: int) -> float:
        step = (number - 1) // messages
        return delays[step] if step < len(delays) else 0.0

    return ScriptedServer(delay_seconds=delay_seconds, **script)


def written(folder: Path) -> dict[str, Any]:
    document = strict_json(only_file(folder).read_text())
    assert (document["kind"], document["schema_version"]) == ("sweep", 2)
    for step in document["steps"]:
        validate(step["run"])
    return document


def loads(document: dict[str, Any]) -> list[float]:
    return [step["load"] for step in document["steps"]]


async def test_each_step_is_a_run_with_its_own_number_of_connections(tmp_path: Path) -> None:
    async with scripted_server(paying(6)) as server:
        code, out, errors = await outcome(
            tmp_path,
            *sweeping(server, "--concurrent", "1,2,4", "--num-emails", "6", "--html", "s.html"),
        )
        assert (code, len(server.accepted)) == (0, 18), errors
        assert server.connections == 1 + 1 + 2 + 4  # one to see whether somebody listens
    document = written(tmp_path)
    assert (document["parameter"], document["partial"]) == ("concurrent", False)
    assert loads(document) == [1, 2, 4]
    assert [step["run"]["config"]["concurrent"] for step in document["steps"]] == [1, 2, 4]
    assert [step["run"]["results"]["successful"] for step in document["steps"]] == [6] * 3
    assert "Step 1 of 3: 1 connection, " in errors
    assert "Step 2 of 3: 2 connections, " in errors
    assert "Knee: " in out
    assert document["knee"]["reason"] in out
    assert document["knee"]["reason"] in (tmp_path / "s.html").read_text()


def test_an_arrival_rate_is_swept_with_connections_that_stay(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        arguments = ("--arrival-rate", "10..20", "--concurrent", "3", "--duration", "0.5")
        code, out, errors = invoked(tmp_path, *sweeping(server, *arguments, "--json"))
        assert (code, len(server.accepted)) == (0, 5 + 10), errors
    document = strict_json(out)
    assert document["parameter"] == "arrival_rate_per_second"
    assert loads(document) == [10, 20]
    configs = [step["run"]["config"] for step in document["steps"]]
    assert [one["arrival_rate_per_second"] for one in configs] == [10, 20]
    assert [one["concurrent"] for one in configs] == [3, 3]
    assert os.listdir(tmp_path) == []


def test_connections_spread_evenly_are_whole(tmp_path: Path) -> None:
    with beside(scripted_server(paying(8))) as server:
        spread = ("--concurrent", "1..8", "--steps", "4", "--num-emails", "8")
        code, _, errors = invoked(tmp_path, *sweeping(server, *spread))
    assert code == 0, errors
    assert loads(written(tmp_path)) == [1, 3, 6, 8]


def test_a_sweep_ends_early_when_messages_fail(tmp_path: Path) -> None:
    def reply(number: int) -> str:
        return "250 ok" if number <= 12 else "451 4.3.0 too much"

    with beside(scripted_server(paying(6, reply_to_content=reply))) as server:
        arguments = sweeping(server, "--concurrent", "1,2,4", "--num-emails", "6")
        code, out, _ = invoked(tmp_path, *arguments)
        assert code == 0  # that more load fails is what a sweep is to find out
    document = written(tmp_path)
    assert loads(document) == [1, 2, 4]
    assert document["stopped_because"] is None  # there was no higher load to try
    with beside(scripted_server(ScriptedServer(reply_to_content=lambda _: "451 no"))) as server:
        arguments = sweeping(server, "--concurrent", "1,2,4", "--num-emails", "10")
        code, out, _ = invoked(tmp_path, *arguments, "--output", "xoauth2-bench-2.json")
    assert code == 1  # nothing succeeded at all
    document = strict_json((tmp_path / "xoauth2-bench-2.json").read_text())
    assert loads(document) == [1]
    assert "only 0 % of the messages succeeded" in document["stopped_because"]
    assert document["stopped_because"] in out


async def test_ctrl_c_keeps_every_step_and_calls_the_last_partial(tmp_path: Path) -> None:
    # The third step's replies are held back.
    async with scripted_server(paying(6, hold_after=12)) as server:
        arguments = sweeping(server, "--concurrent", "1,2,4,8", "--num-emails", "6")
        async with command(tmp_path, *arguments) as running:
            await server.held(4)
            running.process.send_signal(signal.SIGINT)
            await running.error_text("Stopping after the messages in flight")
            server.released.set()
            code, out, _ = await running.end()
    assert code == 130
    document = written(tmp_path)
    assert loads(document) == [1, 2, 4]
    assert [step["run"]["partial"] for step in document["steps"]] == [False, False, True]
    assert document["steps"][2]["run"]["results"]["successful"] == 4
    assert (document["partial"], document["interrupted_by"]) == (True, "SIGINT")
    assert "The step at 4 is partial" in out
    assert "Stopped (SIGINT)" in out


async def test_ctrl_c_in_the_first_step_reports_what_there_is(tmp_path: Path) -> None:
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        arguments = sweeping(server, "--num-emails", "10", "--drain-seconds", "0.1")
        async with command(tmp_path, *arguments) as running:
            await server.held(1)
            running.process.send_signal(signal.SIGTERM)
            code, out, errors = await running.end()
    assert code == 143, out + errors
    document = written(tmp_path)
    (step,) = document["steps"]
    assert (step["run"]["partial"], step["run"]["results"]["successful"]) == (True, 0)
    assert document["knee"]["load"] is None
    assert [error["code"] for error in step["run"]["errors"]] == ["cut short"]


@pytest.mark.parametrize("repeat", range(REPEATS))
async def test_counts_are_right_at_whatever_moment_it_is_stopped(
    tmp_path: Path, repeat: int
) -> None:
    number = (signal.SIGINT, signal.SIGTERM)[repeat % 2]
    # A delay that outweighs the machine's own: else the sweep may find its end by itself.
    async with scripted_server(ScriptedServer(delay_seconds=lambda _: 0.1)) as server:
        rising = ("--concurrent", "1..40", "--steps", "40")  # it goes on for far longer than that
        arguments = sweeping(server, *rising, "--duration", "0.4")
        async with command(tmp_path, *arguments) as running:
            await running.error_text("Step 1")
            await asyncio.sleep(random.Random(repeat).uniform(0, 1.0))
            running.process.send_signal(number)
            code, out, errors = await running.end()
        await server.happened(lambda: server.open_now == 0)
    assert code == 128 + number, out + errors
    document = written(tmp_path)
    assert document["interrupted_by"] == number.name
    counted = sum(step["run"]["results"]["successful"] for step in document["steps"])
    assert counted == len(server.accepted)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--concurrent", "4,2"), "does not rise"),
        (("--concurrent", "1.5"), "is not a whole number of connections"),
        (("--concurrent", "1,2", "--arrival-rate", "5,6"), "only one value with --arrival-rate"),
        (("--concurrent", "1,2", "--steps", "4"), "not a range"),
        (("--assert", "lost==0"), "single run"),
        (("--scenario", "compare"), "two runs"),
        (("--concurrent", "1,20000000"), "--concurrent"),
    ],
)
async def test_wrong_usage_is_refused_before_anything_is_sent(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    async with scripted_server() as server:
        words = sweeping(server, *arguments)
        code, out, errors = await asyncio.to_thread(invoked, tmp_path, *words)
        assert (code, out, server.connections) == (2, "", 0)
    assert complaint in " ".join(errors.replace("│", " ").split())


def test_the_help_leaves_out_what_is_for_a_single_run(tmp_path: Path) -> None:
    code, out, _ = invoked(tmp_path, "sweep", "--help")
    assert code == 0
    assert "--concurrent" in out
    for option in ("--assert", "--ramp-from", "--scenario-file", "--runs"):
        assert option not in out


def test_nothing_to_sweep_is_said_in_words(tmp_path: Path) -> None:
    code, out, errors = invoked(tmp_path, "sweep", "--port", "1", *LOGIN)
    assert (code, out) == (1, "")
    assert "Nothing listens at 127.0.0.1:1" in errors
