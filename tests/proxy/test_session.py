"""A client's session, command by command, over a real socket."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX
from tests.support.smtp_client import encoded, message
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import replies

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


# The greeting and the small commands.


async def test_greeting_and_extensions(relay: Relay) -> None:
    async with await relay.connect() as client:
        assert client.greeting.code == 220
        answer = await client.ehlo()
    assert answer.code == 250
    assert answer.enhanced == ""
    assert answer.text[1:] == (
        "PIPELINING",
        "SIZE 36700160",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER",
    )


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("NOOP", replies.OK),
        ("noop with argument", replies.OK),
        ("HELP", replies.HELP),
        ("VRFY someone", replies.CANNOT_VERIFY),
        ("VRFY", replies.ARGUMENT_MALFORMED),
        ("EXPN list", replies.COMMAND_NOT_IMPLEMENTED),
        ("RSET", replies.RESET),
        ("RSET now", replies.ARGUMENT_MALFORMED),
        ("STARTTLS", replies.TLS_NOT_AVAILABLE),
        ("BURL x", replies.COMMAND_UNKNOWN),
        ("", replies.COMMAND_UNKNOWN),
        (MAIL, replies.HELLO_FIRST),
        ("AUTH PLAIN =", replies.HELLO_FIRST),
        (RCPT, replies.AUTH_REQUIRED),
        ("DATA", replies.AUTH_REQUIRED),
        ("BDAT 0 LAST", replies.AUTH_REQUIRED),
        ("DATA now", replies.ARGUMENT_MALFORMED),
        (b"NOOP \xff", replies.COMMAND_MALFORMED),
        (b"NOOP \0", replies.COMMAND_MALFORMED),
        (b"NOOP a\rb", replies.COMMAND_MALFORMED),
        (b"NOOP\t", replies.OK),
        (b"VRFY\tsomeone", replies.CANNOT_VERIFY),
        (b"NOOP \t\x0b", replies.COMMAND_MALFORMED),
        (b"\tNOOP", replies.COMMAND_UNKNOWN),
    ],
)
async def test_before_a_greeting(relay: Relay, line: str | bytes, answer: Reply) -> None:
    async with await relay.connect() as client:
        assert await client.command(line) == answer
        assert await client.command("NOOP") == replies.OK


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        (b"NOOP\n", replies.COMMAND_MALFORMED),
        (b"NOOP\r\r\n", replies.COMMAND_MALFORMED),
        (b"VRFY\ta\r\n", replies.COMMAND_MALFORMED),
        (b"EHLO\r\n", replies.ARGUMENT_MALFORMED),
        (b"HELO \r\n", replies.ARGUMENT_MALFORMED),
        (b"HELO \xfc.example\r\n", replies.COMMAND_MALFORMED),
    ],
)
async def test_a_strict_listener_refuses_what_is_against_the_rfc(
    start_relay: StartRelay, octets: bytes, answer: Reply
) -> None:
    relay = await start_relay(SMALL | {"listener": {"strict": True}})
    async with await relay.connect() as client:
        client.write(octets)
        assert await client.reply() == answer
        assert await client.command("NOOP") == replies.OK


async def test_a_strict_listener_refuses_a_path_without_brackets_and_a_response_ended_by_lf(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(SMALL | {"listener": {"strict": True}})
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.command("AUTH LOGIN")).code == 334
        client.write(encoded(MAILBOX).encode() + b"\n")
        assert await client.reply() == replies.COMMAND_MALFORMED
        assert await client.auth_plain(MAILBOX, "secret") == replies.AUTHENTICATED
        assert await client.command("MAIL FROM: a@b.example") == replies.SENDER_MALFORMED


async def test_quit_says_goodbye_and_closes(relay: Relay) -> None:
    async with await relay.connect() as client:
        assert await client.command("quit") == replies.GOODBYE
        assert await client.closed()


@pytest.mark.parametrize("verb", ["mail", "Mail", "mAIL"])
async def test_verbs_have_no_letter_case(relay: Relay, verb: str) -> None:
    async with await relay.log_in() as client:
        assert await client.command(f"{verb} from:<a@b.example>") == replies.SENDER_OK
        assert await client.command("rcpt to:<a@b.example>") == replies.RECIPIENT_OK


async def test_a_client_that_says_helo_can_send(relay: Relay) -> None:
    async with await relay.connect() as client:
        answer = await client.command("HELO client.example")
        assert (answer.code, len(answer.text)) == (250, 1)
        assert await client.command(MAIL) == replies.AUTH_REQUIRED
        assert await client.auth_plain(MAILBOX, "secret") == replies.AUTHENTICATED
        assert (await client.send(message())).is_positive


# Long lines.


@pytest.mark.parametrize("verb", ["NOOP", "MAIL"])
async def test_a_command_line_that_is_too_long_is_skipped(relay: Relay, verb: str) -> None:
    async with await relay.connect() as client:
        assert (await client.command(f"NOOP {'x' * 2041}")) == replies.OK
        for length in (2049, 20_000, 500_000):
            line = f"{verb} ".ljust(length - 2, "x")
            assert await client.command(line) == replies.COMMAND_TOO_LONG
        assert await client.command("NOOP") == replies.OK


# Clients that are none.


async def test_too_many_bad_commands_end_the_session(relay: Relay) -> None:
    async with await relay.connect() as client:
        for line in ["GET / HTTP/1.1", "Host: x"] * 4 + [b"\xff"]:
            assert (await client.command(line)).code == 500
        assert await client.command("") == replies.TOO_MANY_BAD_COMMANDS
        assert await client.closed()


async def test_silence_ends_the_session(relay: Relay) -> None:
    async with await relay.log_in() as client:
        (session,) = relay.sessions()
        session._policy = replace(session._policy, idle_seconds=0.1)
        session._look_at_the_clock()
        assert await client.reply() == replies.IDLE_TOO_LONG
        assert await client.closed()


async def test_a_line_that_never_ends_ends_the_session(relay: Relay) -> None:
    async with await relay.log_in() as client:
        (session,) = relay.sessions()
        session._policy = replace(session._policy, idle_seconds=0.2)
        session._look_at_the_clock()
        assert await _last_reply_to(client, b"N") == replies.IDLE_TOO_LONG


@pytest.mark.parametrize("octets", [b"", b"N", b"NOOP\r\n", b"EHLO x\r\n"])
async def test_a_client_has_a_limited_time_to_log_in_whatever_it_says(
    start_relay: StartRelay, octets: bytes
) -> None:
    relay = await start_relay(SMALL | {"listener": {"login_seconds": 0.3}})
    async with await relay.connect() as client:
        assert await _last_reply_to(client, octets) == replies.LOGIN_TOO_LATE


async def _last_reply_to(client: Client, octets: bytes) -> Reply:
    """Send the octets now and then until the session ends; return the last reply."""

    async def talk() -> None:
        while True:
            client.write(octets)
            await asyncio.sleep(0.01)

    talking = asyncio.create_task(talk())
    try:
        while (answer := await client.reply()).code != 421:
            pass
    finally:
        talking.cancel()
    assert await client.closed()
    return answer


# Pipelining (RFC 2920).


async def test_a_group_is_answered_in_order_and_in_one_write(relay: Relay) -> None:
    async with await relay.log_in() as client:
        client.write(f"{MAIL}\r\n{RCPT}\r\nRCPT TO:<>\r\nFOO\r\nRSET\r\nNOOP\r\n".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            octets = await client._reader.read(65_536)
    expected = [
        replies.SENDER_OK,
        replies.RECIPIENT_OK,
        replies.RECIPIENT_MALFORMED,
        replies.COMMAND_UNKNOWN,
        replies.RESET,
        replies.OK,
    ]
    assert octets == b"".join(one.octets for one in expected)


async def test_two_messages_and_quit_in_one_write(relay: Relay) -> None:
    async with await relay.log_in() as client:
        bdat = f"BDAT {len(message('two'))} LAST"
        found = await pipelined(
            client, MAIL, RCPT, "DATA", message("one").replace(b"\r\n.", b"\r\n..") + b".\r\n",
            MAIL, RCPT, bdat, message("two"), "QUIT", count=8,
        )  # fmt: skip
        assert await client.closed()
    assert [one.code for one in found] == [250, 250, 354, 250, 250, 250, 250, 221]
    assert [one.content for one in relay.sandbox.received] == [message("one"), message("two")]
