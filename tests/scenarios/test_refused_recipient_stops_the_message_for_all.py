"""One of three recipients refused: nobody gets the message, and the client is told who was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import message
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

ALL = ("one@example.net", "two@example.net", "three@example.net")
WITHHELD = (frozenset[str](), frozenset({"CHUNKING"}), frozenset({"PIPELINING"}))


@pytest.mark.parametrize("withhold", WITHHELD, ids=["BDAT", "DATA", "lock step"])
@pytest.mark.parametrize("words", ["550 5.1.1 No such user", "450 4.2.1 Mailbox busy"])
@pytest.mark.parametrize("refused", ALL)
async def test_nobody_gets_it_and_the_rest_can_be_sent_to_again(
    start_relay: StartRelay, tmp_path: Path, withhold: frozenset[str], words: str, refused: str
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    relay.sandbox.add_fault(reply_fault(Step.RCPT, words, nth=None, matching=refused))
    rest = tuple(path for path in ALL if path != refused)
    async with await relay.log_in() as client:
        answer = await client.send(message("to three"), *ALL)
        assert answer.code == int(words[:3])
        assert answer.text == (f"Sent to no one, because of <{refused}>: {words}",)
        assert not any(path in str(answer) for path in rest)
        assert relay.sandbox.received.total == 0
        assert (await client.send(message("to three"), *rest)).code == 250
    (kept,) = relay.sandbox.received
    assert kept.forward_paths == rest
    assert kept.content == message("to three")


async def test_each_refused_recipient_is_named_and_a_permanent_refusal_decides(
    relay: Relay,
) -> None:
    relay.sandbox.add_fault(reply_fault(Step.RCPT, "450 4.2.1 Busy", matching="one@"))
    relay.sandbox.add_fault(reply_fault(Step.RCPT, "550 5.1.1 Unknown", matching="three@"))
    async with await relay.log_in() as client:
        answer = await client.send(message(), *ALL)
    assert answer.code == 550
    assert answer.text == (
        "Sent to no one, because of <one@example.net>: 450 4.2.1 Busy",
        "Sent to no one, because of <three@example.net>: 550 5.1.1 Unknown",
    )
    assert relay.sandbox.received.total == 0


async def test_a_lone_recipients_refusal_stays_as_it_was_said(relay: Relay) -> None:
    relay.sandbox.add_fault(reply_fault(Step.RCPT, "550 5.1.1 No such user"))
    async with await relay.log_in() as client:
        assert str(await client.send(message(), ALL[0])) == "550 5.1.1 No such user"
    assert relay.sandbox.received.total == 0
