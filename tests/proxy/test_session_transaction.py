"""A client's transactions: envelope, DATA and BDAT, and what becomes of half a message."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import replies
from xoauth2_proxy.log import LOGGER_NAME
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

pytestmark = pytest.mark.both_loops

LIMIT = 65_536
SMALL: dict[str, object] = {
    "accounts": [{"email": MAILBOX, "provider": "mock", "password": "secret"}],
    "relay": {"max_message_bytes": LIMIT, "max_recipients": 3},
}
MAIL, RCPT = "MAIL FROM:<from@example.com>", "RCPT TO:<to@example.net>"


async def pipelined(client: Client, *parts: str | bytes, count: int) -> list[Reply]:
    """Send everything in one write and return as many replies."""
    client.write(b"".join(p if isinstance(p, bytes) else p.encode() + b"\r\n" for p in parts))
    return [await client.reply() for _ in range(count)]


async def test_mail_needs_a_login(relay: Relay) -> None:
    async with await relay.connect() as client:
        await client.ehlo()
        for line in (MAIL, RCPT, "DATA", "BDAT 0 LAST"):
            assert await client.command(line) == replies.AUTH_REQUIRED
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTHENTICATED
        for line in (RCPT, "DATA", "BDAT 0 LAST"):
            assert await client.command(line) == replies.BAD_SEQUENCE


@pytest.mark.parametrize("greeting", ["EHLO again.example", "HELO again.example", "RSET"])
async def test_the_envelope_is_forgotten_and_the_login_kept(relay: Relay, greeting: str) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command(greeting)).is_positive
        assert await client.command("DATA") == replies.BAD_SEQUENCE
        assert (await client.send(message())).is_positive


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MAIL FROM:<a@b> SIZE=65537", replies.TOO_LARGE),
        ("MAIL FROM:<a@b> SIZE=x", replies.ARGUMENT_MALFORMED),
        ("MAIL FROM:<a@b> MT-PRIORITY=1", replies.PARAMETER_UNKNOWN),
        ("MAIL FROM:<a@b@c>", replies.SENDER_MALFORMED),
        ("MAIL FROM:<é@b>", replies.NEEDS_SMTPUTF8),
        ("MAIL FROM:<a@b> SIZE=65536 BODY=8BITMIME AUTH=<>", replies.SENDER_OK),
        ("MAIL FROM:<é@b> SMTPUTF8", replies.SENDER_OK),
        ("MAIL FROM:<>", replies.SENDER_OK),
    ],
)
async def test_mail_is_judged_at_once(start_relay: StartRelay, line: str, answer: Reply) -> None:
    relay = await start_relay(SMALL)
    async with await relay.log_in() as client:
        assert await client.command(line) == answer
    assert relay.sandbox.counters.connections_opened == 0


async def test_recipients_are_limited(start_relay: StartRelay) -> None:
    relay = await start_relay(SMALL)
    async with await relay.log_in() as client:
        await client.envelope("a@x", "b@x", "c@x")
        assert await client.command("RCPT TO:<d@x>") == replies.TOO_MANY_RECIPIENTS
        assert (await client.data(b"a\r\n")).is_positive
    assert next(iter(relay.sandbox.received)).forward_paths == ("a@x", "b@x", "c@x")


async def test_content_over_the_limit_is_read_to_its_end_and_refused(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(SMALL)
    async with await relay.log_in() as client:
        assert await client.send(b"x" * (LIMIT - 1) + b"\r\n") == replies.TOO_LARGE
        assert (await client.send(b"x" * (LIMIT - 2) + b"\r\n")).is_positive
    assert relay.sandbox.received.total == 1


BARE = [b"a\nb\r\n", b"a\rb\r\n", b"\r\n.\n\r\n", b"a\r\r\n"]
STRICT: dict[str, object] = SMALL | {"listener": {"strict": True}}


@pytest.mark.parametrize("content", BARE)
async def test_content_with_bare_line_ends_goes_nowhere_on_a_strict_listener(
    start_relay: StartRelay, content: bytes
) -> None:
    relay = await start_relay(STRICT)
    async with await relay.log_in() as client:
        assert await client.send(content) == replies.BARE_LINE_ENDS
        await client.envelope("to@example.net")
        client.write(b"BDAT %d LAST\r\n" % len(content) + content)
        assert await client.reply() == replies.BARE_LINE_ENDS
        assert (await client.send(message())).is_positive
    assert [one.content for one in relay.sandbox.received] == [message()]


@pytest.mark.parametrize("content", BARE)
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
async def test_octets_behind_content_refused_for_its_line_ends_close_the_session(
    start_relay: StartRelay, content: bytes, verb: str
) -> None:
    relay = await start_relay(STRICT)
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        if verb == "DATA":
            assert (await client.command("DATA")).code == 354
            client.write(content + b".\r\nNOOP\r\n")
        else:
            client.write(b"BDAT %d LAST\r\n" % len(content) + content + b"NOOP\r\n")
        assert await client.reply() == replies.BARE_LINE_ENDS_AND_MORE
        assert await client.closed()
    assert relay.sandbox.received.total == 0


@pytest.mark.parametrize(
    ("content", "arrives"),
    [
        (b"a\nb\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n", b"a b\r\n"),
        (b"\r\n.\n\r\n", b"\r\n.\r\n\r\n"),
        (b"a\r\r\n", b"a\r\n"),
    ],
)
async def test_content_with_bare_line_ends_arrives_with_crlf(
    relay: Relay, content: bytes, arrives: bytes
) -> None:
    async with await relay.log_in() as client:
        assert (await client.send(content)).is_positive
        await client.envelope("to@example.net")
        client.write(b"BDAT %d LAST\r\n" % len(content) + content)
        assert (await client.reply()).is_positive
    assert [one.content for one in relay.sandbox.received] == [arrives, arrives]


@pytest.mark.parametrize("octets", [b"a\0b\r\n", b"\0", b"a\r\n" * 3000 + b"\0\r\n"])
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
async def test_nul_is_refused(relay: Relay, verb: str, octets: bytes) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        if verb == "DATA":
            assert await client.data(octets + b"\r\n") == replies.NUL_IN_CONTENT
        else:
            client.write(b"BDAT %d LAST\r\n" % len(octets) + octets)
            assert await client.reply() == replies.NUL_IN_CONTENT
        assert (await client.send(message())).is_positive
    assert [one.content for one in relay.sandbox.received] == [message()]


async def test_long_lines_and_dots_of_content_arrive_as_they_are(relay: Relay) -> None:
    content = b"Subject: a\r\n\r\n" + b"x" * 100_000 + b"\r\n.\r\n..\r\n\r\n"
    async with await relay.log_in() as client:
        assert (await client.send(content)).is_positive
    assert next(iter(relay.sandbox.received)).content == content


# BDAT.


async def test_chunks_make_one_message(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        found = await pipelined(
            client, "BDAT 3", b"a\r\n", "BDAT 0", "BDAT 2", b".\r", "BDAT 1", b"\n", "BDAT 0 LAST",
            count=5,
        )  # fmt: skip
        assert found[:4] == [replies.CHUNK_OK] * 4
        assert found[4].is_positive
    assert next(iter(relay.sandbox.received)).content == b"a\r\n.\r\n"


async def test_chunks_without_a_transaction_are_read_and_refused(relay: Relay) -> None:
    async with await relay.log_in() as client:
        found = await pipelined(client, "BDAT 6 LAST", b"QUIT\r\n", "NOOP", count=2)
        assert found == [replies.BAD_SEQUENCE, replies.OK]


async def test_chunks_over_the_limit_void_the_transaction(start_relay: StartRelay) -> None:
    relay = await start_relay(SMALL)
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        found = await pipelined(
            client, f"BDAT {LIMIT + 1}", b"x" * (LIMIT + 1), "BDAT 1 LAST", b"x", "RSET", count=3
        )
        assert found == [replies.TOO_LARGE, replies.BAD_SEQUENCE, replies.RESET]
        assert (await client.send(b"a\r\n")).is_positive
    assert relay.sandbox.received.total == 1


async def test_the_last_chunk_over_the_limit_is_refused(start_relay: StartRelay) -> None:
    relay = await start_relay(SMALL)
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        found = await pipelined(
            client, f"BDAT {LIMIT}", b"x" * LIMIT, "BDAT 1 LAST", b"x", "NOOP", count=3
        )
        assert found == [replies.CHUNK_OK, replies.TOO_LARGE, replies.OK]


@pytest.mark.parametrize(
    ("line", "answer"),
    [("BDAT x", replies.ARGUMENT_MALFORMED), (f"BDAT {4 * LIMIT + 1}", replies.TOO_LARGE)],
)
async def test_a_chunk_without_a_known_end_ends_the_session(
    start_relay: StartRelay, line: str, answer: Reply
) -> None:
    relay = await start_relay(SMALL)
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert await client.command(line) == answer
        assert await client.closed()


async def test_data_and_bdat_do_not_mix(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        found = await pipelined(client, "BDAT 3", b"a\r\n", "DATA", RCPT, count=3)
        assert found == [replies.CHUNK_OK, replies.BAD_SEQUENCE, replies.BAD_SEQUENCE]


async def test_missing_crlf_at_the_end_is_added(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        (answer,) = await pipelined(client, "BDAT 1 LAST", b"a", count=1)
        assert answer.is_positive
    assert next(iter(relay.sandbox.received)).content == b"a\r\n"


# Clients that leave.


@pytest.mark.parametrize("way", ["data", "bdat"])
async def test_a_message_received_whole_is_relayed_although_the_client_left(
    relay: Relay, way: str
) -> None:
    client = await relay.log_in()
    end = b"DATA\r\na\r\n.\r\n" if way == "data" else b"BDAT 3 LAST\r\na\r\n"
    client.write(f"{MAIL}\r\n{RCPT}\r\n".encode() + end)
    await client.close()
    (arrived,) = await relay.sandbox.received.wait_until(1)
    assert arrived.content == b"a\r\n"


async def test_a_reset_does_not_stop_a_message_on_its_way(relay: Relay) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=3600))
    client = await relay.log_in()
    client.write(f"{MAIL}\r\n{RCPT}\r\nBDAT 3 LAST\r\na\r\n".encode())
    await relay.sandbox.arrived(Step.END)
    peer = client.writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()
    await client.close()
    relay.sandbox.end_delays()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await relay.metric("xoauth2_proxy_messages_total"):
            pass
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == 1
    assert relay.sandbox.received.total == 1


async def test_a_client_that_has_only_half_closed_gets_its_replies(relay: Relay) -> None:
    async with await relay.log_in() as client:
        client.write(f"{MAIL}\r\n{RCPT}\r\nDATA\r\na\r\n.\r\n".encode())
        client.writer.write_eof()
        assert [(await client.reply()).code for _ in range(4)] == [250, 250, 354, 250]
        assert await client.closed()
    assert relay.sandbox.received.total == 1


@pytest.mark.parametrize(
    "end", [b"DATA\r\na\r\n.\r", b"DATA\r\na\r\n", b"BDAT 4 LAST\r\na\r\n", b""]
)
async def test_half_a_message_goes_nowhere(relay: Relay, end: bytes) -> None:
    async with await relay.log_in() as client:
        client.write(f"{MAIL}\r\n{RCPT}\r\n".encode() + end)
        client.writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = await client._reader.read()
    assert {line[:3] for line in said.splitlines()} <= {b"250", b"354"}
    assert said.count(b"\r\n") == 2 + end.startswith(b"DATA")
    assert relay.sandbox.counters.connections_opened == 0


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
@pytest.mark.parametrize("fault", ["too large", "bare LF", "NUL"])
async def test_content_refused_here_is_counted_and_logged(
    start_relay: StartRelay, verb: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    relay = await start_relay(STRICT)
    content, answer = {
        "too large": (b"x" * LIMIT + b"\r\n", replies.TOO_LARGE),
        "bare LF": (b"bare\nline feed\r\n", replies.BARE_LINE_ENDS),
        "NUL": (b"nul\0here\r\n", replies.NUL_IN_CONTENT),
    }[fault]
    async with await relay.log_in() as client:
        await client.envelope("one@example.net", "two@example.net")
        if verb == "DATA":
            assert await client.data(content) == answer
        else:
            client.write(b"BDAT %d LAST\r\n" % len(content) + content)
            assert await client.reply() == answer
    (record,) = (one for one in caplog.records if one.name == f"{LOGGER_NAME}.relay")
    assert record.getMessage() == "transaction"
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["account"], fields["recipients"]) == (MAILBOX, 2)
    assert (fields["bytes"], fields["reply"]) == (len(content), answer)
    assert await relay.metric("xoauth2_proxy_messages_total", reply="5xx") == 1
