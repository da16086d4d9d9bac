"""Upstream connections are kept and shared, and a mailbox never has more than its limit."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import id_in, one_account
from tests.support.relay import MAILBOX
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

CAP = 4


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Allow the open files that hundreds of clients and their server take in one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_200_messages_one_after_the_other_take_one_connection(relay: Relay) -> None:
    answers = []
    async with await relay.log_in() as client:
        answers += [await client.send(message(f"kept {number}")) for number in range(100)]
    for number in range(100):
        async with await relay.log_in() as client:
            answers.append(await client.send(message(f"new {number}")))
    assert [kept.id for kept in relay.sandbox.received] == [id_in(answer) for answer in answers]
    assert relay.sandbox.counters.connections_opened == 1
    assert await relay.metric("xoauth2_proxy_upstream_connections_opened_total") == 1
    assert await relay.metric("xoauth2_proxy_upstream_connections_reused_total") == 199


async def test_a_connection_is_replaced_after_its_number_of_messages(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(one_account(limits={"max_messages_per_connection": 10}))
    async with await relay.log_in() as client:
        for number in range(30):
            assert (await client.send(message(f"number {number}"))).code == 250
    assert relay.sandbox.counters.connections_opened == 3
    closed = await relay.metric(
        "xoauth2_proxy_upstream_connections_closed_total", reason="messages"
    )
    assert closed == 3


@pytest.mark.usefixtures("_many_files")
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_500_clients_at_once_never_exceed_the_mailboxs_limit(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(one_account(limits={"max_connections": CAP}))
    everyone_is_in = asyncio.Barrier(500)

    async def submit(number: int) -> str:
        async with await relay.log_in() as client:
            await everyone_is_in.wait()
            return id_in(await client.send(message(f"number {number}")))

    async with asyncio.timeout(PATIENCE_SECONDS):
        ids = await asyncio.gather(*(submit(number) for number in range(500)))
    assert sorted(ids) == sorted(kept.id for kept in relay.sandbox.received)
    assert len(set(ids)) == 500
    assert relay.sandbox.counters.peak_by_mailbox == {MAILBOX: CAP}
    assert relay.sandbox.counters.connections_opened == CAP
