"""The cap on connections, and the orderly end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import replies
from xoauth2_proxy.log import LOGGER_NAME
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.upstream.connection import Connection

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

ACCOUNTS = [{"email": MAILBOX, "provider": "mock", "password": "secret"}]


async def drain(relay: Relay, deadline_seconds: float = 10.0) -> asyncio.Task[int]:
    """Begin to drain; the task returns how many sessions were cut."""
    listener = relay.app._listeners[0]
    draining = asyncio.create_task(listener.drain(deadline_seconds))
    await asyncio.sleep(0)
    return draining


# The cap.


async def test_one_client_too_many_is_told_and_turned_away(start_relay: StartRelay) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": {"max_connections": 2}})
    async with await relay.connect() as one, await relay.connect() as other:
        for _ in range(3):
            async with await relay.connect() as refused:
                assert refused.greeting == replies.TOO_MANY_CONNECTIONS
                assert await refused.closed()
        assert one.greeting.code == other.greeting.code == 220
        await one.command("QUIT")
        assert await one.closed()
        async with await relay.connect() as next_one:
            assert next_one.greeting.code == 220
    name = "xoauth2_proxy_client_connections_total"
    assert await relay.metric(name, result="accepted") == 3
    assert await relay.metric(name, result="refused") == 3


async def test_sessions_are_counted_while_they_last(relay: Relay) -> None:
    name = "xoauth2_proxy_client_sessions"
    async with await relay.connect() as one, await relay.connect():
        assert await relay.metric(name) == 2
        await one.command("QUIT")
        assert await one.closed()
        assert await relay.metric(name) == 1


async def test_a_client_that_vanished_is_not_counted_any_more(start_relay: StartRelay) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": {"max_connections": 1}})
    async with await relay.connect() as client:
        client.writer.transport.abort()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await relay.metric("xoauth2_proxy_client_sessions"):
            pass
    async with await relay.connect() as client:
        assert client.greeting.code == 220


# Draining.


async def test_idle_clients_are_told_at_once(relay: Relay) -> None:
    async with await relay.connect() as silent, await relay.log_in() as logged_in:
        draining = await drain(relay)
        for client in (silent, logged_in):
            assert await client.reply() == replies.SHUTTING_DOWN
            assert await client.closed()
        assert await draining == 0


async def test_nobody_else_is_let_in(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        draining = await drain(relay)
        with pytest.raises((OSError, EOFError)):
            await relay.connect()
        assert (await client.data(message())).is_positive
        assert await draining == 0


async def test_a_transaction_begun_is_finished_before_the_goodbye(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        draining = await drain(relay)
        assert (await client.data(message())).is_positive
        assert await client.reply() == replies.SHUTTING_DOWN
        assert await client.closed()
        assert await draining == 0
    assert relay.sandbox.received.total == 1


async def test_a_message_on_its_way_is_waited_for(relay: Relay) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=3600))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        client.write(b"BDAT 3 LAST\r\na\r\n")
        await relay.sandbox.arrived(Step.END)
        draining = await drain(relay)
        relay.sandbox.end_delays()
        assert (await client.reply()).is_positive
        assert await client.reply() == replies.SHUTTING_DOWN
        assert await draining == 0


async def test_at_the_deadline_what_is_left_is_cut_and_not_acknowledged(relay: Relay) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        client.write(b"BDAT 3 LAST\r\na\r\n")
        await relay.sandbox.arrived(Step.END)
        draining = await drain(relay, deadline_seconds=0.05)
        assert await client.reply() == replies.SHUTTING_DOWN
        assert await client.closed()
        assert await draining == 1


async def test_draining_without_clients_ends_at_once(relay: Relay) -> None:
    assert await (await drain(relay)) == 0


@pytest.mark.parametrize("size_bytes", [100, 500_000], ids=["whole", "streamed"])
async def test_a_cut_transaction_is_told_as_unknown_by_its_name(
    relay: Relay, size_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"Message-ID: <cut@example.com>\r\n" + message(size_bytes=size_bytes))
        client.write(b".\r\n")
        await relay.sandbox.arrived(Step.END)
        draining = await drain(relay, deadline_seconds=0.05)
        assert await client.reply() == replies.SHUTTING_DOWN
        assert await draining == 1
    (record,) = (one for one in caplog.records if one.name == f"{LOGGER_NAME}.relay")
    assert record.getMessage() == "outcome unknown"
    assert record.fields["message_id"] == "<cut@example.com>"  # type: ignore[attr-defined]
    assert record.fields["account"] == MAILBOX  # type: ignore[attr-defined]
    assert await relay.metric("xoauth2_proxy_messages_total", reply="cut") == 1
    assert await relay.metric("xoauth2_proxy_messages_total") == 1


@pytest.mark.parametrize(
    "step", [Step.AUTH, Step.MAIL], ids=["no connection yet", "no content yet"]
)
async def test_a_transaction_cut_before_its_content_left_is_not_in_doubt(
    start_relay: StartRelay, step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay = await start_relay({"accounts": ACCOUNTS})
    relay.sandbox.add_fault(Fault(step, Action.STALL))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net", "other@example.net")  # content waits for both
        client.write(b"BDAT 3 LAST\r\na\r\n")
        await relay.sandbox.arrived(step)
        draining = await drain(relay, deadline_seconds=0.05)
        assert await client.reply() == replies.SHUTTING_DOWN
        assert await draining == 1
    (record,) = (one for one in caplog.records if one.name == f"{LOGGER_NAME}.relay")
    assert record.getMessage() == "transaction cut off"
    assert await relay.metric("xoauth2_proxy_messages_total", reply="cut") == 1


async def test_a_message_cut_at_the_moment_of_its_250_is_acknowledged(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    async with await relay.log_in() as client:
        assert (await client.send(message())).is_positive
        (session,) = relay.app._listeners[0]._sessions
        received = Connection.data_received

        def cut_behind(connection: Connection, data: bytes) -> None:
            received(connection, data)
            assert session._task is not None
            session._task.cancel()

        monkeypatch.setattr(Connection, "data_received", cut_behind)
        caplog.clear()
        await client.envelope("to@example.net")
        client.write(b"BDAT 3 LAST\r\na\r\n")
        assert (await client.reply()).code == 250
    (record,) = (one for one in caplog.records if one.name == f"{LOGGER_NAME}.relay")
    assert record.getMessage() == "transaction"
