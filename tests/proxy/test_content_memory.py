"""Clients that stall or drip within content: they hold neither a mailbox's connections nor memory.

The rules are tested without sockets in `test_buffer_budget`; here they act.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import message
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.submission import pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client

BUFFER = 65_536
DRIP_SECONDS = 4.0


def settings(connections: int = 2, **relay: object) -> dict[str, object]:
    limits = {"max_connections": connections}
    account = {"email": MAILBOX, "provider": "mock", "password": PASSWORD, "limits": limits}
    return {"accounts": [account], "relay": {"buffer_bytes": BUFFER, **relay}}


@pytest.fixture
async def clients() -> AsyncIterator[AsyncExitStack]:
    """Closes the clients that a test enters."""
    async with AsyncExitStack() as stack:
        yield stack


async def begin(relay: Relay, clients: AsyncExitStack) -> Client:
    """Return a client that may send content now."""
    client = await clients.enter_async_context(await relay.log_in())
    await client.envelope("to@example.net")
    assert (await client.command("DATA")).code == 354
    return client


async def drip(client: Client) -> None:
    while True:
        client.write(b"x")
        await asyncio.sleep(DRIP_SECONDS)


def leases(relay: Relay) -> int:
    """Return how many connections of the mailbox carry messages."""
    return sum(session.is_streaming for session in relay.sessions())


@pytest.mark.simulated_time
async def test_two_clients_that_drip_do_not_hold_the_mailboxs_connections(
    start_relay: StartRelay, clients: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await start_relay(settings(connections=2))
    dripping = [await begin(relay, clients) for _ in range(2)]
    for client in dripping:
        client.write(message(size_bytes=5 * BUFFER))
    await until(lambda: leases(relay) == 2)
    tasks = [asyncio.create_task(drip(client)) for client in dripping]
    try:
        async with await relay.log_in() as good:  # it waits for a connection, and gets one
            assert (await good.send(message())).is_positive
        for client in dripping:
            assert await client.reply() == replies.TOO_SLOW
            assert await client.closed()
    finally:
        for task in tasks:
            task.cancel()
    assert relay.sandbox.received.total == 1
    told = [
        record.fields["reply"]  # type: ignore[attr-defined]
        for record in caplog.records
        if record.getMessage() == "transaction" and record.levelname == "WARNING"
    ]
    assert told == [replies.TOO_SLOW] * 2


@pytest.mark.simulated_time
async def test_a_client_that_stops_after_a_verified_recipient_holds_no_connection(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    document = settings(connections=1)
    document["accounts"][0]["recipients"] = "verified"  # type: ignore[index]
    relay = await start_relay(document)
    client = await clients.enter_async_context(await relay.log_in())
    await client.envelope("to@example.net")
    assert leases(relay) == 1
    async with await relay.log_in() as other:
        assert (await other.send(message())).is_positive
    assert await client.reply() == replies.TOO_SLOW


@pytest.mark.simulated_time
async def test_a_client_that_was_cut_off_is_gathered_the_next_time(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(settings())
    client = await begin(relay, clients)
    client.write(message(size_bytes=2 * BUFFER))
    assert await client.reply() == replies.TOO_SLOW
    again = await begin(relay, clients)
    again.write(message(size_bytes=2 * BUFFER))
    await asyncio.sleep(2 * pace.CREDIT_SECONDS)
    assert leases(relay) == 0
    again.write(b".\r\n")
    assert (await again.reply()).is_positive


@pytest.mark.simulated_time
async def test_a_slow_clients_message_holds_no_connection_until_it_is_here(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(settings())
    client = await begin(relay, clients)
    octets = message(size_bytes=4 * BUFFER)
    for start in range(0, len(octets), 8192):
        client.write(octets[start : start + 8192])
        await asyncio.sleep(1.0)
        assert leases(relay) == 0
    client.write(b".\r\n")
    assert (await client.reply()).is_positive
    (kept,) = relay.sandbox.received
    assert kept.size_bytes >= len(octets) - 10


@pytest.mark.simulated_time
async def test_a_slow_clients_large_message_streams_in_the_end(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(settings())
    client = await begin(relay, clients)
    octets = message(size_bytes=20 * BUFFER)
    for start in range(0, len(octets), 2 * 8192):
        client.write(octets[start : start + 2 * 8192])
        await asyncio.sleep(2.0)
    assert leases(relay) == 1
    client.write(b".\r\n")
    assert (await client.reply()).is_positive


@pytest.mark.both_loops
async def test_what_streams_is_not_held_twice_while_it_waits_for_a_connection(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(settings(connections=1))
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    first = await clients.enter_async_context(await relay.log_in())
    await first.envelope("to@example.net")
    first.write(b"BDAT 3 LAST\r\na\r\n")
    await relay.sandbox.arrived(Step.END)
    waiting = [await begin(relay, clients) for _ in range(4)]
    for client in waiting:
        client.write(message(size_bytes=40 * BUFFER))
    await until(lambda: leases(relay) == 4)
    for session in relay.sessions():
        if session.is_streaming:
            # The buffer is exceeded by one read at most: an event loop reads up to 256 KiB.
            assert session.held_bytes <= BUFFER + 262_144
            assert session._is_reading_paused
    relay.sandbox.end_delays()


@pytest.mark.both_loops
@pytest.mark.parametrize("size", [100, BUFFER // 2, 3 * BUFFER])
async def test_what_a_client_held_is_free_once_it_has_left(
    start_relay: StartRelay, clients: AsyncExitStack, size: int
) -> None:
    relay = await start_relay(settings())
    budget = relay.app._budget
    for leave in (lambda client: client.writer.transport.abort(), lambda client: None):
        client = await begin(relay, clients)
        client.write(message(size_bytes=size))
        await until(lambda: budget.used_bytes > 0 or leases(relay) > 0)
        leave(client)
        if not client.writer.transport.is_closing():
            client.write(b".\r\nQUIT\r\n")
            assert (await client.reply()).is_positive
    await until(lambda: budget.used_bytes == 0 and not budget._receiving)


@pytest.mark.both_loops
async def test_sessions_that_stall_are_cut_when_memory_is_short(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(settings(buffer_total_bytes=16 * BUFFER))
    stalled = [await begin(relay, clients) for _ in range(30)]
    for client in stalled:
        client.write(message(size_bytes=BUFFER - 4096))
    async with await relay.log_in() as good:
        assert (await good.send(message(size_bytes=BUFFER // 2))).is_positive
    assert relay.app._budget.used_bytes <= 16 * BUFFER

    async def is_one_cut() -> bool:
        return await relay.metric("xoauth2_proxy_messages_total", reply="4xx") > 0

    await until(is_one_cut)
    assert not relay.app._listeners[0].slow_clients._until  # or they would hold yet more


@pytest.mark.both_loops
async def test_without_room_new_content_is_refused_and_the_session_goes_on(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(settings(connections=1, buffer_total_bytes=16 * BUFFER))
    client = await clients.enter_async_context(await relay.log_in())
    budget = relay.app._budget
    budget.used_bytes += budget.total_bytes  # as messages that wait for their provider would
    await client.envelope("to@example.net")
    assert await client.command("DATA") == replies.NO_ROOM
    assert (await client.command("RSET")).is_positive
    await client.envelope("to@example.net")
    client.write(b"BDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\n")
    assert await client.reply() == replies.NO_ROOM
    assert (await client.reply()).code == 503
    assert (await client.command("RSET")).is_positive
    budget.used_bytes -= budget.total_bytes
    assert (await client.send(message())).is_positive
