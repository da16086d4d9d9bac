"""A client that goes away, at whatever octet, leaves no session, connection or task behind."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import encoded, message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

    Leave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.both_loops

CONTENT = b"Subject: short\r\n\r\nHello\r\n"
BY_DATA = b"DATA\r\n" + CONTENT + b".\r\n"
BY_BDAT = b"BDAT 16\r\n" + CONTENT[:16] + b"BDAT %d LAST\r\n" % (len(CONTENT) - 16) + CONTENT[16:]
GAUGES = ("xoauth2_proxy_client_sessions", "xoauth2_proxy_upstream_connections")

# Every upstream connection ends with its message, so that the gauges come back to zero.
ONE_MESSAGE_EACH = one_account(limits={"max_messages_per_connection": 1})


def session(content: bytes) -> bytes:
    """Return what a client says from its greeting to QUIT."""
    credentials = encoded(f"\0{MAILBOX}\0{PASSWORD}").encode()
    return (
        b"EHLO client.example\r\nAUTH PLAIN " + credentials + b"\r\n"
        b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n" + content + b"QUIT\r\n"
    )


async def half_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that nothing more will come, and read to the end."""
    writer.write_eof()
    await reader.read()


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await writer.drain()


async def crash(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def has_no_session(relay: Relay) -> bool:
    return await relay.metric("xoauth2_proxy_client_sessions") == 0


async def is_at_rest(relay: Relay) -> bool:
    return not any([await relay.metric(gauge) for gauge in GAUGES])


def tasks_of_sessions() -> set[str]:
    """Return the names of all tasks but the relay's own and the test's."""
    names = {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    return {name for name in names if "sweep" not in name and "watch" not in name}


@pytest.mark.parametrize("leave", [half_close, hang_up, crash])
@pytest.mark.parametrize("content", [BY_DATA, BY_BDAT], ids=["DATA", "BDAT"])
async def test_whatever_octet_was_the_last(
    start_relay: StartRelay, leave: Leave, content: bytes
) -> None:
    relay = await start_relay(ONE_MESSAGE_EACH)
    before = tasks_of_sessions()
    octets = session(content)
    whole = len(octets) - len(b"QUIT\r\n")  # from here on the message was received
    async with asyncio.timeout(PATIENCE_SECONDS):
        for count in range(len(octets) + 1):
            reader, writer = await asyncio.open_connection(relay.host, relay.port)
            writer.write(octets[:count])
            await leave(reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
    await until(lambda: is_at_rest(relay))
    await until(lambda: tasks_of_sessions() <= before)
    assert {kept.content for kept in relay.sandbox.received} <= {CONTENT}
    sent_whole = len(octets) + 1 - whole
    if leave is half_close:
        assert relay.sandbox.received.total == sent_whole
    assert relay.sandbox.received.total <= sent_whole
    assert relay.sandbox.counters.transactions_refused == 0
    # The relay serves on.
    async with await relay.log_in() as client:
        assert (await client.send(message())).code == 250


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_client_that_is_gone_is_no_internal_error(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=3600))
    client = await relay.log_in()
    await client.envelope("to@example.net")
    assert (await client.command("DATA")).code == 354
    client.write(CONTENT + b".\r\n")
    await relay.sandbox.arrived(Step.END)
    client.writer.transport.abort()
    await client.close()
    relay.sandbox.end_delays()
    await until(lambda: has_no_session(relay))
    gc.collect()  # tells of exceptions that nobody asked for
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("step", [Step.CONNECT, Step.AUTH, Step.MAIL, Step.END])
async def test_a_message_received_whole_is_relayed_without_its_client(
    start_relay: StartRelay, step: Step
) -> None:
    relay = await start_relay(ONE_MESSAGE_EACH)
    relay.sandbox.add_fault(Fault(step, Action.DELAY, seconds=3600))
    client = await relay.log_in()
    await client.envelope("to@example.net")
    assert (await client.command("DATA")).code == 354
    client.write(CONTENT + b".\r\n")
    await relay.sandbox.arrived(step)
    client.writer.transport.abort()
    await client.close()
    relay.sandbox.end_delays()
    (kept,) = await relay.sandbox.received.wait_until(1)
    assert kept.content == CONTENT
    await until(lambda: is_at_rest(relay))
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == 1


async def test_a_client_that_waits_in_line_gives_its_place_back(start_relay: StartRelay) -> None:
    limits = {"max_connections": 1, "max_messages_per_connection": 1}
    relay = await start_relay(one_account(limits=limits))
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=3600))
    clients = [await relay.log_in() for _ in range(5)]
    for client in clients:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(CONTENT + b".\r\n")
    await relay.sandbox.arrived(Step.END)
    for client in clients:
        client.writer.transport.abort()
        await client.close()
    relay.sandbox.end_delays()
    await relay.sandbox.received.wait_until(5)
    await until(lambda: is_at_rest(relay))
    assert relay.sandbox.received.total == 5
    assert relay.sandbox.counters.peak_by_mailbox == {MAILBOX: 1}
