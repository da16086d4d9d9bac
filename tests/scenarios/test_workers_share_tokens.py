"""Workers share a grant whose refresh tokens work once, and no death among them costs it.

The real proxy, a token endpoint that ends the grant when a refresh token comes twice, and a mail
server that takes the tokens given out and no others.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.by_worker import (
    asks,
    clients_of_both,
    counted_by,
    load_on_both,
    told_by_both,
)
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.rotating_endpoint import RotatingEndpoint
from tests.support.smtp_client import message
from tests.support.token_mail import TokenMail, mailbox_of, provider_at, school, token_mail
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.workers import log_in, pids, total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess

pytestmark = pytest.mark.one_loop

LONG, SHORT = 3600.0, 0.8  # seconds that tokens live
RENEWALS = 8  # in all; three of them at least by each worker
GOOD = "235 2.7.0"
REFRESHES = "xoauth2_proxy_token_refreshes_total"


@pytest.fixture
async def endpoint() -> AsyncIterator[RotatingEndpoint]:
    async with RotatingEndpoint(LONG) as running:
        yield running


@pytest.fixture
async def mail(endpoint: RotatingEndpoint) -> AsyncIterator[TokenMail]:
    async with token_mail(lambda token: token in endpoint.users) as server:
        yield server


def document(endpoint: RotatingEndpoint, mail: TokenMail, **limits: int) -> dict[str, object]:
    provider = provider_at(f"{endpoint.url}/token", mail.port)
    return school(provider, mailbox_of(refresh_token="rt-0", limits=limits))


def port_of(endpoint: RotatingEndpoint) -> int:
    return int(endpoint.url.rpartition(":")[2])


async def who_asks(proxy: ProxyProcess, endpoint: RotatingEndpoint) -> int:
    """Return the worker whose refresh the endpoint holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await endpoint.is_holding.wait()
    (asking,) = [pid for pid in pids(proxy.process.pid) if asks(pid, port_of(endpoint))]
    return asking


async def test_a_crowd_at_both_workers_costs_one_token_request(
    start_process: StartProcess, endpoint: RotatingEndpoint, mail: TokenMail
) -> None:
    proxy = await start_process(document(endpoint, mail), "--workers", "2")
    async with clients_of_both(proxy) as clients:
        answers = await asyncio.gather(*(one.auth_plain(MAILBOX, PASSWORD) for one in clients))
        assert {one.code for one in answers} == {235}
        sent = await asyncio.gather(*(one.send(message()) for one in clients))
    assert {one.code for one in sent} == {250}
    assert endpoint.requests == 1
    assert set(mail.logins) == {(MAILBOX, "at-1")}
    assert await total(proxy, REFRESHES, result="ok") == 1
    assert await proxy.stop() == 0


async def test_both_workers_renew_again_and_again_and_never_at_once(
    start_process: StartProcess, endpoint: RotatingEndpoint, mail: TokenMail
) -> None:
    endpoint.lifetime_seconds = SHORT
    # Every message logs in upstream, and so asks for the token in force.
    settings = document(endpoint, mail, max_messages_per_connection=1, max_connections=4)
    proxy = await start_process(settings, "--workers", "2")

    def is_enough() -> bool:
        each = [counted_by(proxy.directory, one, REFRESHES, result="ok") for one in (0, 1)]
        return endpoint.is_revoked or (min(each) >= 3 and sum(each) >= RENEWALS)

    async with load_on_both(proxy) as loads:
        await until(is_enough)
    assert not endpoint.is_revoked, "a refresh token was used twice"
    assert endpoint.at_one_time == 1
    assert [refusal for load in loads for refusal in load.refusals] == []
    acknowledged = [one for load in loads for one in load.acknowledged]
    assert sorted(acknowledged) == sorted(mail.messages)
    assert await proxy.stop() == 0
    assert "no access token" not in proxy.stderr


async def test_a_worker_killed_while_it_asks_is_stepped_in_for(
    start_process: StartProcess, endpoint: RotatingEndpoint, mail: TokenMail
) -> None:
    endpoint.holds = "before"
    proxy = await start_process(document(endpoint, mail), "--workers", "2")
    orphaned, served = [], []

    async with clients_of_both(proxy) as clients:

        async def log_in_once(number: int) -> None:
            with suppress(EOFError, ConnectionError):
                answer = await clients[number].auth_plain(MAILBOX, PASSWORD)
                served.append(answer.code)
                return
            orphaned.append(number)

        tasks = [asyncio.create_task(log_in_once(number)) for number in range(len(clients))]
        os.kill(await who_asks(proxy, endpoint), signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*tasks)
    assert orphaned
    assert served == [235] * (len(clients) - len(orphaned))
    for _ in orphaned:  # they come again
        async with await log_in(proxy) as client:
            assert (await client.send(message())).code == 250
    assert await told_by_both(proxy, MAILBOX) == {GOOD}
    assert endpoint.requests == 2
    assert not endpoint.is_revoked


async def test_after_everything_was_killed_in_a_refresh_the_next_start_works(
    start_process: StartProcess, endpoint: RotatingEndpoint, mail: TokenMail
) -> None:
    endpoint.lifetime_seconds = SHORT
    settings = document(endpoint, mail, max_messages_per_connection=1)
    proxy = await start_process(settings, "--workers", "2")
    async with await log_in(proxy) as client:
        assert (await client.send(message())).code == 250  # the configured refresh token is spent
        endpoint.holds = "before"

        async def send_until_cut_off() -> None:
            with suppress(OSError, EOFError):
                while True:
                    await client.send(message())

        sending = asyncio.create_task(send_until_cut_off())
        await who_asks(proxy, endpoint)
        asked = endpoint.requests
        for pid in (proxy.process.pid, *pids(proxy.process.pid)):
            os.kill(pid, signal.SIGKILL)
        assert await proxy.exit_code() == -signal.SIGKILL
        await sending
    endpoint.lifetime_seconds = LONG
    again = await start_process(settings, "--workers", "2")
    assert await told_by_both(again, MAILBOX) == {GOOD}
    async with await log_in(again) as client:
        assert (await client.send(message())).code == 250
    assert endpoint.requests == asked + 1
    assert not endpoint.is_revoked


async def test_a_killed_parent_s_workers_finish_their_refresh(
    start_process: StartProcess, endpoint: RotatingEndpoint, mail: TokenMail
) -> None:
    """The answer under way carries the only refresh token that works from then on."""
    proxy = await start_process(document(endpoint, mail), "--workers", "2")
    workers = pids(proxy.process.pid)
    async with clients_of_both(proxy) as clients:
        tasks = [asyncio.create_task(one.auth_plain(MAILBOX, PASSWORD)) for one in clients]
        await until(lambda: endpoint.requests == 1)  # and it takes its time
        proxy.signal(signal.SIGKILL)
        await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not any(is_alive(pid) for pid in workers))
    again = await start_process(document(endpoint, mail), "--workers", "2")
    assert await told_by_both(again, MAILBOX) == {GOOD}
    assert endpoint.requests == 1
    assert not endpoint.is_revoked


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
