"""1,000 messages over 20 connections to one mailbox: none lost, none twice, none changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import id_in, one_account
from tests.support.relay import MAILBOX
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.conftest import StartRelay

CONNECTIONS = 20
EACH = 50
CAP = 5


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_nothing_is_lost_duplicated_or_corrupted(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account(limits={"max_connections": CAP}))
    sent: dict[str, bytes] = {}  # by the id that the client was told

    async def submit(connection: int) -> None:
        async with await relay.log_in() as client:
            for number in range(EACH):
                content = message(f"{connection}-{number}", size_bytes=4096)
                sent[id_in(await client.send(content))] = content

    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(submit(connection) for connection in range(CONNECTIONS)))
    kept = list(relay.sandbox.received)
    assert Counter(one.id for one in kept) == Counter(sent.keys())
    assert len(kept) == len(sent) == CONNECTIONS * EACH
    assert not [one.id for one in kept if one.content != sent[one.id]]
    assert {one.mailbox for one in kept} == {MAILBOX}
    opened = relay.sandbox.counters.connections_opened
    assert opened <= CAP
    assert relay.sandbox.counters.peak_by_mailbox[MAILBOX] <= CAP
    assert await relay.metric("xoauth2_proxy_upstream_connections_opened_total") == opened
    reused = await relay.metric("xoauth2_proxy_upstream_connections_reused_total", provider="mock")
    assert reused == CONNECTIONS * EACH - opened
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == CONNECTIONS * EACH
    assert await relay.metric("xoauth2_proxy_token_refreshes_total") == 1
