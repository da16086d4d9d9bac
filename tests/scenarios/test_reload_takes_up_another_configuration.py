"""The file is read again, and mail goes on as if nothing had happened.

First by SIGHUP: the real process, alone and as a parent of workers, its provider outside of it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import account, id_in, upstream_at
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.sandbox import Sandbox
from tests.support.smtp_client import Client, message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess
    from tests.support.relay import Relay

pytestmark = pytest.mark.one_loop

EACH = pytest.mark.parametrize("workers", ["1", "2"])
CLIENTS = 10
GENEROUS = {"max_connections": 5, "wait_seconds": 0.2}
ONE_AT_A_TIME = GENEROUS | {"max_connections": 1}
READ_AGAIN = "configuration read again"


class Written:
    """The configuration that the proxy reads, as an operator edits it."""

    def __init__(self, provider: Sandbox) -> None:
        self._upstream = upstream_at(provider)

    def accounts(self, *mailboxes: str, **changes: object) -> dict[str, object]:
        accounts = [account(one, upstream=self._upstream, **changes) for one in mailboxes]
        return {"accounts": accounts}


def rewrite(proxy: ProxyProcess, document: object) -> None:
    (proxy.directory / "proxy.json").write_text(json.dumps(document))


async def reload(proxy: ProxyProcess, document: object, workers: str = "1") -> None:
    """Write the document, have it read, and wait until every process has done so."""
    rewrite(proxy, document)
    before = proxy.stderr.count(READ_AGAIN)
    proxy.signal(signal.SIGHUP)
    readers = 1 if workers == "1" else 1 + int(workers)
    await until(lambda: proxy.stderr.count(READ_AGAIN) == before + readers)


async def answer_to(proxy: ProxyProcess, mailbox: str, password: str = PASSWORD) -> int:
    async with await proxy.connect() as client:
        await client.ehlo()
        return (await client.auth_plain(mailbox, password)).code


async def log_in(proxy: ProxyProcess, mailbox: str = MAILBOX) -> Client:
    client = await proxy.connect()
    await client.ehlo()
    assert (await client.auth_plain(mailbox, PASSWORD)).code == 235
    return client


@EACH
async def test_accounts_come_and_go(
    start_process: StartProcess, provider: Sandbox, workers: str
) -> None:
    written = Written(provider)
    proxy = await start_process(written.accounts(MAILBOX), "--workers", workers)
    assert await answer_to(proxy, MAILBOX) == 235
    assert await answer_to(proxy, OTHER_MAILBOX) == 535
    await reload(proxy, written.accounts(OTHER_MAILBOX), workers)
    for _ in range(4):  # whichever worker answers
        assert await answer_to(proxy, OTHER_MAILBOX) == 235
        assert await answer_to(proxy, MAILBOX) == 535
    health = json.loads((await proxy.get("/health"))[1])
    assert health["accounts"]["enabled"] == 1
    assert await proxy.stop() == 0


@EACH
async def test_a_broken_file_changes_nothing_and_is_named(
    start_process: StartProcess, provider: Sandbox, workers: str
) -> None:
    written = Written(provider)
    proxy = await start_process(written.accounts(MAILBOX), "--workers", workers)
    rewrite(proxy, {"accounts": [account(MAILBOX, colour="red")]})
    proxy.signal(signal.SIGHUP)
    await until(lambda: "the previous one stays in use" in proxy.stderr)
    assert "accounts[0].colour: unknown key" in proxy.stderr
    assert await answer_to(proxy, MAILBOX) == 235
    assert await proxy.stop() == 0


@EACH
async def test_under_load_nothing_is_lost_or_refused(
    start_process: StartProcess, provider: Sandbox, workers: str
) -> None:
    written = Written(provider)
    proxy = await start_process(written.accounts(MAILBOX), "--workers", workers)
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def send_on() -> None:
        async with await log_in(proxy) as client:
            while not enough.is_set():
                acknowledged.append(id_in(await client.send(message())))

    clients = [asyncio.create_task(send_on()) for _ in range(CLIENTS)]
    for number in range(3):
        await provider.received.wait_until(100 * (number + 1))
        mailboxes = (MAILBOX, OTHER_MAILBOX)[: 1 + number % 2]
        await reload(proxy, written.accounts(*mailboxes), workers)
    enough.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*clients)
    kept = Counter(one.id for one in provider.received)
    assert set(kept.values()) == {1}
    assert sorted(acknowledged) == sorted(kept)
    assert await proxy.stop() == 0


# What a reload changes, for clients that are there meanwhile: a relay in the test's own process.


@pytest.fixture
async def office(start_relay: StartRelay, tmp_path: Path) -> Office:
    """A relay of one mailbox, whose file can be written anew."""
    return Office(await start_relay({"accounts": [account(limits=GENEROUS)]}), tmp_path)


class Office:
    """A relay, and the file that it reads."""

    def __init__(self, relay: Relay, directory: Path) -> None:
        self.relay = relay
        self.provider = relay.sandbox
        self._file = directory / "accounts.json"

    async def reload(self, *accounts: dict[str, object], **sections: object) -> None:
        self._file.write_text(json.dumps({"accounts": accounts} | sections))
        await self.relay.app.reload()

    async def code_for(self, mailbox: str, password: str = PASSWORD) -> int:
        async with await self.relay.connect() as client:
            await client.ehlo()
            return (await client.auth_plain(mailbox, password)).code


async def test_a_deleted_account_may_finish_its_transaction_and_no_more(office: Office) -> None:
    async with await office.relay.log_in() as client:
        before = id_in(await client.send(message("before")))
        await client.envelope("to@example.net")
        await office.reload(account(OTHER_MAILBOX))
        after = id_in(await client.data(message("after")))
        answer = await client.command("MAIL FROM:<a@example.com>")
        assert str(answer) == "421 4.7.0 The mailbox's settings have changed; log in again"
        assert await client.closed()
    assert [one.id for one in office.provider.received] == [before, after]
    assert await office.code_for(MAILBOX) == 535


async def test_a_changed_password_ends_the_sessions_of_the_old_one(office: Office) -> None:
    async with await office.relay.log_in() as client:
        await office.reload(account(password="another one"))
        assert (await client.command("MAIL FROM:<a@example.com>")).code == 421


async def test_a_session_goes_on_with_the_account_as_it_is_now(
    office: Office, tmp_path: Path
) -> None:
    other_place = tmp_path / "elsewhere"
    other_place.mkdir()
    shutil.copytree(tmp_path / "sandbox", other_place / "sandbox")
    async with Sandbox(other_place, http_port=None) as moved, await office.relay.log_in() as client:
        assert (await client.send(message("before"))).code == 250
        await office.reload(account(upstream=upstream_at(moved)))
        answer = await client.send(message("after"))
        assert [one.id for one in moved.received] == [id_in(answer)]
    assert office.provider.received.total == 1


async def test_a_changed_password_replaces_the_old_one(office: Office) -> None:
    assert await office.code_for(MAILBOX) == 235
    await office.reload(account(password="another one"))
    assert await office.code_for(MAILBOX) == 535
    assert await office.code_for(MAILBOX, "another one") == 235


async def test_changed_limits_hold_at_once(office: Office) -> None:
    await office.reload(account(limits=ONE_AT_A_TIME))
    office.provider.add_fault(Fault(Step.END, Action.STALL))
    async with await office.relay.log_in() as first, await office.relay.log_in() as second:
        await occupy(office, first)
        assert (await second.send(message())).code == 451
        assert office.provider.received.total == 0


async def test_an_old_login_does_not_bring_old_limits_back(office: Office) -> None:
    async with await office.relay.log_in() as old, await office.relay.log_in() as older:
        await office.reload(account(limits=ONE_AT_A_TIME))
        office.provider.add_fault(Fault(Step.END, Action.STALL))
        await occupy(office, old)
        assert (await older.send(message())).code == 451


async def occupy(office: Office, client: Client) -> None:
    """Send a message whose final reply does not come."""
    await client.envelope("to@example.net")
    assert (await client.command("DATA")).code == 354
    client.write(message() + b".\r\n")
    await office.provider.arrived(Step.END)


async def test_what_needs_a_restart_is_named(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    await office.reload(account(), listener={"idle_seconds": 7})
    assert "listener.idle_seconds has changed; it takes effect after a restart" in caplog.text
