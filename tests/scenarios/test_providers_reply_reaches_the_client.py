"""Whatever the provider answers is what the client hears: in its words, never a 250 instead."""

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

# What the provider says, and what the client is told.
PASSED_ON = {
    "permanent": ("550 5.7.1 Looks like spam", "550 5.7.1 Looks like spam"),
    "transient": ("451 4.3.0 Mail server busy", "451 4.3.0 Mail server busy"),
    "size": ("552 5.3.4 Too big for us", "552 5.3.4 Too big for us"),
    "quota": ("550 5.4.5 Daily sending quota exceeded", "550 5.4.5 Daily sending quota exceeded"),
    "no enhanced code": ("554 Transaction failed", "554 5.0.0 Transaction failed"),
    "several lines": (
        "550-5.7.26 This mail has been blocked\n550 5.7.26 because of its sender",
        "550 5.7.26 This mail has been blocked because of its sender",
    ),
    "concurrency": ("432 4.3.2 Concurrent connections", "451 4.3.2 Concurrent connections"),
    "about our session": (
        "503 5.5.1 Bad sequence of commands",
        "451 4.3.0 The provider did not accept the relay's session",
    ),
}
STEPS = (Step.MAIL, Step.RCPT, Step.DATA, Step.BDAT, Step.CONTENT, Step.END)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("said", "told"), PASSED_ON.values(), ids=PASSED_ON)
async def test_a_refusal_reaches_the_client(
    start_relay: StartRelay, tmp_path: Path, step: Step, said: str, told: str
) -> None:
    withhold = frozenset({"CHUNKING"}) if step is Step.DATA else frozenset()
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    relay.sandbox.add_fault(reply_fault(step, said))
    async with await relay.log_in() as client:
        assert str(await client.send(message("refused"))) == told
        assert relay.sandbox.received.total == 0
        # The session goes on, on a connection whose state is known.
        assert (await client.send(message("next"))).code == 250
    (kept,) = relay.sandbox.received
    assert kept.content == message("next")


@pytest.mark.parametrize("step", [Step.RCPT, Step.END])
async def test_a_421_does_not_end_the_clients_session(relay: Relay, step: Step) -> None:
    relay.sandbox.add_fault(reply_fault(step, "421 4.7.28 Unusual rate of mail"))
    async with await relay.log_in() as client:
        answer = await client.send(message("refused"))
        assert str(answer) == "451 4.7.28 Unusual rate of mail"
        assert relay.sandbox.received.total == 0
        assert (await client.send(message("next"))).code == 250
    assert relay.sandbox.counters.connections_opened == 2


async def test_a_421_to_mail_is_tried_again_on_a_new_connection(relay: Relay) -> None:
    relay.sandbox.add_fault(reply_fault(Step.MAIL, "421 4.7.0 Closing, too many messages"))
    async with await relay.log_in() as client:
        assert (await client.send(message("once"))).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [message("once")]
    assert relay.sandbox.counters.connections_opened == 2


async def test_a_lasting_421_to_mail_reaches_the_client_in_the_providers_words(
    relay: Relay,
) -> None:
    relay.sandbox.add_fault(reply_fault(Step.MAIL, "421 4.7.28 Unusual rate of mail", nth=None))
    async with await relay.log_in() as client:
        assert str(await client.send(message())) == "451 4.7.28 Unusual rate of mail"


async def test_the_providers_greeting_of_refusal_reaches_the_client(relay: Relay) -> None:
    relay.sandbox.add_fault(reply_fault(Step.CONNECT, "450 4.3.2 Come back later"))
    async with await relay.log_in() as client:
        assert str(await client.send(message())) == "450 4.3.2 Come back later"
        assert (await client.send(message())).code == 250
