"""What an operator does reaches every worker, and is in force when the answer comes.

The real proxy with two workers; token endpoint and mail server are the test's own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import argon2
import pytest

from tests.support.admin_visits import Browser
from tests.support.by_worker import clients_of_both, told_by_both
from tests.support.logins import provider_entry
from tests.support.person import Person
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.sign_ins import ALICE
from tests.support.smtp_client import message
from tests.support.token_endpoint import TokenEndpoint
from tests.support.token_mail import (
    PROVIDER,
    TokenMail,
    mailbox_of,
    provider_at,
    school,
    token_mail,
    upstream_at_port,
)
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.workers import figures, health, pids, total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.scenarios.conftest import StartProcess
    from tests.support.identity_server import IdentityProvider
    from tests.support.proxy_process import ProxyProcess

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

GOOD, REFUSED = {"235 2.7.0"}, {"535 5.7.8"}
ADDED = "added@example.com"
# As cheap as can be: a password that a test logs in with dozens of times.
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
REFRESHES = "xoauth2_proxy_token_refreshes_total"


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(rotates=True, detects_reuse=True) as running:
        for mailbox in (MAILBOX, OTHER_MAILBOX, ADDED):
            running.grants(f"rt-{mailbox}")
        yield running


@pytest.fixture
async def mail(endpoint: TokenEndpoint) -> AsyncIterator[TokenMail]:
    async with token_mail(lambda token: token in endpoint.issued) as server:
        yield server


class Operator:
    """Edits the configuration, and uses the admin API."""

    def __init__(self, endpoint: TokenEndpoint, mail: TokenMail) -> None:
        self._provider = provider_at(endpoint.token_url, mail.port)

    def document(self, *mailboxes: str, **changes: object) -> dict[str, object]:
        accounts = [granted(one, **changes) for one in mailboxes]
        return school(self._provider, *accounts)

    def write(self, proxy: ProxyProcess, *mailboxes: str, **changes: object) -> None:
        """Replace the file, as editors do: nobody ever reads half of it."""
        draft = proxy.directory / "draft.json"
        draft.write_text(json.dumps(self.document(*mailboxes, **changes)))
        draft.replace(proxy.directory / "proxy.json")


@pytest.fixture
def operator(endpoint: TokenEndpoint, mail: TokenMail) -> Operator:
    return Operator(endpoint, mail)


def granted(email: str, **changes: object) -> dict[str, object]:
    return mailbox_of(email, refresh_token=f"rt-{email}", **changes)


async def ask(
    proxy: ProxyProcess, method: str, path: str, document: object = None
) -> tuple[int, dict[str, Any]]:
    options: dict[str, Any] = {} if document is None else {"json": document}
    async with (
        aiohttp.ClientSession(proxy.admin_url, headers={"X-Requested-By": "test"}) as http,
        http.request(method, path, **options) as response,
    ):
        return response.status, json.loads(await response.text())


async def test_an_added_mailbox_works_at_once_everywhere_and_a_removed_one_nowhere(
    start_process: StartProcess, operator: Operator, endpoint: TokenEndpoint, mail: TokenMail
) -> None:
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    for number in range(2):
        endpoint.grants(f"rt-{number}")
        added = mailbox_of(ADDED, refresh_token=f"rt-{number}", password=HASH)
        status, body = await ask(proxy, "POST", "/accounts", added)
        assert status == 201, body
        async with clients_of_both(proxy) as clients:
            logins = await asyncio.gather(*(one.auth_plain(ADDED, PASSWORD) for one in clients))
            assert {one.code for one in logins} == {235}
            assert {(await one.send(message())).code for one in clients} == {250}
        status, body = await ask(proxy, "DELETE", f"/accounts/{ADDED}")
        assert status == 200, body
        assert await told_by_both(proxy, ADDED) == REFUSED
        await until(lambda: mail.open == 0)
    assert await told_by_both(proxy, MAILBOX) == GOOD
    assert len(endpoint.token_requests) == 3  # one for each grant, by whomever
    assert await proxy.stop() == 0
    assert "Traceback" not in proxy.stderr


async def test_the_file_read_again_is_in_force_when_the_answer_comes(
    start_process: StartProcess, operator: Operator
) -> None:
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    for mailbox, other in [(OTHER_MAILBOX, MAILBOX), (MAILBOX, OTHER_MAILBOX)]:
        operator.write(proxy, mailbox)
        async with clients_of_both(proxy) as clients:
            assert (await ask(proxy, "POST", "/reload"))[0] == 200
            told = await asyncio.gather(*(one.auth_plain(mailbox, PASSWORD) for one in clients))
            assert {one.code for one in told} == {235}
        assert await told_by_both(proxy, other) == REFUSED


async def test_a_grant_that_is_mended_and_refreshed_works_everywhere(
    start_process: StartProcess, operator: Operator, endpoint: TokenEndpoint
) -> None:
    grant = f"rt-{MAILBOX}"
    endpoint.revoke(grant)
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    assert await told_by_both(proxy, MAILBOX) == REFUSED
    endpoint.grants(grant)
    assert await told_by_both(proxy, MAILBOX) == REFUSED  # for minutes, unless somebody acts
    status, body = await ask(proxy, "POST", f"/accounts/{MAILBOX}/refresh")
    assert (status, body["account"]["state"]) == (200, "ok")

    async def works_everywhere() -> bool:
        return await told_by_both(proxy, MAILBOX) == GOOD

    await until(works_everywhere)
    asked = [one.form["refresh_token"] for one in endpoint.token_requests]
    assert asked == [grant] * 2


async def test_a_refresh_of_the_operators_takes_no_token_from_the_workers(
    start_process: StartProcess, operator: Operator, endpoint: TokenEndpoint, mail: TokenMail
) -> None:
    proxy = await start_process(operator.document(MAILBOX, OTHER_MAILBOX), "--workers", "2")
    async with clients_of_both(proxy) as clients:
        await asyncio.gather(*(one.auth_plain(MAILBOX, PASSWORD) for one in clients))
        for mailbox in (MAILBOX, OTHER_MAILBOX):
            assert (await ask(proxy, "POST", f"/accounts/{mailbox}/refresh"))[0] == 200
            sent = await asyncio.gather(*(one.send(message()) for one in clients))
            assert {one.code for one in sent} == {250}
    for mailbox in (MAILBOX, OTHER_MAILBOX):  # the second one's was got by the parent alone
        assert await told_by_both(proxy, mailbox) == GOOD
    assert len(endpoint.token_requests) == 3
    found = await figures(proxy)
    refreshes = (("provider", PROVIDER), ("result", "ok"))
    assert found[REFRESHES, refreshes] == 3  # one by a worker, two by the parent
    assert await total(proxy, "xoauth2_proxy_token_refresh_duration_seconds_count") == 3


async def test_mailboxes_are_counted_once_however_many_workers_there_are(
    start_process: StartProcess, operator: Operator
) -> None:
    proxy = await start_process(operator.document(MAILBOX, OTHER_MAILBOX), "--workers", "2")

    async def they_are_counted() -> bool:
        return await total(proxy, "xoauth2_proxy_mailboxes") == 2

    await until(they_are_counted)
    assert await told_by_both(proxy, MAILBOX) == GOOD
    assert await total(proxy, "xoauth2_proxy_mailboxes") == 2
    assert await total(proxy, "xoauth2_proxy_mailboxes", provider=PROVIDER, state="unused") == 2


async def test_signing_in_and_revoking_reach_every_worker(
    start_process: StartProcess, identity_provider: IdentityProvider
) -> None:
    async with token_mail() as mail:
        provider = provider_entry(identity_provider, upstream=upstream_at_port(mail.port))
        document = school(provider, {"email": ALICE, "provider": PROVIDER, "password": PASSWORD})
        proxy = await start_process(document, "--workers", "2")
        assert await told_by_both(proxy, ALICE) == REFUSED
        await sign_in(proxy, identity_provider)
        async with clients_of_both(proxy) as clients:
            logins = await asyncio.gather(*(one.auth_plain(ALICE, PASSWORD) for one in clients))
            assert {one.code for one in logins} == {235}
            sent = await asyncio.gather(*(one.send(message()) for one in clients))
            assert {one.code for one in sent} == {250}
            assert mail.open > 0
            status, body = await ask(proxy, "POST", f"/accounts/{ALICE}/revoke")
            assert (status, body["account"]["state"]) == (200, "sign_in_needed")
            await until(lambda: mail.open == 0)
            assert await told_by_both(proxy, ALICE) == REFUSED
            sent = await asyncio.gather(*(one.send(message()) for one in clients))
            assert {f"{one.code} {one.enhanced}" for one in sent} == {"550 5.7.8"}
        before = {token for _, token in mail.logins}
        await sign_in(proxy, identity_provider)
        async with clients_of_both(proxy) as clients:
            await asyncio.gather(*(one.auth_plain(ALICE, PASSWORD) for one in clients))
            sent = await asyncio.gather(*(one.send(message()) for one in clients))
            assert {one.code for one in sent} == {250}
        after = {token for _, token in mail.logins} - before
        assert len(after) == 1, "each worker has a token of its own"
        # Who signs in anew replaces a grant that works.
        await sign_in(proxy, identity_provider)
        await until(lambda: mail.open == 0)
        async with clients_of_both(proxy) as clients:
            await asyncio.gather(*(one.auth_plain(ALICE, PASSWORD) for one in clients))
            await asyncio.gather(*(one.send(message()) for one in clients))
        assert len({token for _, token in mail.logins} - before - after) == 1
        assert await proxy.stop() == 0
        assert "Traceback" not in proxy.stderr


async def sign_in(proxy: ProxyProcess, provider: IdentityProvider) -> None:
    """Sign Alice in at the admin page."""
    async with Browser(proxy.admin_url) as browser, Person(provider) as owner:
        begun = await browser.get(f"/oauth/{PROVIDER}/login?mailbox={ALICE}")
        assert begun.status == 302, begun.text
        parts = urlsplit(await owner.sign_in(str(begun.headers["Location"]), ALICE))
        page = await browser.get(f"{parts.path}?{parts.query}")
        assert page.status == 200, page.text


async def test_hangups_and_operators_at_the_same_time_lose_nothing(
    start_process: StartProcess, operator: Operator, endpoint: TokenEndpoint
) -> None:
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    names = [f"n{number}@example.com" for number in range(4)]
    for name in names:
        endpoint.grants(f"rt-{name}")
    is_over = asyncio.Event()

    async def hang_up() -> None:
        for number in itertools.count():
            if is_over.is_set():
                return
            operator.write(proxy, *[MAILBOX, OTHER_MAILBOX][: 1 + number % 2])
            proxy.signal(signal.SIGHUP)
            await ask(proxy, "GET", "/accounts")

    async def add(name: str) -> int:
        return (await ask(proxy, "POST", "/accounts", granted(name, password=HASH)))[0]

    hanging_up = asyncio.create_task(hang_up())
    assert await asyncio.gather(*map(add, names)) == [201] * len(names)
    removed = names[::2]
    answers = await asyncio.gather(*(ask(proxy, "DELETE", f"/accounts/{one}") for one in removed))
    assert [status for status, _ in answers] == [200] * len(removed)
    is_over.set()
    await hanging_up
    operator.write(proxy, OTHER_MAILBOX)
    assert (await ask(proxy, "POST", "/reload"))[0] == 200
    for name in names:
        assert await told_by_both(proxy, name) == (REFUSED if name in removed else GOOD)
    assert await told_by_both(proxy, OTHER_MAILBOX) == GOOD
    assert await told_by_both(proxy, MAILBOX) == REFUSED
    assert await proxy.stop() == 0
    assert "Traceback" not in proxy.stderr
    assert "CRITICAL" not in proxy.stderr


async def test_workers_killed_while_the_file_is_read_end_up_with_what_it_says(
    start_process: StartProcess, operator: Operator
) -> None:
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    for number in range(3):
        mailbox, other = [(OTHER_MAILBOX, MAILBOX), (MAILBOX, OTHER_MAILBOX)][number % 2]
        operator.write(proxy, mailbox)
        victim = sorted(pids(proxy.process.pid))[number % 2]
        os.kill(victim, signal.SIGKILL)
        if number >= 1:  # the next one is being started, or is starting
            await until(lambda dead=victim: dead not in pids(proxy.process.pid))  # type: ignore[misc]
        if number >= 2:
            await until(lambda: len(pids(proxy.process.pid)) == 2)
        assert (await ask(proxy, "POST", "/reload"))[0] == 200
        await until_restarted(proxy, number + 1)
        assert await told_by_both(proxy, mailbox) == GOOD
        assert await told_by_both(proxy, other) == REFUSED


async def test_a_file_that_cannot_be_used_changes_nothing_for_new_workers_either(
    start_process: StartProcess, operator: Operator
) -> None:
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    operator.write(proxy, OTHER_MAILBOX, colour="red")
    status, body = await ask(proxy, "POST", "/reload")
    assert (status, body["problems"][0]["path"]) == (400, "accounts[0].colour")
    for victim in sorted(pids(proxy.process.pid)):
        os.kill(victim, signal.SIGKILL)
    await until_restarted(proxy, 2)
    assert await told_by_both(proxy, MAILBOX) == GOOD
    assert await told_by_both(proxy, OTHER_MAILBOX) == REFUSED


async def until_restarted(proxy: ProxyProcess, times: int) -> None:
    async def is_so() -> bool:
        return bool((await health(proxy))["workers"] == {"running": 2, "restarts": times})

    await until(is_so)


async def test_a_stuck_worker_does_not_hold_the_answer_for_long_and_obeys_once_it_can(
    start_process: StartProcess, operator: Operator
) -> None:
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    stuck = min(pids(proxy.process.pid))
    os.kill(stuck, signal.SIGSTOP)
    try:
        operator.write(proxy, OTHER_MAILBOX)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await ask(proxy, "POST", "/reload"))[0] == 200
        assert "1 workers do not use the new configuration yet" in proxy.stderr
    finally:
        os.kill(stuck, signal.SIGCONT)

    async def obeys() -> bool:
        return await told_by_both(proxy, MAILBOX) == REFUSED

    await until(obeys)
    assert await told_by_both(proxy, OTHER_MAILBOX) == GOOD
    assert stuck in pids(proxy.process.pid)


async def test_what_needs_a_restart_waits_for_one_in_new_workers_too(
    start_process: StartProcess, operator: Operator, endpoint: TokenEndpoint
) -> None:
    """A worker with another store than its neighbours would spend refresh tokens behind them."""
    proxy = await start_process(operator.document(MAILBOX), "--workers", "2")
    assert await told_by_both(proxy, MAILBOX) == GOOD
    elsewhere = proxy.directory / "elsewhere"
    document = operator.document(MAILBOX) | {"store": {"directory": str(elsewhere)}}
    (proxy.directory / "proxy.json").write_text(json.dumps(document))
    assert (await ask(proxy, "POST", "/reload"))[0] == 200
    assert "store.directory has changed; it takes effect after a restart" in proxy.stderr
    for victim in sorted(pids(proxy.process.pid)):
        os.kill(victim, signal.SIGKILL)
    await until_restarted(proxy, 2)
    assert await told_by_both(proxy, MAILBOX) == GOOD
    assert len(endpoint.token_requests) == 1
    assert not elsewhere.exists()
