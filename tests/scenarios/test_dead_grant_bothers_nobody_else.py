"""A mailbox whose grant is dead costs one token request, and no other mailbox notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.documents import account
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.smtp_client import message
from tests.support.token_scripts import PartlyDeadRefresher
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

LOGINS = 50
MESSAGES = 100
BOTH: dict[str, object] = {"accounts": [account(), account(OTHER_MAILBOX)]}


async def log_in_again_and_again(relay: Relay) -> set[str]:
    """Log in like a mail program that does not give up; return what it was told."""
    told = set()
    for _ in range(LOGINS):
        async with await relay.connect() as client:
            await client.ehlo()
            told.add(str(await client.auth_plain(MAILBOX, PASSWORD)))
    return told


async def test_a_dead_grant_is_asked_for_once_while_its_neighbour_sends(
    start_relay: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refresher = PartlyDeadRefresher(MockTokens(load_signing_key(tmp_path)), dead={MAILBOX})
    relay = await start_relay(BOTH, refreshers={"mock": refresher})

    async def neighbour_sends() -> set[int]:
        async with await relay.log_in(OTHER_MAILBOX) as client:
            return {(await client.send(message(f"{n}"))).code for n in range(MESSAGES)}

    *told, codes = await asyncio.gather(
        log_in_again_and_again(relay), log_in_again_and_again(relay), neighbour_sends()
    )
    again = "535 5.7.8 The mailbox must be signed in at the relay"
    assert told == [{again}, {again}]
    assert codes == {250}
    assert relay.sandbox.received.total == MESSAGES
    assert sorted(refresher.requests) == sorted([MAILBOX, OTHER_MAILBOX])
    complaints = [one for one in caplog.records if one.message == "no access token"]
    assert [one.levelname for one in complaints] == ["ERROR"]
