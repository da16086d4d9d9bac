from __future__ import annotations

import asyncio
import base64
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmark.runs import command, invoked, only_file, outcome, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.beside import beside
from tests.support.help_pages import PYTHON_TYPE, help_pages
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

MAILBOX = "someone@example.org"
LOGIN = ("--from", MAILBOX, "--password", PASSWORD)


def options(server: ScriptedServer, *more: str) -> tuple[str, ...]:
    return ("--port", str(server.port), *LOGIN, *more)


async def test_quick_sends_100_messages_over_10_connections(tmp_path: Path) -> None:
    async with scripted_server() as server:
        code, out, errors = await outcome(tmp_path, *options(server))
    assert (code, len(server.accepted)) == (0, 100)
    assert sum(line.startswith(b"EHLO") for line in server.commands) == 10
    document = strict_json(only_file(tmp_path).read_text())
    validate(document)
    assert document["config"]["scenario"] == "quick"
    assert document["results"]["successful"] == 100
    assert document["results"]["phases"]["connect"]["count"] == 10
    assert document["environment"]["loop"] in {"uvloop", "asyncio"}
    rate = document["results"]["throughput_rps"]
    assert rate == pytest.approx(100 / document["results"]["total_time_seconds"])
    assert f"Overall:       {rate:.2f} messages/s" in out
    assert "LOAD TEST RESULTS\n" in out
    assert out.endswith(f"Results saved to: {only_file(tmp_path).name}\n")
    assert "Sending 100 messages over 10 connections" in errors
    assert PASSWORD not in out + errors + only_file(tmp_path).read_text()


def test_custom_run_and_output_file(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        code, out, _ = invoked(
            tmp_path,
            *options(server, "--num-emails", "7", "--concurrent", "3"),
            *("--to", "you@example.net", "--size-bytes", "9000", "--output", "here.json"),
        )
    document = strict_json((tmp_path / "here.json").read_text())
    assert code == 0
    assert document["config"]["scenario"] == "custom"
    assert document["config"]["concurrent"] == 3
    assert {accepted.forward_path for accepted in server.accepted} == {"you@example.net"}
    assert {len(accepted.content) for accepted in server.accepted} == {9000}
    assert "Results saved to: here.json" in out


def test_json_is_all_there_is_on_standard_output(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        code, out, errors = invoked(tmp_path, *options(server, "--json"))
    assert (code, errors) == (0, "")
    assert strict_json(out)["results"]["successful"] == 100
    assert not os.listdir(tmp_path)


def test_a_failed_send_makes_the_exit_code_1(tmp_path: Path) -> None:
    script = ScriptedServer(
        reply_to_content=lambda number: "550 5.1.1 who?" if number == 3 else "250 ok"
    )
    with beside(scripted_server(script)) as server:
        code, out, errors = invoked(tmp_path, *options(server, "--verbose"))
    assert code == 1
    assert "Errors (1):\n  content: 550 5.1.1 who?: 1\n" in out
    assert "Success rate:    99.00 %" in out
    assert ": 550 5.1.1 who?" in errors
    document = strict_json(only_file(tmp_path).read_text())
    assert document["errors"] == [
        {"step": "content", "code": "550", "text": "5.1.1 who?", "count": 1}
    ]


@pytest.mark.parametrize("mechanism", ["login", "xoauth2", "oauthbearer"])
def test_other_mechanisms(tmp_path: Path, mechanism: str) -> None:
    with beside(scripted_server()) as server:
        code, _, _ = invoked(
            tmp_path, *options(server, "--num-emails", "2", "--mechanism", mechanism)
        )
    assert (code, len(server.accepted)) == (0, 2)
    assert any(line.startswith(f"AUTH {mechanism.upper()}".encode()) for line in server.commands)


def test_compare_measures_each_side_several_times_and_judges(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        code, out, errors = invoked(
            tmp_path, *options(server, "--scenario", "compare", "--num-emails", "20", "--yes")
        )
    document = strict_json(only_file(tmp_path).read_text())
    assert (code, len(server.accepted)) == (0, 200), errors
    assert [len(document[side]) for side in ("baseline", "candidate")] == [5, 5]
    throughput = next(row for row in document["figures"] if row["name"] == "throughput")
    assert throughput["interval"]["confidence"] >= 0.95
    assert "Run 5 of 5 after the pause:" in errors
    assert out.count("LOAD TEST RESULTS") == 1  # of the last; the others are in the table


def test_compare_of_one_run_each_shows_the_change(tmp_path: Path) -> None:
    one_each = ("--scenario", "compare", "--runs", "1", "--num-emails", "20", "--yes")
    with beside(scripted_server()) as server:
        code, out, _ = invoked(tmp_path, *options(server, *one_each))
    document = strict_json(only_file(tmp_path).read_text())
    assert (code, len(server.accepted)) == (0, 40)
    assert document["kind"] == "comparison"
    (before,), (after,) = document["baseline"], document["candidate"]
    assert (before["results"]["successful"], after["results"]["successful"]) == (20, 20)
    throughput = next(row for row in document["figures"] if row["name"] == "throughput")
    rates = [run["results"]["throughput_rps"] for run in (before, after)]
    assert throughput["change"] == pytest.approx((rates[1] - rates[0]) / rates[0])
    assert "\nCOMPARISON\n" in out
    assert f"{rates[1]:.2f} messages/s" in out


def test_a_state_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    with beside(scripted_server()) as server:
        code, out, errors = invoked(
            tmp_path,
            *("--port", str(server.port), "--use-mock-tokens", "--state-dir", str(wrong)),
        )
    assert (code, out, os.listdir(tmp_path)) == (1, "", [])
    assert "--state-dir" in errors


def test_a_password_in_the_environment_is_not_sent_as_a_mock_token(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with beside(scripted_server()) as server:
        arguments = ("--port", str(server.port), "--use-mock-tokens", "--num-emails", "2")
        variables = {"XOAUTH2_BENCH_PASSWORD": "the real one"}
        state = ("--state-dir", str(tmp_path / "state"))
        invoked(tmp_path, *arguments, *state, environment=variables)
    sent = b"".join(server.commands)
    assert b"AUTH XOAUTH2" in sent
    assert not any(b"the real one" in _decoded(line) for line in server.commands)


def _decoded(line: bytes) -> bytes:
    try:
        return base64.b64decode(line.rpartition(b" ")[2])
    except ValueError:
        return b""


async def test_what_cannot_be_printed_is_said(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230 - a device
        async with scripted_server() as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench", *options(server, "--json", "--num-emails", "2")),
                cwd=tmp_path,
                stdout=full,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"could not be printed" in errors
    assert b"Traceback" not in errors


def test_mock_tokens_refused_get_advice(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with beside(scripted_server()) as server:
        code, _, errors = invoked(
            tmp_path,
            *("--port", str(server.port), "--use-mock-tokens"),
            *("--num-emails", "4", "--state-dir", str(tmp_path / "state")),
        )
    assert code == 1
    assert "--state-dir" in errors
    assert any(line.startswith(b"AUTH XOAUTH2") for line in server.commands)


def test_an_explicit_target_that_refuses(tmp_path: Path, unused_port: int) -> None:
    code, out, errors = invoked(
        tmp_path,
        *("--port", str(unused_port), "--use-mock-tokens"),
        *("--admin-url", f"http://127.0.0.1:{unused_port}"),
    )
    assert (code, out) == (1, "")
    assert f"xoauth2-proxy --sandbox --port {unused_port}" in errors
    assert "/health" in errors
    assert not os.listdir(tmp_path)


def test_a_remote_target_is_refused(tmp_path: Path) -> None:
    code, _, errors = invoked(tmp_path, "--host", "192.0.2.1", *LOGIN)
    assert code == 1
    assert "--allow-remote" in errors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "--from"),
        (("--from", MAILBOX), "--password"),
        (("--from", "not an address", "--password", "x"), "--from"),
        (("--use-mock-tokens", "--to", "a@b\r\nRCPT"), "--to"),
        (("--use-mock-tokens", "--scenario", "huge"), "--scenario"),
        (("--use-mock-tokens", "--output", "no/such/folder/x.json"), "--output"),
        (("--use-mock-tokens", "--num-emails", "0"), "--num-emails"),
        (("--use-mock-tokens", "--mechanism", "ntlm"), "--mechanism"),
        (("--use-mock-tokens", "--duration", "1", "--num-emails", "1"), "--duration"),
        (("--use-mock-tokens", "--ramp-from", "1", "--ramp-seconds", "1"), "--ramp-from"),
        (("--use-mock-tokens", "--arrival-rate", "9", "--ramp-from", "1"), "--ramp-from"),
        (("--use-mock-tokens", "--arrival-rate", "9e4", "--duration", "999"), "--arrival-rate"),
        (("--use-mock-tokens", "--sizes", "4k:"), "--sizes"),
        (("--use-mock-tokens", "--sizes", "4k", "--size-bytes", "9"), "--sizes"),
        (("--use-mock-tokens", "--eml-dir", "."), "--eml-dir"),
        (("--use-mock-tokens", "--recipients", "0"), "--recipients"),
        (("--use-mock-tokens", "--connection", "often"), "--connection"),
        (("--use-mock-tokens", "--mechanism", "plain", "--token-ttl", "5"), "--token-ttl"),
        (("--no-auth", "--token-ttl", "5"), "--token-ttl"),
        (("--no-auth", "--use-mock-tokens"), "--no-auth"),
        (("--no-auth", "--mechanism", "plain"), "--no-auth"),
        (("--no-auth", "--html", "no/such/folder/x.html"), "--html"),
        (("--no-auth", "--assert", "speed>1"), "--assert"),
        (("--no-auth", "--assert", "lost==0", "--scenario", "compare"), "--assert"),
        (("--no-auth", "--runs", "2"), "--runs"),
        (("--no-auth", "--json", "--prometheus-port", "0"), "--prometheus-port"),
        (("--no-auth", "--output", "same", "--html", "./same"), "--html"),
        (("--from", MAILBOX, "--password", "\udcff"), "--password"),
        (("--accounts", "2", "--user-prefix", "a b"), "--user-prefix"),
        (("--no-auth", "schema"), "--no-auth"),
        (("--scenario", "storm", "--port", "2525"), "--port"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    code, out, errors = invoked(tmp_path, *arguments)
    assert (code, out) == (2, "")
    assert complaint in errors


def test_list_version_and_help(tmp_path: Path) -> None:
    _, scenarios, _ = invoked(tmp_path, "--list")
    for line in (("quick", "100", "10"), ("baseline", "500", "25"), ("moderate", "1000", "50")):
        assert all(word in scenarios for word in line)
    for line in (("stress", "2000", "100"), ("sustained", "5000", "50"), ("peak", "10000", "150")):
        assert all(word in scenarios for word in line)
    for line in (
        ("open", "200/s, 30 s", "50"),
        ("storm", "200/s, 15 s", "50"),
        ("churn", "1000", "25"),
    ):
        assert all(word in scenarios for word in line)
    for line in (("crowd", "1000", "25"), ("sizes", "500", "25")):
        assert all(word in scenarios for word in line)
    assert "2 × 5 × 500" in scenarios
    assert invoked(tmp_path, "--version")[1] == f"xoauth2-bench {__version__}\n"
    code, text, _ = invoked(tmp_path, "--help")
    assert code == 0
    assert "xoauth2-bench --scenario quick --use-mock-tokens\n" in text


def test_help_names_values_by_words_and_not_by_types(tmp_path: Path) -> None:
    pages = [*help_pages(lambda *words: invoked(tmp_path, *words)[1])]
    assert len(pages) == 12
    for page in pages:
        assert PYTHON_TYPE.findall(page) == []
    assert "--port PORT" in pages[0]


def test_the_help_shows_the_options_in_groups(tmp_path: Path) -> None:
    _, text, _ = invoked(tmp_path, "--help")
    titles = ["Load:", "Messages:", "Clients:", "Login:", "Server:", "Commands:"]
    positions = [text.index(f"\n{title}\n") for title in titles]
    assert positions == sorted(positions)


def test_the_schema_is_printed(tmp_path: Path) -> None:
    code, out, _ = invoked(tmp_path, "schema")
    assert code == 0
    assert strict_json(out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


async def test_results_that_cannot_be_saved_are_still_shown(tmp_path: Path) -> None:
    async with (
        scripted_server(ScriptedServer(hold_after=10)) as server,
        command(tmp_path, *options(server, "--output", "x.json")) as running,
    ):
        await server.held(10)
        (tmp_path / "x.json").mkdir()
        server.released.set()
        code, out, errors = await running.end()
    assert "LOAD TEST RESULTS\n" in out
    assert code == 1
    assert "could not be saved" in errors


async def test_more_than_500_messages_are_asked_for_on_a_terminal(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with scripted_server() as server:
            many = options(server, "--num-emails", "501")
            async with command(tmp_path, *many, stdin=terminal) as running:
                os.write(keyboard, b"n\n")
                code, _, errors = await running.end()
            assert (code, server.connections) == (1, 0)
            assert "Send 501 messages over 10 connections?" in errors
            async with command(tmp_path, *many, stdin=terminal) as running:
                os.write(keyboard, b"y\n")
                code, _, _ = await running.end()
            assert (code, len(server.accepted)) == (0, 501)
    finally:
        os.close(keyboard)
        os.close(terminal)


async def test_compare_waits_for_enter_on_a_terminal(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with scripted_server() as server:
            two = options(server, "--scenario", "compare", "--runs", "1", "--num-emails", "10")
            async with command(tmp_path, *two, stdin=terminal) as running:
                await running.error_text("press ENTER")
                assert len(server.accepted) == 10
                os.write(keyboard, b"\n")
                code, _, _ = await running.end()
            assert (code, len(server.accepted)) == (0, 20)
    finally:
        os.close(keyboard)
        os.close(terminal)


async def test_ctrl_d_in_the_pause_of_compare_is_no_wish_to_go_on(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with scripted_server() as server:
            two = options(server, "--scenario", "compare", "--runs", "1", "--num-emails", "10")
            async with command(tmp_path, *two, stdin=terminal) as running:
                await running.error_text("press ENTER")
                os.write(keyboard, b"\x04")
                code, _, _ = await running.end()
            assert (code, len(server.accepted)) == (1, 10)
    finally:
        os.close(keyboard)
        os.close(terminal)


async def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    try:
        async with scripted_server(ScriptedServer(hold_after=10)) as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "bench"),
                *options(server),
                cwd=tmp_path,
                env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=terminal,
            )
            try:
                await server.held(10)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    shown = await until_shown(screen, b"10/100")
                server.released.set()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    finally:
        os.close(terminal)
        os.close(screen)
    assert b"10 ok, 0 failed, 10 in flight" in shown


async def until_shown(screen: int, words: bytes) -> bytes:
    """Return what a terminal showed once it shows `words`."""
    shown = bytearray()
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(screen, readable.set)
    try:
        while words not in shown:
            await readable.wait()
            shown += os.read(screen, 65536)
            readable.clear()
    finally:
        loop.remove_reader(screen)
    return bytes(shown)
