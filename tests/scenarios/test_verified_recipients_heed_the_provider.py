"""With `recipients: verified`, what the provider says to RCPT is heeded like anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import message
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay


async def verifying(start_relay: StartRelay) -> Relay:
    account = {
        "email": MAILBOX,
        "provider": "mock",
        "password": PASSWORD,
        "recipients": "verified",
    }
    return await start_relay({"accounts": [account]})


async def test_each_recipient_gets_the_providers_answer(start_relay: StartRelay) -> None:
    relay = await verifying(start_relay)
    relay.sandbox.add_fault(reply_fault(Step.RCPT, "550 5.1.1 No such user", matching="nobody"))
    async with await relay.log_in() as client:
        assert (await client.command("MAIL FROM:<from@example.com>")).code == 250
        assert (await client.command("RCPT TO:<one@example.net>")).code == 250
        answer = await client.command("RCPT TO:<nobody@example.net>")
        assert str(answer) == "550 5.1.1 No such user"
        assert (await client.command("RCPT TO:<two@example.net>")).code == 250
        assert (await client.data(message())).code == 250
    (kept,) = relay.sandbox.received
    assert list(kept.forward_paths) == ["one@example.net", "two@example.net"]


async def test_notifications_that_the_provider_cannot_send_concern_one_recipient(
    start_relay: StartRelay,
) -> None:
    relay = await verifying(start_relay)
    async with await relay.log_in() as client:
        assert (await client.command("MAIL FROM:<from@example.com>")).code == 250
        for notify, code in (("NEVER", 555), ("", 250), ("FAILURE", 555)):
            parameter = f" NOTIFY={notify}" if notify else ""
            answer = await client.command(f"RCPT TO:<{code}@example.net>{parameter}")
            assert answer.code == code
        assert (await client.data(message())).code == 250
    (kept,) = relay.sandbox.received
    assert list(kept.forward_paths) == ["250@example.net"]
    assert relay.sandbox.counters.connections_opened == 1


@pytest.mark.parametrize("text", ["432 4.3.2 Concurrent connections", "503 5.5.1 Out of order"])
async def test_a_spent_connection_is_not_kept(start_relay: StartRelay, text: str) -> None:
    relay = await verifying(start_relay)
    relay.sandbox.add_fault(reply_fault(Step.RCPT, text))
    async with await relay.log_in() as client:
        await client.command("MAIL FROM:<from@example.com>")
        assert (await client.command("RCPT TO:<to@example.net>")).code == 451
        assert (await client.command("RSET")).code == 250
        assert (await client.send(message())).code == 250
    assert relay.sandbox.counters.connections_opened == 2


async def test_a_lost_connection_is_counted_though_no_content_came(
    start_relay: StartRelay,
) -> None:
    relay = await verifying(start_relay)
    relay.sandbox.add_fault(Fault(Step.MAIL, Action.DROP, nth=None))
    async with await relay.log_in() as client:
        await client.command("MAIL FROM:<from@example.com>")
        assert (await client.command("RCPT TO:<to@example.net>")).code == 451
        assert (await client.command("RSET")).code == 250
        assert await relay.metric("xoauth2_proxy_messages_total", reply="4xx") == 1
