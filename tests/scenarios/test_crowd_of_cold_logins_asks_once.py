"""Five hundred clients that log in to one mailbox at the same moment cost one token request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.documents import one_account
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import encoded, message
from tests.support.token_scripts import GatedRefresher
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay

CROWD = 500
AUTH = b"AUTH PLAIN " + encoded(f"\0{MAILBOX}\0{PASSWORD}").encode() + b"\r\n"


async def test_five_hundred_logins_at_once_share_one_token_request(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    refresher = GatedRefresher(MockTokens(load_signing_key(tmp_path)))
    relay = await start_relay(one_account(), refreshers={"mock": refresher})
    clients = await asyncio.gather(*(relay.connect() for _ in range(CROWD)))
    await asyncio.gather(*(client.ehlo() for client in clients))
    for client in clients:
        client.write(AUTH)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await refresher.asked.wait()
    # Whoever is served now spoke later than all of them, so all of them are waiting.
    async with await relay.connect() as late:
        await late.ehlo()
    refresher.gate.set()
    answers = await asyncio.gather(*(client.reply() for client in clients))
    assert {answer.code for answer in answers} == {235}
    sent = await asyncio.gather(*(client.send(message()) for client in clients[::50]))
    assert {answer.code for answer in sent} == {250}
    assert refresher.requests == [MAILBOX]
    assert await relay.metric("xoauth2_proxy_token_refreshes_total") == 1
    await asyncio.gather(*(client.close() for client in clients))
