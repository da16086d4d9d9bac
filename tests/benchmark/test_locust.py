"""The load as Locust runs it: real processes of Locust, whose statistics must be the provider's."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import bench
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Importing Locust here would patch the tests' own process.
pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.skipif(
        importlib.util.find_spec("locust") is None and os.environ.get("CI") != "true",
        reason="Locust is not installed (extra locust)",
    ),
]

LOCUSTFILE = Path(bench.__file__).with_name("locust_user.py")
# With -s Locust lets sends in flight finish, so that its figures can be exact.
USERS = ("--headless", "-u", "4", "-r", "4", "-s", "10", "--only-summary")
HEADLESS = (*USERS, "-t", "2s")

Counts = dict[str, tuple[int, int]]  # requests and failures, by type


class Process:
    """A running Locust."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def stop(self) -> None:
        """Ask it to end, as Ctrl+C or a service manager does."""
        self._process.terminate()

    async def end(self) -> tuple[int, str]:
        """Return exit code and output when it has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, _ = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode()


@asynccontextmanager
async def locust(
    folder: Path,
    *arguments: str,
    locustfile: Path = LOCUSTFILE,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """Start Locust; it is killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", str(locustfile), *arguments),
        cwd=folder,
        env=os.environ | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def counts(folder: Path) -> Counts:
    """What Locust's own statistics say, from its JSON."""
    rows: list[dict[str, Any]] = json.loads((folder / "figures.json").read_text())
    assert {row["name"] for row in rows} <= {"Sender", "Newsletter"}
    return {row["method"]: (row["num_requests"], row["num_failures"]) for row in rows}


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    settings = {"overrides": {"tls": "none", "auth_without_tls": True, "max_connections": 100}}
    async with Sandbox(tmp_path / "state", read_settings(settings)) as sandbox:
        yield sandbox


def address(port: int) -> tuple[str, ...]:
    return ("--host", f"smtp://127.0.0.1:{port}", "--json-file", "figures")


async def test_a_masters_statistics_are_what_the_sandbox_received(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ours = ("--use-mock-tokens", "--state-dir", str(tmp_path / "state"), "--connection", "50")
    target = address(sandbox.smtp_address[1])
    binding = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    leading = (*USERS, "--master", "--expect-workers", "1", *binding)
    following = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(locust(tmp_path, *leading, *target, *ours))
        worker = await stack.enter_async_context(locust(tmp_path, *following, *ours))
        await until(lambda: sandbox.received.total > 50)
        master.stop()
        for code, out in (await master.end(), await worker.end()):
            assert code == 0, out
    found, saw = counts(tmp_path), sandbox.counters
    assert found["SEND"] == (saw.transactions_accepted, 0)
    assert found["AUTH"] == (saw.auth_accepted, 0)
    # One more to see whether somebody listens.
    assert found["CONNECT"] == (saw.connections_opened - 1, 0)
    assert found["SEND"][0] > 50
    assert found["CONNECT"][0] >= found["SEND"][0] / 50
    ids = [message.message_id for message in sandbox.received]
    assert len(set(ids)) == len(ids)


async def test_failures_are_told_apart_by_what_failed_and_by_reply_code(tmp_path: Path) -> None:
    def reply(number: int) -> str:
        return "250 ok" if number % 2 else "452 4.2.2 full"

    login = ("--mailbox", "a@example.org,b@example.org")
    slow = ScriptedServer(reply_to_content=reply, delay_seconds=lambda _: 0.05)
    async with scripted_server(slow) as server:
        secret = {"XOAUTH2_BENCH_PASSWORD": PASSWORD}
        arguments = (*HEADLESS, *address(server.port), *login)
        async with locust(tmp_path, *arguments, environment=secret) as running:
            code, out = await running.end()
        found = counts(tmp_path)
        contents, accepted = server.contents, len(server.accepted)
    assert code == 1  # Locust's own for a test with failures
    assert found["SEND"] == (contents, contents - accepted)
    assert (found["AUTH"], found["CONNECT"]) == ((4, 0), (4, 0))
    assert PASSWORD not in out


async def test_the_end_of_the_test_is_no_failure_of_what_was_in_flight(tmp_path: Path) -> None:
    slow = ScriptedServer(needs_login=False, hold_after=4)  # the first of each user's
    async with scripted_server(slow) as server:
        hurried = ("--headless", "-u", "4", "-r", "4", "-t", "2s", "--only-summary")
        async with locust(tmp_path, *hurried, *address(server.port), "--no-auth") as running:
            code, out = await running.end()
    assert code == 0, out


async def test_a_refused_login_is_a_failure_of_auth(tmp_path: Path) -> None:
    async with scripted_server() as server:
        host = f"smtp://127.0.0.1:{server.port}"
        arguments = (*HEADLESS, "-t", "1s", "--host", host, "--mailbox", "a@example.org")
        secret = {"XOAUTH2_BENCH_PASSWORD": "another"}
        async with locust(tmp_path, *arguments, environment=secret) as running:
            code, out = await running.end()
        assert (code, server.accepted) == (1, [])
    assert re.search(r"[1-9]\d* +AUTH Sender: SubmissionFailed\('AUTH: 535 5\.7\.8 no'\)", out), out
    assert "SEND" not in out


async def test_a_locustfile_of_ones_own_uses_the_user(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from locust import constant, task\n"
        "from bench.locust_user import SmtpUser\n"
        "class Newsletter(SmtpUser):\n"
        "    wait_time = constant(60)\n"
        "    @task\n"
        "    def burst(self):\n"
        "        assert all(self.send() for _ in range(3))\n"
    )
    async with scripted_server(ScriptedServer(needs_login=False)) as server:
        arguments = (*HEADLESS, *address(server.port), "--no-auth")
        async with locust(tmp_path, *arguments, locustfile=mine) as running:
            code, out = await running.end()
        assert code == 0, out
        # Four users with a burst of three each; the user it is made from sends nothing itself.
        assert len(server.accepted) == 12
    assert counts(tmp_path)["SEND"] == (12, 0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--host", "smtp://192.0.2.1:25", "--no-auth"), "not a loopback address"),
        (("--host", "http://127.0.0.1:25", "--no-auth"), "not a mail server's address"),
        (("--host", "smtp://127.0.0.1:1", "--no-auth"), "Nothing listens at 127.0.0.1:1"),
        (("--host", "smtp://127.0.0.1:1"), "is required, with --password"),
        (
            ("--host", "smtp://127.0.0.1:1", "--use-mock-tokens", "--scenario", "users"),
            "users creates mailboxes",
        ),
    ],
)
async def test_what_cannot_be_measured_is_said_in_words(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    async with locust(tmp_path, *HEADLESS, *arguments) as running:
        code, out = await running.end()
    assert code == 1, out
    assert complaint in out
    assert "Traceback" not in out
