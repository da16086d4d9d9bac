from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmark.runs import command, invoked, only_file, process_of, strict_json
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_default_target_taken() -> bool:
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex(("127.0.0.1", 2525)) == 0


pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.skipif(
        is_default_target_taken(), reason="something listens at 127.0.0.1:2525 already"
    ),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment in which all temporary files of the command lie; checks that nothing stays."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    yield {"TMPDIR": str(temporary), "XDG_STATE_HOME": str(tmp_path / "state")}
    assert not list(temporary.iterdir())
    assert not processes_naming(str(temporary))


def processes_naming(words: str) -> list[str]:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return [line for line in commands if words in line]


def assert_clean(document: dict[str, Any], count: int) -> None:
    assert document["reconciliation"] == {
        "acknowledged": count,
        "arrived": count,
        "lost": 0,
        "duplicated": 0,
        "corrupted": 0,
        "unexpected": 0,
    }


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer", "plain", "login"])
def test_quick_with_mock_tokens_starts_a_proxy_and_ends_it(
    tmp_path: Path, place: dict[str, str], mechanism: str
) -> None:
    arguments = ("--scenario", "quick", "--use-mock-tokens", "--mechanism", mechanism)
    code, out, errors = invoked(tmp_path, *arguments, environment=place)
    assert code == 0, out + errors
    assert "starting a private proxy" in errors
    document = strict_json(only_file(tmp_path).read_text())
    results = document["results"]
    assert (results["planned"], results["successful"], results["failed"]) == (100, 100, 0)
    assert results["phases"]["connect"]["count"] == 10
    assert len(document["config"]["from_emails"]) == 4
    assert_clean(document, 100)
    assert "  Lost:          0\n" in out


def test_one_mock_mailbox(tmp_path: Path, place: dict[str, str]) -> None:
    arguments = ("--use-mock-tokens", "--from", "test.account2@outlook.com", "--num-emails", "30")
    code, out, errors = invoked(tmp_path, *arguments, environment=place)
    assert code == 0, out + errors
    assert_clean(strict_json(only_file(tmp_path).read_text()), 30)


async def test_ctrl_c_on_the_terminal_reports_and_ends_the_private_proxy(
    tmp_path: Path, place: dict[str, str]
) -> None:
    arguments = ("--scenario", "peak", "--use-mock-tokens", "--yes")
    async with command(tmp_path, *arguments, environment=place) as running:
        await running.error_text("Sending 10000 messages")
        os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
        code, out, _ = await running.end()
    assert code == 130
    assert "LOAD TEST RESULTS (PARTIAL)" in out
    document = strict_json(only_file(tmp_path).read_text())
    results = document["results"]
    assert results["failed"] == 0
    assert results["planned"] == results["successful"] + results["not_attempted"]
    assert_clean(document, results["successful"])


async def test_a_terminal_that_is_closed_ends_the_run_well(
    tmp_path: Path, place: dict[str, str]
) -> None:
    arguments = ("--scenario", "peak", "--use-mock-tokens", "--yes")
    async with command(tmp_path, *arguments, environment=place) as running:
        await running.error_text("Sending 10000 messages")
        running.process.send_signal(signal.SIGHUP)
        code, _, _ = await running.end()
    assert code == 129
    document = strict_json(only_file(tmp_path).read_text())
    assert document["interrupted_by"] == "SIGHUP"
    assert_clean(document, document["results"]["successful"])


async def test_killed_it_leaves_neither_proxy_nor_folder(
    tmp_path: Path, place: dict[str, str]
) -> None:
    arguments = ("--scenario", "peak", "--use-mock-tokens", "--yes")
    async with command(tmp_path, *arguments, environment=place) as running:
        await running.error_text("Sending 10000 messages")
        running.process.kill()
        await running.process.wait()
    temporary = place["TMPDIR"]
    await until(lambda: not os.listdir(temporary) and not processes_naming(temporary))


async def test_a_guard_that_was_killed_leaves_no_proxy(
    tmp_path: Path, place: dict[str, str]
) -> None:
    arguments = ("--use-mock-tokens", "--num-emails", "100000", "--yes")
    async with command(tmp_path, *arguments, environment=place) as running:
        await running.error_text("Sending 100000 messages")
        os.kill(process_of("bench.process.child_guard", place["TMPDIR"]), signal.SIGKILL)
        running.process.send_signal(signal.SIGINT)
        code, _, _ = await running.end()
    assert code == 130
    await until(lambda: not processes_naming(place["TMPDIR"]))


async def test_nohup_is_obeyed(tmp_path: Path, place: dict[str, str]) -> None:
    script = 'trap "" HUP; exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, "sh", sys.executable, "-m", "bench"),
        *("--use-mock-tokens", "--num-emails", "500", "--json"),
        cwd=tmp_path,
        env=os.environ | place,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: bool(processes_naming(place["TMPDIR"])))
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert_clean(strict_json(out.decode()), 500)


async def test_signal_while_the_private_proxy_starts(tmp_path: Path, place: dict[str, str]) -> None:
    async with command(tmp_path, "--use-mock-tokens", environment=place) as running:
        await running.error_text("starting a private proxy")
        running.process.send_signal(signal.SIGTERM)
        code, _, _ = await running.end()
    assert code == 143


async def test_second_signal_leaves_no_private_proxy_behind(
    tmp_path: Path, place: dict[str, str]
) -> None:
    arguments = ("--scenario", "peak", "--use-mock-tokens", "--yes")
    async with command(tmp_path, *arguments, environment=place) as running:
        await running.error_text("Sending 10000 messages")
        running.process.send_signal(signal.SIGINT)
        await running.error_text("Stopping after the messages in flight")
        running.process.send_signal(signal.SIGINT)
        code, _, _ = await running.end()
    assert code == 130
