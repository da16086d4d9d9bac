"""The provider is lost after the last octet: 451, never 250, and the log names the message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import message
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

MESSAGE_ID = "<who-am-i@example.com>"
CONTENT = f"Message-ID: {MESSAGE_ID}\r\n".encode() + message("lost")
TOLD = "451 4.4.2 Connection to the provider lost"


def fields_of(caplog: pytest.LogCaptureFixture, said: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.getMessage() == said]  # type: ignore[attr-defined]


@pytest.mark.parametrize("action", [Action.DROP, Action.RESET, Action.ACCEPT_THEN_DROP])
@pytest.mark.parametrize("withhold", [frozenset[str](), frozenset({"CHUNKING"})])
async def test_it_is_told_as_451_and_logged_with_its_message_id(
    start_relay: StartRelay,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    action: Action,
    withhold: frozenset[str],
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    relay.sandbox.add_fault(Fault(Step.END, action))
    async with await relay.log_in() as client:
        assert str(await client.send(CONTENT)) == TOLD
    (line,) = fields_of(caplog, "outcome unknown")
    assert line["message_id"] == MESSAGE_ID
    assert str(line["reply"]) == TOLD
    # Not tried again: at most the one that nobody knows of.
    assert relay.sandbox.received.total == (action is Action.ACCEPT_THEN_DROP)
    assert relay.sandbox.arrivals(Step.END) == 1
    assert await relay.metric("xoauth2_proxy_messages_total", reply="4xx") == 1


async def test_a_refused_message_is_no_unknown_outcome(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.sandbox.add_fault(reply_fault(Step.END, "550 5.7.1 No"))
    async with await relay.log_in() as client:
        assert (await client.send(CONTENT)).code == 550
    assert not fields_of(caplog, "outcome unknown")


async def test_a_connection_lost_between_content_and_its_end_is_not_tried_again(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=frozenset({"CHUNKING"})))
    relay.sandbox.add_fault(Fault(Step.CONTENT, Action.DROP))
    async with await relay.log_in() as client:
        assert str(await client.send(CONTENT)) == TOLD
    assert relay.sandbox.arrivals(Step.MAIL) == 1
    assert relay.sandbox.received.total == 0
