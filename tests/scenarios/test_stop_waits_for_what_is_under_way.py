"""A stop lets messages finish, whether their clients stay, and waits for nobody who is idle."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

DEADLINE_SECONDS = 3600.0  # no stop is to take as long


async def test_a_message_whose_client_vanished_is_finished(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xoauth2_proxy")
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=DEADLINE_SECONDS))
    client = await relay.log_in()
    await client.envelope("to@example.net")
    assert (await client.command("DATA")).code == 354
    client.write(message("left behind") + b".\r\n")
    await relay.sandbox.arrived(Step.END)
    client.writer.transport.abort()
    stopping = asyncio.create_task(relay.app.stop(DEADLINE_SECONDS))
    await until(lambda: relay.app.health.is_draining)
    relay.sandbox.end_delays()
    await stopping
    told = [record.fields for record in caplog.records if record.message == "transaction"]  # type: ignore[attr-defined]
    assert [str(fields["reply"])[:3] for fields in told] == ["250"]
    assert "outcome unknown" not in caplog.text


async def test_a_vanished_clients_message_counts_until_it_is_done(relay: Relay) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    client = await relay.log_in()
    await client.envelope("to@example.net")
    await client.command("DATA")
    client.write(message() + b".\r\n")
    await relay.sandbox.arrived(Step.END)
    client.writer.transport.abort()
    async with await relay.connect():  # by now the loop has seen the other one go
        assert await relay.metric("xoauth2_proxy_client_sessions") == 2


async def test_a_client_in_the_midst_of_auth_is_told_at_once(relay: Relay) -> None:
    client = await relay.connect()
    await client.ehlo()
    assert (await client.command("AUTH LOGIN")).code == 334
    async with asyncio.timeout(PATIENCE_SECONDS):
        await relay.app.stop(DEADLINE_SECONDS)
    assert (await client.reply()).code == 421
    await client.close()
