"""The provider closes a connection the relay kept: the client's next message does not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox import Sandbox
from tests.support.smtp_client import message
from tests.support.waiting import until
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.upstream import connection

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

OPEN_NOW = "xoauth2_proxy_upstream_connections"


@pytest.mark.parametrize("farewell", ["421 4.4.2 Timeout, closing connection", ""])
async def test_a_connection_closed_while_idle_is_not_used(relay: Relay, farewell: str) -> None:
    async with await relay.log_in() as client:
        assert (await client.send(message("first"))).code == 250
        relay.sandbox.close_connections(farewell)
        await until(lambda: none_open(relay))
        assert (await client.send(message("second"))).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [
        message("first"),
        message("second"),
    ]
    assert relay.sandbox.counters.connections_opened == 2
    assert await relay.metric("xoauth2_proxy_upstream_connections_closed_total", reason="lost") == 1


async def none_open(relay: Relay) -> bool:
    return await relay.metric(OPEN_NOW) == 0


@pytest.mark.parametrize("action", [Action.DROP, Action.RESET])
@pytest.mark.parametrize("withhold", [frozenset[str](), frozenset({"CHUNKING"})])
async def test_a_connection_that_turns_out_dead_is_replaced(
    start_relay: StartRelay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: Action,
    withhold: frozenset[str],
) -> None:
    # Any kept connection counts as one that has idled for long.
    monkeypatch.setattr(connection, "FRESH_SECONDS", 0.0)
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    async with await relay.log_in() as client:
        assert (await client.send(message("first"))).code == 250
        relay.sandbox.add_fault(Fault(Step.MAIL, action))
        assert (await client.send(message("second"))).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [
        message("first"),
        message("second"),
    ]
    assert relay.sandbox.counters.connections_opened == 2


async def test_a_message_racing_with_the_providers_farewell_is_answered_truly(
    relay: Relay,
) -> None:
    async with await relay.log_in() as client:
        assert (await client.send(message("first"))).code == 250
        # Both in one turn of the event loop: the relay cannot have seen the end yet.
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(message("second") + b"..leading\r\n.\r\n")
        relay.sandbox.close_connections()
        answer = await client.reply()
        assert answer.code in {250, 451}
        assert relay.sandbox.received.total == (2 if answer.code == 250 else 1)
        assert (await client.send(message("third"))).code == 250


async def test_a_provider_that_is_gone_for_good_is_told_as_unreachable(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path))
    async with await relay.log_in() as client:
        assert (await client.send(message("first"))).code == 250
        await relay.sandbox.stop()
        answer = await client.send(message("second"))
        assert str(answer) == "451 4.4.1 The provider cannot be reached"
        await relay.sandbox.start()
        assert (await client.send(message("third"))).code == 250
    assert relay.sandbox.received.total == 2
