from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from bench.process.child_process import StartInterrupted
from bench.process.interruption import Interruption
from bench.targets.mailboxes import MAX_ACCOUNTS, MailboxesToAdd
from bench.targets.provisioning import TOKEN_VARIABLE, ProvisioningError, provisioned
from tests.support.beside import beside
from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.one_loop

# A run that says when it has its mailboxes, and stops when it is told to; or does not.
PROGRAM = """
import asyncio, sys
from bench.process.interruption import Interruption
from bench.targets.mailboxes import MailboxesToAdd
from bench.targets.provisioning import provisioned

async def main(url, count, is_deaf):
    with Interruption() as interruption:
        async with provisioned(MailboxesToAdd(count=count), url, interruption, print) as mailboxes:
            print("ready", len(mailboxes), flush=True)
            await (asyncio.Event() if is_deaf else interruption.requested).wait()
    return interruption.exit_code

sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["deaf"])))
"""


@pytest.fixture(scope="module")
def shared_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with beside(ProxyProcess(tmp_path_factory.mktemp("proxy"), None, "--sandbox")) as process:
        yield process


@pytest.fixture
async def proxy(shared_proxy: ProxyProcess) -> AsyncIterator[ProxyProcess]:
    """A running proxy with its sandbox, without mailboxes of another test."""
    yield shared_proxy
    for mailbox in await added(shared_proxy):
        await ask(shared_proxy, "DELETE", f"/accounts/{mailbox}")


async def ask(proxy: ProxyProcess, method: str, path: str, document: object = None) -> Any:
    async with (
        aiohttp.ClientSession(proxy.admin_url, headers={"X-Requested-By": "test"}) as http,
        http.request(method, path, json=document) as response,
    ):
        assert response.status < 300, await response.text()
        return await response.json()


async def added(proxy: ProxyProcess) -> list[str]:
    """Return the mailboxes that are at the proxy beside its own."""
    accounts = (await ask(proxy, "GET", "/accounts"))["accounts"]
    return [one["email"] for one in accounts if one["source"] == "added"]


def silent(_: str) -> None:
    """Hear an announcement."""


async def test_mailboxes_send_with_their_passwords_until_the_context_ends(
    proxy: ProxyProcess,
) -> None:
    said: list[str] = []
    wanted = MailboxesToAdd(count=60, user_prefix="crowd")
    async with provisioned(wanted, proxy.admin_url, Interruption(), said.append) as mailboxes:
        assert [one.address for one in mailboxes][:2] == [
            "crowd_user001@mock.test",
            "crowd_user002@mock.test",
        ]
        assert len({one.password for one in mailboxes}) == len(await added(proxy)) == 60
        last = mailboxes[-1]
        async with await proxy.connect() as client:
            await client.ehlo()
            assert (await client.auth_plain(last.address, last.password)).code == 235
            assert (await client.send(message())).is_positive
    assert await added(proxy) == []
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(last.address, last.password)).code == 535
    assert said[-1] == "60 of 60 mailboxes added."
    assert last.password not in repr(mailboxes)


async def test_an_error_within_removes_them(proxy: ProxyProcess) -> None:
    with pytest.raises(ZeroDivisionError):
        async with provisioned(MailboxesToAdd(count=3), proxy.admin_url, Interruption(), silent):
            raise ZeroDivisionError
    assert await added(proxy) == []


async def test_cancelling_the_run_removes_them(proxy: ProxyProcess) -> None:
    entered = asyncio.Event()

    async def run() -> None:
        async with provisioned(MailboxesToAdd(count=3), proxy.admin_url, Interruption(), silent):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await added(proxy) == []


async def test_fewer_than_needed_calls_the_run_off_and_leaves_others_alone(
    proxy: ProxyProcess,
) -> None:
    theirs = "bench_user002@mock.test"
    await ask(proxy, "POST", "/accounts", {"email": theirs, "provider": "mock"})
    with pytest.raises(ProvisioningError) as told:
        async with provisioned(MailboxesToAdd(count=3), proxy.admin_url, Interruption(), silent):
            pytest.fail("it went on")
    assert "2 of 3 mailboxes could be added" in str(told.value)
    assert f"{theirs}: it is there already" in str(told.value)
    assert "--user-prefix" in str(told.value)
    assert await added(proxy) == [theirs]


async def test_as_many_as_needed_are_enough(proxy: ProxyProcess) -> None:
    theirs = "bench_user002@mock.test"
    await ask(proxy, "POST", "/accounts", {"email": theirs, "provider": "mock"})
    said: list[str] = []
    wanted = MailboxesToAdd(count=3, min_count=2)
    async with provisioned(wanted, proxy.admin_url, Interruption(), said.append) as mailboxes:
        assert [one.address[:13] for one in mailboxes] == ["bench_user001", "bench_user003"]
    assert await added(proxy) == [theirs]
    assert "it is there already" in said[-1]


async def test_mailboxes_that_are_to_stay_are_listed(
    proxy: ProxyProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = MailboxesToAdd(count=2, is_kept=True)
    async with provisioned(wanted, proxy.admin_url, Interruption(), silent):
        pass
    names = ["bench_user001@mock.test", "bench_user002@mock.test"]
    assert sorted(await added(proxy)) == names
    told = capsys.readouterr().err
    assert "These mailboxes stay" in told
    assert all(name in told for name in names)


async def test_the_admin_servers_token_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document: dict[str, object] = {"admin": {"token": "t" * 40}, "accounts": []}
    async with ProxyProcess(tmp_path, document, "--sandbox") as proxy:
        with pytest.raises(ProvisioningError, match=f"401.*set {TOKEN_VARIABLE}"):
            async with provisioned(
                MailboxesToAdd(count=1), proxy.admin_url, Interruption(), silent
            ):
                pass
        monkeypatch.setenv(TOKEN_VARIABLE, "t" * 40)
        async with provisioned(
            MailboxesToAdd(count=1), proxy.admin_url, Interruption(), silent
        ) as mailboxes:
            assert len(mailboxes) == 1


@pytest.mark.parametrize(
    ("url", "options", "token", "complaint"),
    [
        ("http://192.0.2.1:9090", {}, "", "give --allow-remote"),
        ("http://192.0.2.1:9090", {"allow_remote": True}, "secret", "in clear"),
        ("ftp://127.0.0.1", {}, "", "not an http URL"),
        ("http://127.0.0.1:1", {}, "", "does not answer"),
    ],
)
async def test_an_admin_server_that_may_not_or_cannot_be_used(
    url: str,
    options: dict[str, Any],
    token: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(ProvisioningError, match=complaint):
        async with provisioned(MailboxesToAdd(count=1), url, Interruption(), silent, **options):
            pytest.fail("it went on")


async def test_a_signal_that_came_before_ends_it_before_a_mailbox_is_added(
    proxy: ProxyProcess,
) -> None:
    interruption = Interruption()
    interruption.requested.set()
    with pytest.raises(StartInterrupted):
        async with provisioned(MailboxesToAdd(count=3), proxy.admin_url, interruption, silent):
            pytest.fail("it went on")
    assert await added(proxy) == []


@pytest.mark.parametrize(
    ("count", "prefix", "least"),
    [(0, "bench", None), (3, "bench", 4), (MAX_ACCOUNTS + 1, "bench", None), (1, "a b", None)],
)
async def test_what_makes_no_sense_is_refused(count: int, prefix: str, least: int | None) -> None:
    with pytest.raises(ValueError, match=r"mail"):
        MailboxesToAdd(count=count, user_prefix=prefix, min_count=least)


# A run as a process of its own, ended by signals.


class Program:
    """The program, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, words: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while words not in (line := (await self.process.stdout.readline()).decode()):
                assert line, f"ended without saying {words!r}: {await self.process.communicate()}"

    async def end(self) -> tuple[int | None, str]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, errors = await self.process.communicate()
        return self.process.returncode, errors.decode()


@asynccontextmanager
async def program(proxy: ProxyProcess, *arguments: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, proxy.admin_url, *arguments),
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
async def test_a_signal_in_the_run_removes_them(
    proxy: ProxyProcess, number: signal.Signals, code: int
) -> None:
    async with program(proxy, "40") as running:
        await running.says("ready 40")
        assert len(await added(proxy)) == 40
        running.process.send_signal(number)
        assert await running.end() == (code, "")
    assert await added(proxy) == []


async def test_a_second_signal_removes_them_at_once(proxy: ProxyProcess) -> None:
    async with program(proxy, "40", "deaf") as running:
        await running.says("ready 40")
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        code, errors = await running.end()
    assert code in (130, 143)  # whichever was taken up second
    assert "Removing 40 mailboxes" in errors
    assert await added(proxy) == []


async def test_signals_at_any_moment_leave_nothing(proxy: ProxyProcess) -> None:
    for words in ("Adding", "of 80 mailboxes added"):
        async with program(proxy, "80") as running:
            await running.says(words)
            running.process.send_signal(signal.SIGINT)
            code, _ = await running.end()
        assert code in (1, 130)  # StartInterrupted is for the caller to take
        assert await added(proxy) == []


# A proxy that fails at its own hands.


class FailingProxy:
    """An admin server that adds what it was sent only after the client has given up."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.asked_in_vain: list[str] = []
        self.open_requests = 0
        self.most_open_requests = 0
        self.batches: list[int] = []
        self.is_late = False
        self.release = asyncio.Event()
        self.has_added = asyncio.Event()

    def add_late(self, names: set[str]) -> None:
        self.there |= names
        self.has_added.set()

    async def list(self, _: web.Request) -> web.Response:
        return web.json_response({"accounts": [{"email": one} for one in self.there]})

    async def add(self, request: web.Request) -> web.StreamResponse:
        documents = await request.json()
        self.batches.append(len(documents))
        self.open_requests += 1
        self.most_open_requests = max(self.most_open_requests, self.open_requests)
        if self.open_requests == 2:  # time for a third one, which must not come
            asyncio.get_running_loop().call_later(0.3, self.release.set)
        await self.release.wait()
        self.open_requests -= 1
        names = {one["email"] for one in documents}
        if self.is_late:
            asyncio.get_running_loop().call_later(0.3, self.add_late, names)
            assert request.transport is not None
            request.transport.abort()
        self.there |= set() if self.is_late else names
        return web.json_response(
            {"failed_accounts": [], "added_accounts": [{"email": one} for one in names]}
        )

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["email"]
        if name in self.there:
            self.there.remove(name)
            return web.json_response({})
        self.asked_in_vain.append(name)
        return web.json_response({"error": "there is none"}, status=404)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.add_routes(
            [
                web.get("/accounts", self.list),
                web.post("/accounts/batch", self.add),
                web.delete("/accounts/{email}", self.remove),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_no_more_than_two_requests_are_made_at_once() -> None:
    proxy = FailingProxy()
    async with (
        proxy.served() as url,
        provisioned(MailboxesToAdd(count=130), url, Interruption(), silent) as mailboxes,
    ):
        assert len(mailboxes) == 130
    assert proxy.most_open_requests == 2
    assert sorted(proxy.batches) == [5, 25, 25, 25, 25, 25]


async def test_what_was_added_without_an_answer_is_removed_too() -> None:
    proxy = FailingProxy()
    proxy.is_late = True
    proxy.release.set()
    async with proxy.served() as url:
        with pytest.raises(ProvisioningError, match=r"0 of 4 .*\n.*does not answer"):
            async with provisioned(MailboxesToAdd(count=4), url, Interruption(), silent):
                pytest.fail("it went on")
        await asyncio.wait_for(proxy.has_added.wait(), PATIENCE_SECONDS)
    assert proxy.asked_in_vain  # it was not there yet
    assert proxy.there == set()


async def test_what_cannot_be_removed_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    proxy = FailingProxy()
    proxy.release.set()
    async with proxy.served() as url, asyncio.timeout(PATIENCE_SECONDS):
        serving = provisioned(MailboxesToAdd(count=2), url, Interruption(), silent)
        await serving.__aenter__()
    await serving.__aexit__(None, None, None)
    told = capsys.readouterr().err
    assert "could not be removed" in told
    assert "  bench_user001@mock.test\n  bench_user002@mock.test\n" in told


async def test_a_password_is_sent_as_a_hash_and_kept_in_a_private_configuration_as_it_is() -> None:
    (mailbox,) = MailboxesToAdd(count=1).mailboxes
    assert mailbox.document()["password"] == mailbox.password
    sent = json.dumps(mailbox.document(is_hashed=True))
    assert mailbox.password not in sent
    assert "$argon2" in sent
