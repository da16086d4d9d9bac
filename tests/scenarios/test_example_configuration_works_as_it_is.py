"""The first thing a new user does: the example's accounts, the sandbox, and one message."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy_process import ROOT
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess

pytestmark = pytest.mark.one_loop

EXAMPLE = json.loads((ROOT / "accounts.example.json").read_text())


async def assert_serves_the_four_mailboxes(proxy: ProxyProcess, enabled: int = 4) -> None:
    for mailbox in MOCK_MAILBOXES:
        async with await proxy.connect() as client:
            await client.ehlo()
            assert (await client.auth_plain(mailbox, "secret")).code == 235
            assert (await client.send(message(mailbox))).code == 250
    status, body = await proxy.get("/health")
    assert status == 200
    health = json.loads(body)
    assert (health["status"], health["service"]) == ("healthy", "xoauth2-proxy")
    assert health["uptime_seconds"] > 0
    assert health["accounts"]["enabled"] == enabled


@pytest.mark.parametrize("loop", ["auto", "uvloop", "asyncio"])
async def test_the_example_with_the_sandbox(start_process: StartProcess, loop: str) -> None:
    proxy = await start_process(EXAMPLE, "--sandbox", "--loop", loop)
    await assert_serves_the_four_mailboxes(proxy, 5)
    assert await proxy.stop() == 0
    assert "ERROR" not in proxy.stderr


@pytest.mark.parametrize("document", [None, EXAMPLE["accounts"][:4]], ids=["none", "a bare list"])
async def test_no_configuration_and_a_bare_list_are_the_same(
    start_process: StartProcess, document: object
) -> None:
    proxy = await start_process(document, "--sandbox")
    await assert_serves_the_four_mailboxes(proxy)
    assert await proxy.stop() == 0


async def test_it_says_what_to_type_next(start_process: StartProcess) -> None:
    proxy = await start_process(EXAMPLE, "--sandbox")
    await until(lambda: "xoauth2-proxy status shows" in proxy.stdout)
    said = proxy.stdout
    assert f"127.0.0.1:{proxy.port}" in said
    assert MOCK_MAILBOXES[0] in said
    assert "--scenario quick --use-mock-tokens" in said
    assert f"{proxy.admin_url}/health" in said
    assert len(said.splitlines()) <= 10
    assert await proxy.stop() == 0
    assert proxy.stdout == said


async def test_each_transaction_has_one_line_for_a_machine(start_process: StartProcess) -> None:
    proxy = await start_process(EXAMPLE, "--sandbox", "--log-format", "json")
    await assert_serves_the_four_mailboxes(proxy, 5)
    assert await proxy.stop() == 0
    lines = [json.loads(line) for line in proxy.stderr.splitlines()]
    transactions = [line for line in lines if line["message"] == "transaction"]
    assert [line["account"] for line in transactions] == list(MOCK_MAILBOXES)
    for line in transactions:
        assert line["level"] == "info"
        assert line["bytes"] > 0
        assert line["recipients"] == 1
        assert line["reply"].startswith("250 2.0.0 OK ")
        assert line["relay_seconds"] >= line["wait_seconds"] >= 0
    assert len({line["id"] for line in transactions}) == 4
    assert proxy.stdout == ""


async def exit_of(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xoauth2_proxy", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        options = ("--sandbox", "--state-dir", str(tmp_path), "--admin-port", "0")
        code, said = await exit_of(*options, "--port", port)
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith("xoauth2-proxy: cannot start: ")
    assert port in line


async def test_a_signal_in_the_first_moment_ends_it_well(start_process: StartProcess) -> None:
    proxy = await start_process(EXAMPLE, "--sandbox")
    proxy.signal(signal.SIGINT)
    assert await proxy.exit_code() == 0
    assert "ERROR" not in proxy.stderr
