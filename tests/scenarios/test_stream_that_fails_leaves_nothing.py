"""A message that breaks off or turns out bad while it is sent on: nobody gets it, nothing stays."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import message
from tests.support.streams import AT_REST, Sending, dotted, pool_is, send_large, streaming
from tests.support.upstream_patience import PIECES, wait_only
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.log import LOGGER_NAME
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from xoauth2_proxy.smtp.protocol import Reply

pytestmark = pytest.mark.both_loops

LIMIT = 65_536
LOST = "451 4.4.2 Connection to the provider lost"
MESSAGES = "xoauth2_proxy_messages_total"


async def nothing_is_left(relay: Relay) -> None:
    """Wait until no connection is open, on either end; nothing was delivered."""
    await pool_is(relay, AT_REST)
    await until(lambda: relay.sandbox.counters.connections_open == 0)
    assert relay.sandbox.received.total == 0
    assert relay.sandbox.arrivals(Step.END) == 0


# Bad content, found out late.


@pytest.mark.parametrize("way", Sending.WAYS)
@pytest.mark.parametrize(
    "fault",
    [
        b"bare\nLF here\r\n",
        b"bare\rCR here\r\n",
        b"a NUL\0here\r\n",
        b"x" * LIMIT + b"\r\n",
    ],
)
async def test_bad_content_frees_its_connection_before_the_client_has_finished(
    start_relay: StartRelay, way: str, fault: bytes
) -> None:
    relay = await start_relay(streaming(LIMIT) | {"listener": {"strict": True}})
    content = dotted(20_000)
    behind = b"more\r\n" * 1000
    told = replies.TOO_LARGE if len(fault) > LIMIT else replies.BARE_LINE_ENDS
    told = replies.NUL_IN_CONTENT if b"\0" in fault else told
    async with await relay.log_in() as client:
        sending = Sending(client, way)
        await sending.begin(len(content + fault + behind))
        sending.write(content)
        await relay.sandbox.arrived(Step.CONTENT)
        sending.write(fault)
        await nothing_is_left(relay)
        if way == "CHUNKS" and told is replies.TOO_LARGE:
            assert (await client.reply()).code == 250
            assert await client.reply() == told
            assert await client.command("RSET") == replies.RESET
        else:
            sending.write(behind)
            assert await sending.end() == told
        assert relay.sandbox.received.total == 0
        assert (await client.send(message("next"))).code == 250
        assert (await send_large(client, way, content)).code == 250
    assert relay.sandbox.received.total == 2


@pytest.mark.parametrize("size_bytes", [LIMIT // 2, LIMIT + 1000], ids=["fits", "too large"])
async def test_a_message_that_fails_twice_is_recorded_once_as_the_client_heard_it(
    start_relay: StartRelay, size_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay = await start_relay(streaming(LIMIT))
    relay.sandbox.add_fault(reply_fault(Step.MAIL, "550 5.7.1 Not from you"))
    async with await relay.log_in() as client:
        sending = Sending(client, "DATA")
        await sending.begin(0)
        sending.write(dotted(20_000))
        await relay.sandbox.arrived(Step.MAIL)
        sending.write(b"x" * (size_bytes - 20_000) + b"\r\n")
        answer = await sending.end()
    is_too_large = size_bytes > LIMIT
    assert str(answer) == str(replies.TOO_LARGE if is_too_large else "550 5.7.1 Not from you")
    (line,) = transactions(caplog)
    assert str(line["reply"]) == str(answer)
    assert await relay.metric(MESSAGES) == 1


async def test_a_bare_cr_as_the_very_last_octet_is_found_in_time(start_relay: StartRelay) -> None:
    relay = await start_relay(streaming() | {"listener": {"strict": True}})
    content = dotted(20_000) + b"bare\r"
    async with await relay.log_in() as client:
        assert await send_large(client, "BDAT", content) == replies.BARE_LINE_ENDS
        await nothing_is_left(relay)


@pytest.mark.parametrize("way", Sending.WAYS)
async def test_bad_content_is_counted_and_logged(
    start_relay: StartRelay, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay = await start_relay(streaming() | {"listener": {"strict": True}})
    content = dotted(20_000) + b"bare\nline feed\r\n"
    async with await relay.log_in() as client:
        assert await send_large(client, way, content) == replies.BARE_LINE_ENDS
    assert await relay.metric(MESSAGES, reply="5xx") == 1
    (line,) = transactions(caplog)
    assert line["reply"] == replies.BARE_LINE_ENDS
    assert line["bytes"] == len(content) + (stuffing(content) if way == "DATA" else 0)


def stuffing(content: bytes) -> int:
    """Return by how much DATA is longer."""
    return content.count(b"\r\n.")


def transactions(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Return the fields of the relay's lines, with what they say."""
    return [
        {"said": record.getMessage(), **getattr(record, "fields", {})}
        for record in caplog.records
        if record.name == f"{LOGGER_NAME}.relay"
    ]


async def test_a_chunk_over_the_limit_is_counted_and_logged(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay = await start_relay(streaming(LIMIT))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        client.write(b"BDAT %d\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1))
        assert await client.reply() == replies.TOO_LARGE
        assert await client.command("RSET") == replies.RESET
    assert await relay.metric(MESSAGES, reply="5xx") == 1
    (line,) = transactions(caplog)
    assert (line["reply"], line["bytes"]) == (replies.TOO_LARGE, LIMIT + 1)


# A client that stops.


@pytest.mark.parametrize("way", Sending.WAYS)
@pytest.mark.parametrize("leave", ["crash", "close", "half close"])
async def test_a_client_that_vanishes_takes_its_message_along(
    start_relay: StartRelay, way: str, leave: str
) -> None:
    relay = await start_relay(streaming(limits={"max_connections": 1}))
    content = dotted(100_000)
    async with await relay.log_in() as client:
        sending = Sending(client, way)
        await sending.begin(len(content))
        sending.write(content[:50_000])
        await relay.sandbox.arrived(Step.CONTENT)
        match leave:
            case "crash":
                client.writer.transport.abort()
            case "close":
                await client.close()
            case _:
                client.writer.write_eof()
        await nothing_is_left(relay)
    async with await relay.log_in() as client:
        assert (await client.send(message("next"))).code == 250
    assert relay.sandbox.received.total == 1


@pytest.mark.parametrize("line", ["RSET", "EHLO again.example", "QUIT"])
async def test_a_client_may_abandon_its_message_between_chunks(
    start_relay: StartRelay, line: str
) -> None:
    relay = await start_relay(streaming(limits={"max_connections": 1}))
    content = dotted(100_000)
    async with await relay.log_in() as client:
        sending = Sending(client, "CHUNKS")
        await sending.begin(len(content))
        sending.write(content)
        assert await client.reply() == replies.CHUNK_OK
        await relay.sandbox.arrived(Step.CONTENT)
        assert (await client.command(line)).is_positive
        await nothing_is_left(relay)
        if line != "QUIT":
            assert (await client.send(message("next"))).code == 250


# A provider that stops.


@pytest.mark.parametrize("action", [Action.DROP, Action.RESET, Action.GARBAGE])
@pytest.mark.parametrize("way", Sending.WAYS)
async def test_a_provider_lost_in_the_middle_is_told_at_the_end(
    start_relay: StartRelay, way: str, action: Action
) -> None:
    relay = await start_relay(streaming())
    relay.sandbox.add_fault(Fault(Step.CONTENT, action))
    content = dotted(2_000_000)
    async with await relay.log_in() as client:
        sending = Sending(client, way)
        await sending.begin(len(content))
        sending.write(content[:100_000])
        # A loss may be noticed only when more is sent.
        await relay.sandbox.arrived(Step.CONTENT)
        sending.write(content[100_000:])
        assert str(await sending.end()) == LOST
        await nothing_is_left(relay)
        assert (await send_large(client, way, content)).code == 250
    assert relay.sandbox.received.total == 1


@pytest.mark.parametrize("text", ["250 2.0.0 Kept already", "354 More"])
async def test_an_early_yes_is_no_success(start_relay: StartRelay, text: str) -> None:
    relay = await start_relay(streaming())
    relay.sandbox.add_fault(reply_fault(Step.CONTENT, text))
    async with await relay.log_in() as client:
        sending = Sending(client, "DATA")
        await sending.begin(0)
        sending.write(dotted(100_000))
        await relay.sandbox.arrived(Step.CONTENT)
        await until(lambda: relay.sandbox.counters.connections_open == 0)
        assert str(await sending.end()) == LOST
        await nothing_is_left(relay)


@pytest.mark.parametrize("action", [Action.DROP, Action.RESET, Action.ACCEPT_THEN_DROP])
@pytest.mark.parametrize("way", Sending.WAYS)
async def test_a_provider_lost_behind_the_end_is_an_unknown_outcome(
    start_relay: StartRelay, way: str, action: Action, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay = await start_relay(streaming())
    relay.sandbox.add_fault(Fault(Step.END, action))
    content = dotted(200_000)
    async with await relay.log_in() as client:
        assert str(await send_large(client, way, content)) == LOST
    assert relay.sandbox.arrivals(Step.MAIL) == 1
    assert relay.sandbox.received.total == (action is Action.ACCEPT_THEN_DROP)
    (line,) = transactions(caplog)
    assert line["said"] == "outcome unknown"
    assert line["message_id"] == "<large@example.com>"
    assert line["bytes"] == len(content) + (stuffing(content) if way == "DATA" else 0)


@pytest.mark.parametrize(
    ("step", "action"),
    [
        (Step.MAIL, Action.DROP),
        (Step.MAIL, Action.RESET),
        (Step.MAIL, Action.REPLY),
        (Step.RCPT, Action.DROP),
        (Step.RCPT, Action.RESET),
        (Step.DATA, Action.DROP),
        (Step.DATA, Action.RESET),
    ],
)
@pytest.mark.parametrize("withhold", [frozenset[str](), frozenset({"PIPELINING"})])
async def test_a_stale_connection_goes_unnoticed(
    start_relay: StartRelay, tmp_path: Path, step: Step, action: Action, withhold: frozenset[str]
) -> None:
    relay = await start_relay(streaming(), sandbox=Sandbox(tmp_path, withhold=withhold))
    content = dotted(200_000)
    async with await relay.log_in() as client:
        assert (await client.send(message("first"))).code == 250
        relay.sandbox.add_fault(Fault(step, action, text="421 4.4.2 Idle for too long"))
        assert (await send_large(client, "DATA", content)).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [message("first"), content]
    assert relay.sandbox.counters.connections_opened == 2


async def test_a_connection_lost_twice_is_told_once_everything_was_sent(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(streaming())
    relay.sandbox.add_fault(Fault(Step.MAIL, Action.DROP, nth=None))
    async with await relay.log_in() as client:
        assert str(await send_large(client, "DATA", dotted(200_000))) == LOST
    assert relay.sandbox.arrivals(Step.MAIL) == 2


async def test_no_connection_at_all_is_told_once_everything_was_sent(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(streaming())
    await relay.sandbox.stop()
    async with await relay.log_in() as client:
        answer = await send_large(client, "CHUNKS", dotted(200_000))
        assert answer == replies.UPSTREAM_UNREACHABLE


# Back-pressure.


async def taken_by(relay: Relay, size_bytes: int) -> int:
    """Return how much of a message the relay takes until it takes no more."""
    piece = b"x" * 998 + b"\r\n"
    piece *= 250
    taken = 0
    client = await relay.log_in()
    sending = Sending(client, "DATA")
    await sending.begin(size_bytes)
    try:
        while taken < size_bytes:
            sending.write(piece)
            async with asyncio.timeout(0.5):
                await client.writer.drain()
            taken += len(piece)
    except TimeoutError:
        pass
    client.writer.transport.abort()
    await client.close()
    return taken


async def test_a_provider_that_does_not_read_holds_the_client_back(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(1.0, PIECES, monkeypatch)
    relay = await start_relay(streaming(60_000_000))
    relay.sandbox.add_fault(Fault(Step.CONTENT, Action.FREEZE))
    # What the kernel holds for four sockets, and a little of ours.
    assert await taken_by(relay, 50_000_000) < 30_000_000
    await pool_is(relay, AT_REST)


async def test_a_provider_that_stops_reading_is_given_up(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(0.2, PIECES, monkeypatch)
    relay = await start_relay(streaming())
    relay.sandbox.add_fault(Fault(Step.CONTENT, Action.FREEZE))
    async with await relay.log_in() as client:
        answer: Reply = await send_large(client, "DATA", dotted(30_000_000))
        assert str(answer) == LOST
        assert (await client.send(message("next"))).code == 250
    assert relay.sandbox.received.total == 1
