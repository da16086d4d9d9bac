"""A client that sends commands without end gets its turn, and no more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.submission import session

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client

pytestmark = pytest.mark.both_loops

SESSIONS = "xoauth2_proxy_client_sessions"
NOOPS = 100_000
MANY_COMMANDS = {"max_commands": 1_000_000_000}
ANSWER = b"250 2.0.0 OK\r\n"


@pytest.fixture
async def relay(start_relay: StartRelay) -> Relay:
    """A relay that does not end the session of a client that floods it."""
    return await start_relay(one_account() | {"listener": MANY_COMMANDS})


async def answered(flooding: Client, count: int) -> None:
    """Read until so many NOOPs were answered."""
    left = count * len(ANSWER)
    while left:
        octets = await flooding._reader.read(min(left, 65_536))
        assert octets
        left -= len(octets)


async def flood_without_end(flooding: Client) -> None:
    """Send NOOP and read the answers until cancelled."""
    reading = asyncio.create_task(answered(flooding, 1 << 40))
    try:
        while True:
            flooding.write(b"NOOP\r\n" * 1000)
            await flooding.writer.drain()
    finally:
        reading.cancel()


async def test_another_client_is_answered_while_a_flood_is(relay: Relay) -> None:
    async with await relay.connect() as flooding, await relay.log_in() as other:
        flood = asyncio.create_task(flood_without_end(flooding))
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(3):
                assert (await other.command("NOOP")).code == 250
            assert (await other.send(message())).code == 250
        assert not flood.done()
        flood.cancel()
        with suppress(asyncio.CancelledError):
            await flood


async def written(flooding: Client, octets: bytes, at_most: int) -> int:
    """Write until the relay takes no more, or all of it was taken; return how much that was."""
    taken = 0
    with suppress(TimeoutError, ConnectionError):
        while taken < at_most:
            flooding.write(octets)
            async with asyncio.timeout(0.5):
                await flooding.writer.drain()
            taken += len(octets)
    return taken


async def write_all(flooding: Client) -> None:
    for _ in range(NOOPS // 1000):
        flooding.write(b"NOOP\r\n" * 1000)
        await flooding.writer.drain()


async def test_a_flood_whose_answers_nobody_reads_is_held_back(relay: Relay) -> None:
    # The answers are kept for the client; what it does not read may not grow without end.
    flooding = await relay.connect()
    flooding.writer.transport.pause_reading()  # type: ignore[attr-defined]
    octets = b"NOOP\r\n" * 50_000
    assert await written(flooding, octets, 30_000_000) < 20_000_000
    flooding.writer.transport.abort()
    await flooding.close()


async def test_answers_leave_while_the_flood_still_comes(relay: Relay) -> None:
    # Answers that wait for the flood to end would take memory without end.
    async with await relay.connect() as flooding:
        (one,) = relay.app._listeners[0]._sessions
        flood = asyncio.create_task(answered(flooding, NOOPS))
        writing = asyncio.create_task(write_all(flooding))
        most = 0
        while not flood.done():
            most = max(most, len(one._dialogue._output))
            await asyncio.sleep(0)
        await flood
        await writing
    # As many as can be asked for in what is read at once, and before that.
    assert most <= 30_000


async def test_a_client_that_never_reads_is_shown_out_and_counted_until_then(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LINGER_SECONDS", 3.0)
    relay = await start_relay(one_account() | {"listener": {"idle_seconds": 0.2, **MANY_COMMANDS}})
    flooding = await relay.connect()
    flooding.writer.transport.pause_reading()  # type: ignore[attr-defined]
    flooding.write(b"EHLO x\r\n" * 100_000)  # many megabytes of answers
    (one,) = relay.app._listeners[0]._sessions
    await has_just_ended(one)
    assert sessions_now(relay) == 1, "its last words have not left"
    await until(lambda: has_sessions(relay, 0))
    flooding.writer.transport.abort()
    await flooding.close()


async def test_a_socket_that_lingers_for_its_last_words_is_counted(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LINGER_SECONDS", 3600.0)
    relay = await start_relay(one_account() | {"listener": {"max_connections": 1, **MANY_COMMANDS}})
    # Kept small, so that not even the answers to one HELP after the other fit.
    flooding = await relay.connect()
    flooding.writer.transport.pause_reading()  # type: ignore[attr-defined]
    flooding.write(b"HELP\r\n" * 200_000 + b"QUIT\r\n")
    (one,) = relay.app._listeners[0]._sessions
    await until(lambda: one._transport.get_write_buffer_size() > 0)
    assert await has_sessions(relay, 1)
    async with await relay.connect() as turned_away:
        assert turned_away.greeting.code == 421
    monkeypatch.setattr(session, "_LINGER_SECONDS", 3.0)
    one.cut()
    await has_just_ended(one)
    assert sessions_now(relay) == 1
    await until(lambda: has_sessions(relay, 0))
    async with await relay.connect() as next_one:
        assert next_one.greeting.code == 220
    flooding.writer.transport.abort()
    await flooding.close()


async def has_just_ended(one: session.ClientSession) -> None:
    """Return in the turn of the loop after the session's end, long before its socket's."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not one.has_ended:  # noqa: ASYNC110 - no event comes as early
            await asyncio.sleep(0)


def sessions_now(relay: Relay) -> float | None:
    return relay.app.metrics.registry.get_sample_value(SESSIONS)


async def has_sessions(relay: Relay, count: int) -> bool:
    return await relay.metric(SESSIONS) == count
