"""Whatever the sender of a message says, the relay logs in upstream as the mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, OTHER_MAILBOX
from tests.support.smtp_client import message

if TYPE_CHECKING:
    from tests.support.relay import Relay


@pytest.mark.parametrize(
    "sender", ["", "stranger@elsewhere.example", OTHER_MAILBOX, MAILBOX.upper()]
)
async def test_the_sender_is_passed_on_and_is_not_the_login(relay: Relay, sender: str) -> None:
    async with await relay.log_in(MAILBOX) as client:
        await client.envelope("to@example.net", sender=sender)
        assert (await client.data(message())).code == 250
    (kept,) = relay.sandbox.received
    assert (kept.mailbox, kept.reverse_path) == (MAILBOX, sender)
    assert kept.content == message()
    assert list(relay.sandbox.counters.peak_by_mailbox) == [MAILBOX]


async def test_two_logins_never_share_an_upstream_connection(relay: Relay) -> None:
    for login in (MAILBOX, OTHER_MAILBOX, MAILBOX):
        async with await relay.log_in(login) as client:
            assert (await client.send(message(login))).code == 250
    assert [kept.mailbox for kept in relay.sandbox.received] == [MAILBOX, OTHER_MAILBOX, MAILBOX]
    assert relay.sandbox.counters.connections_opened == 2
