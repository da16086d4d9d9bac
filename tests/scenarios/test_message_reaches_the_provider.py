"""The way of one message, from a client's login to the provider's mailbox."""

from __future__ import annotations

import pytest

from tests.support.relay import MAILBOX, Relay
from tests.support.smtp_client import message

pytestmark = pytest.mark.both_loops


async def test_message_arrives_as_sent_and_the_reply_is_the_providers(relay: Relay) -> None:
    async with await relay.log_in() as client:
        answer = await client.send(message("one"), "to@example.net")
    arrived = next(iter(relay.sandbox.received))
    assert answer.is_positive
    assert arrived.id in answer.text[0]
    assert arrived.mailbox == MAILBOX
    assert arrived.content == message("one")
