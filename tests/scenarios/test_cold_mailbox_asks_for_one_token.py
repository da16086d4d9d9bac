"""Many clients that log in to one mailbox at once cost one token request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.documents import account, one_account
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.smtp_client import encoded, message
from tests.support.token_scripts import GatedRefresher
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay


async def test_fifty_logins_at_once_share_one_token_request(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    refresher = GatedRefresher(MockTokens(load_signing_key(tmp_path)))
    relay = await start_relay(one_account(), refreshers={"mock": refresher})
    clients = [await relay.connect() for _ in range(50)]
    for client in clients:
        await client.ehlo()
    for client in clients:
        client.write(b"AUTH PLAIN " + encoded(f"\0{MAILBOX}\0{PASSWORD}").encode() + b"\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await refresher.asked.wait()
    # Whoever is served now spoke later than all of them, so all of them are waiting.
    async with await relay.connect() as late:
        await late.ehlo()
    refresher.gate.set()
    answers = [await client.reply() for client in clients]
    assert {answer.code for answer in answers} == {235}
    assert refresher.requests == [MAILBOX]
    assert await relay.metric("xoauth2_proxy_token_refreshes_total") == 1
    assert (await clients[0].send(message())).code == 250
    assert refresher.requests == [MAILBOX]
    for client in clients:
        await client.close()


async def test_a_mailbox_that_waits_for_its_token_holds_up_no_other(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    refresher = GatedRefresher(MockTokens(load_signing_key(tmp_path)), gated={MAILBOX})
    document: dict[str, object] = {"accounts": [account(), account(OTHER_MAILBOX)]}
    relay = await start_relay(document, refreshers={"mock": refresher})
    async with await relay.connect() as waiting:
        await waiting.ehlo()
        waiting.write(b"AUTH PLAIN " + encoded(f"\0{MAILBOX}\0{PASSWORD}").encode() + b"\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await refresher.asked.wait()
        async with await relay.log_in(OTHER_MAILBOX) as client:
            assert (await client.send(message())).code == 250
        refresher.gate.set()
        assert (await waiting.reply()).code == 235
