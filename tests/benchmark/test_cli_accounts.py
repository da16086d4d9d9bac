from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.benchmark.runs import command, invoked, only_file, outcome, strict_json
from tests.benchmark.test_cli_private_proxy import assert_clean, is_default_target_taken
from tests.support.beside import beside
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.one_loop


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A running proxy with its sandbox, one for all tests: each has to leave it as it was."""
    with beside(ProxyProcess(tmp_path_factory.mktemp("proxy"), None, "--sandbox")) as process:
        yield process


async def remove(proxy: ProxyProcess, mailboxes: list[str]) -> None:
    headers = {"X-Requested-By": "test"}
    async with aiohttp.ClientSession(proxy.admin_url, headers=headers) as http:
        for mailbox in mailboxes:
            async with http.delete(f"/accounts/{mailbox}") as response:
                assert response.status == 200, await response.text()


def options(proxy: ProxyProcess, *more: str) -> tuple[str, ...]:
    target = ("--port", str(proxy.port), "--admin-url", proxy.admin_url)
    return (*target, "--state-dir", str(proxy.directory), "--accounts", "30", *more)


async def added(proxy: ProxyProcess) -> list[str]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{proxy.admin_url}/accounts") as response,
    ):
        accounts = (await response.json())["accounts"]
    return [one["email"] for one in accounts if one["source"] == "added"]


@pytest.mark.parametrize("more", [(), ("--use-mock-tokens",)], ids=["passwords", "tokens"])
async def test_a_running_proxy_gets_mailboxes_for_the_run(
    tmp_path: Path, proxy: ProxyProcess, more: tuple[str, ...]
) -> None:
    code, out, errors = await outcome(
        tmp_path, *options(proxy, "--num-emails", "90", "--concurrent", "30", *more)
    )
    assert code == 0, out + errors
    document = strict_json(only_file(tmp_path).read_text())
    assert document["config"]["mailboxes"] == 30
    assert document["config"]["from_emails"][0] == "bench_user001@mock.test"
    assert document["provider"]["connections_opened"] >= 30  # one a mailbox at least
    assert_clean(document, 90)
    assert await added(proxy) == []


async def test_a_terminal_that_is_closed_takes_the_mailboxes_along(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    async def all_are_there() -> bool:
        return len(await added(proxy)) == 30

    screen, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", *options(proxy, "--duration", "60", "--yes")),
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        await until(all_are_there)
        os.close(screen)  # whatever is printed from now on fails
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 129
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert await added(proxy) == []


@pytest.mark.parametrize("signals", [1, 2])
async def test_ctrl_c_takes_the_mailboxes_along(
    tmp_path: Path, proxy: ProxyProcess, signals: int
) -> None:
    arguments = options(proxy, "--duration", "60", "--yes")
    async with command(tmp_path, *arguments) as running:
        await running.error_text("Sending messages")
        assert len(await added(proxy)) == 30
        for _ in range(signals):
            running.process.send_signal(signal.SIGINT)
        if signals == 1:
            await running.error_text("Stopping after the messages in flight")
        code, _, _ = await running.end()
    assert code == 130
    assert await added(proxy) == []


@pytest.mark.skipif(is_default_target_taken(), reason="something listens at 127.0.0.1:2525 already")
def test_a_private_proxy_has_them_from_the_start(tmp_path: Path) -> None:
    arguments = ("--accounts", "5", "--user-prefix", "crowd", "--num-emails", "20")
    code, out, errors = invoked(tmp_path, *arguments, "--concurrent", "5")
    assert code == 0, out + errors
    document = strict_json(only_file(tmp_path).read_text())
    assert document["config"]["from_emails"] == [
        f"crowd_user{number:03d}@mock.test" for number in range(1, 6)
    ]
    assert_clean(document, 20)


async def test_too_few_mailboxes_call_the_run_off(tmp_path: Path, proxy: ProxyProcess) -> None:
    names = ("--no-cleanup", "--num-emails", "2", "--output", "first.json")
    code, _, errors = await outcome(tmp_path, *options(proxy, *names))
    assert code == 0
    assert "These mailboxes stay" in errors
    code, out, errors = await outcome(tmp_path, *options(proxy))
    assert (code, out) == (1, "")
    assert "0 of 30 mailboxes could be added" in errors
    assert len(await added(proxy)) == 30
    await remove(proxy, await added(proxy))


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--accounts", "2", "--from", "a@example.org"), "omit --from"),
        (("--accounts", "2", "--password", "x"), "omit --password"),
        (("--accounts", "2", "--port", "2626"), "--admin-url"),
        (("--accounts", "2", "--min-accounts", "3"), "--accounts"),
        (("--accounts", "2", "--user-prefix", "a b"), "--user-prefix"),
        (("--user-prefix", "a", "--use-mock-tokens"), "requires --accounts"),
    ],
)
def test_wrong_usage(tmp_path: Path, more: tuple[str, ...], complaint: str) -> None:
    result: Any = invoked(tmp_path, *more)
    assert result[0] == 2
    assert complaint in result[2]
