"""One transaction on a connection: its flights, its refusals and what losing it means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.peers import Peer, upstreams
from xoauth2_proxy import replies
from xoauth2_proxy.content import Content
from xoauth2_proxy.errors import (
    OutcomeUnknown,
    UpstreamClosedEarly,
    UpstreamDropped,
    UpstreamError,
)
from xoauth2_proxy.smtp import Envelope, Reply
from xoauth2_proxy.upstream import transaction
from xoauth2_proxy.upstream.transaction import FRESH_SECONDS, ONE_FLIGHT_BYTES, transact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from tests.support.peers import Upstreams
    from xoauth2_proxy.upstream.connection import Connection

BOTH = {"PIPELINING": "", "CHUNKING": ""}
PIPELINING = {"PIPELINING": ""}
CHUNKING = {"CHUNKING": ""}
CONTENT = Content(b"Subject: a\r\n\r\n.b\r\n", is_stuffed=False)
BDAT = b"BDAT 18 LAST\r\nSubject: a\r\n\r\n.b\r\n"
DATA = b"Subject: a\r\n\r\n..b\r\n.\r\n"
MAIL = b"MAIL FROM:<a@x>\r\n"
RCPT = b"RCPT TO:<b@y>\r\n"
TWO = b"RCPT TO:<b@y>\r\nRCPT TO:<c@z>\r\n"
KEPT = Reply(250, "2.0.0", ("kept",))


def envelope(*recipients: str) -> Envelope:
    return Envelope("a@x", list(recipients or ("b@y",)))


@pytest.fixture
async def network() -> AsyncIterator[Upstreams]:
    async with upstreams() as made:
        yield made


def begin(
    connection: Connection, to: Envelope | None = None, content: Content = CONTENT
) -> asyncio.Task[Reply]:
    work: Coroutine[None, None, Reply] = transact(connection, to or envelope(), content)
    return asyncio.create_task(work)


# Flights: each `expects` comes before anything it needs was answered.


async def test_one_recipient_on_a_fresh_connection_takes_one_flight(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + BDAT)
    peer.says("250 2.1.0 ok", "250 2.1.5 ok", "250 2.0.0 kept")
    assert await sending == KEPT
    assert connection.is_usable
    assert connection.transactions == 1


async def envelope_first(peer: Peer, rcpt: bytes = RCPT) -> None:
    """Expect the envelope alone in a flight, and accept it."""
    await peer.expects(MAIL + rcpt)
    peer.says("250 2.1.0 ok", *["250 2.1.5 ok"] * rcpt.count(b"\n"))


async def test_an_older_connection_takes_two_flights(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    connection.last_used_at -= FRESH_SECONDS
    sending = begin(connection)
    await envelope_first(peer)
    await peer.expects(BDAT)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_several_recipients_take_two_flights(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection, envelope("b@y", "c@z"))
    await envelope_first(peer, TWO)
    await peer.expects(BDAT)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_large_content_waits_for_its_envelope(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    large = Content(b"x" * ONE_FLIGHT_BYTES + b"\r\n", is_stuffed=False)
    sending = begin(connection, content=large)
    await envelope_first(peer)
    await peer.expects(b"BDAT %d LAST\r\n" % len(large.octets) + large.octets)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_without_chunking_the_envelope_and_data_are_one_flight(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection, envelope("b@y", "c@z"))
    await peer.expects(MAIL + TWO + b"DATA\r\n")
    peer.says("250 ok", "250 ok", "250 ok", "354 go")
    await peer.expects(DATA)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


@pytest.mark.parametrize("extensions", [{}, CHUNKING])
async def test_without_pipelining_each_command_waits(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection, envelope("b@y", "c@z"))
    for command in (MAIL, b"RCPT TO:<b@y>\r\n", b"RCPT TO:<c@z>\r\n"):
        await peer.expects(command)
        peer.says("250 ok")
    if extensions:
        await peer.expects(BDAT)
    else:
        await peer.expects(b"DATA\r\n")
        peer.says("354 go")
        await peer.expects(DATA)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_several_messages_on_one_connection(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    for number in range(1, 4):
        sending = begin(connection)
        await peer.expects(MAIL + RCPT + BDAT)
        peer.says("250 ok", "250 ok", "250 2.0.0 kept")
        assert await sending == KEPT
        assert connection.transactions == number


# Refusals.


@pytest.mark.parametrize("extensions", [BOTH, PIPELINING, CHUNKING, {}])
async def test_a_refused_sender_is_the_reply_and_needs_no_reset(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection)
    await peer.expects(MAIL)
    peer.says("550 5.1.8 no")
    if "PIPELINING" in extensions:
        peer.says("503 5.5.1 MAIL first", "503 5.5.1 MAIL first")
    assert await sending == Reply(550, "5.1.8", ("no",))
    assert connection.is_usable
    assert not connection.needs_reset


async def test_a_refused_recipient_is_followed_by_a_reset(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + BDAT)
    peer.says("250 ok", "550 5.1.1 unknown", "554 5.5.1 nobody")
    assert await sending == Reply(550, "5.1.1", ("unknown",))
    assert connection.is_usable
    sending = begin(connection)
    await peer.expects(b"RSET\r\n" + MAIL + RCPT + BDAT)
    peer.says("250 reset", "250 ok", "250 ok", "250 2.0.0 kept")
    assert await sending == KEPT
    assert not connection.needs_reset


async def test_a_refusal_at_the_end_is_followed_by_a_reset(network: Upstreams) -> None:
    connection, peer = await network.connect({})
    connection.needs_reset = True
    sending = begin(connection)
    for command, answer in [
        (b"RSET\r\n", "250 reset"),
        (MAIL, "250 ok"),
        (RCPT, "250 ok"),
        (b"DATA\r\n", "354 go"),
        (DATA, "552 5.2.2 full"),
    ]:
        await peer.expects(command)
        peer.says(answer)
    assert await sending == Reply(552, "5.2.2", ("full",))
    assert connection.needs_reset


async def test_one_recipient_refused_of_two_delivers_to_nobody_by_bdat(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection, envelope("b@y", "c@z"))
    await peer.expects(MAIL + TWO)
    peer.says("250 ok", "250 ok", "550 5.1.1 unknown")
    answer = await sending
    assert (answer.code, answer.enhanced) == (550, "5.1.1")
    assert answer.text == ("<c@z>: 550 5.1.1 unknown", "The message was sent to no one")
    assert connection.needs_reset
    connection.close()
    assert await peer.rest() == b"QUIT\r\n"


async def test_one_recipient_refused_of_two_delivers_to_nobody_by_data(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection, envelope("b@y", "c@z"))
    await peer.expects(MAIL + TWO + b"DATA\r\n")
    peer.says("250 ok", "450 4.2.1 busy", "250 ok", "354 go")
    answer = await sending
    assert (answer.code, answer.enhanced) == (450, "4.2.1")
    assert not connection.is_usable
    assert await peer.rest() == b"", "a lone dot would have sent an empty message"


async def test_data_that_was_not_granted_leaves_the_connection_usable(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    peer.says("250 ok", "550 5.1.1 unknown", "554 5.5.1 nobody")
    assert await sending == Reply(550, "5.1.1", ("unknown",))
    assert connection.is_usable
    assert connection.needs_reset


async def test_a_permanent_refusal_outweighs_transient_ones(network: Upstreams) -> None:
    connection, peer = await network.connect({})
    sending = begin(connection, envelope("b@y", "c@z"))
    for answer in ("250 ok", "450 4.2.1 busy", "550 5.1.1 unknown"):
        await peer.line()
        peer.says(answer)
    assert await sending == Reply(
        550,
        "5.1.1",
        (
            "<b@y>: 450 4.2.1 busy",
            "<c@z>: 550 5.1.1 unknown",
            "The message was sent to no one",
        ),
    )


@pytest.mark.parametrize("extensions", [PIPELINING, {}])
async def test_data_refused_is_the_reply(network: Upstreams, extensions: dict[str, str]) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection)
    for _ in range(3):
        await peer.line()
        peer.says("250 ok" if len(peer.lines) < 3 else "432 4.3.2 too many connections")
    assert (await sending).code == 432
    assert connection.is_usable


@pytest.mark.parametrize("code", [421, 500, 502, 503, 504, 530, 538, 555])
async def test_a_reply_about_the_session_closes_the_connection(
    network: Upstreams, code: int
) -> None:
    connection, peer = await network.connect({})
    sending = begin(connection)
    await peer.expects(MAIL)
    peer.says("250 ok")
    await peer.expects(RCPT)
    peer.says(f"{code} words")
    assert (await sending).code == code
    assert not connection.is_usable


# Losing the connection.


async def lost(sending: asyncio.Task[Reply], kind: type[UpstreamError]) -> None:
    with pytest.raises(kind) as caught:
        await sending
    assert caught.type is kind


@pytest.mark.parametrize("extensions", [BOTH, PIPELINING, CHUNKING, {}])
async def test_421_to_mail_may_be_tried_again(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection)
    await peer.expects(MAIL)
    peer.says("421 4.7.0 too much")
    peer.hangs_up()
    await lost(sending, UpstreamClosedEarly)


@pytest.mark.parametrize("extensions", [PIPELINING, CHUNKING, {}])
async def test_lost_before_content_left_may_be_tried_again(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection)
    await peer.expects(MAIL)
    peer.breaks()
    await lost(sending, UpstreamClosedEarly)


async def test_lost_while_content_is_under_way_is_dropped(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection, content=Content(b"x" * 16_000_000 + b"\r\n", is_stuffed=False))
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    peer.says("250 ok", "250 ok", "354 go")
    await peer.expects(b"x" * 1000)
    peer.breaks()
    await lost(sending, UpstreamDropped)


@pytest.mark.parametrize("extensions", [BOTH, PIPELINING, CHUNKING, {}])
async def test_lost_after_the_last_octet_is_unknown(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection)
    last = DATA if "CHUNKING" not in extensions else BDAT
    async with asyncio.timeout(5):
        if extensions == BOTH:
            await peer.expects(MAIL + RCPT + last)
        else:
            while not (line := await peer.line()).startswith((b"DATA", b"BDAT")):
                if extensions == CHUNKING or line:
                    peer.says("250 ok")
            if line.startswith(b"DATA"):
                peer.says("354 go")
                await peer.expects(DATA)
    peer.breaks()
    await lost(sending, OutcomeUnknown)


async def test_no_final_reply_in_time_is_unknown(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_FINAL_REPLY_SECONDS", 0.05)
    connection, peer = await network.connect(BOTH)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + BDAT)
    peer.says("250 ok", "250 ok")
    await lost(sending, OutcomeUnknown)
    assert await peer.rest() == b""


async def test_no_reply_to_the_envelope_in_time_may_be_tried_again(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_COMMAND_SECONDS", 0.01)
    connection, _ = await network.connect(PIPELINING)
    await lost(begin(connection), UpstreamClosedEarly)


async def test_a_provider_that_does_not_read_is_given_up(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_PIECE_SECONDS", 0.05)
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection, content=Content(b"x" * 16_000_000 + b"\r\n", is_stuffed=False))
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    peer.says("250 ok", "250 ok", "354 go")
    await lost(sending, UpstreamDropped)


@pytest.mark.xfail(
    raises=OutcomeUnknown, reason="one flight counts as sent before anything was written"
)
async def test_a_connection_found_dead_may_be_tried_again(network: Upstreams) -> None:
    connection, _ = await network.connect(BOTH)
    connection.abort()
    with pytest.raises(UpstreamClosedEarly):
        await transact(connection, envelope(), CONTENT)


@pytest.mark.xfail(
    raises=OutcomeUnknown, reason="content counts as sent before its first octet was written"
)
async def test_lost_between_go_ahead_and_content_may_be_tried_again(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    # As the event loop does where both came in one packet.
    connection.data_received(b"250 ok\r\n250 ok\r\n354 go\r\n")
    connection.eof_received()
    with pytest.raises(UpstreamClosedEarly):
        await sending


@pytest.mark.xfail(raises=OutcomeUnknown, reason="the reply to RSET is not looked at")
async def test_421_to_the_reset_may_be_tried_again(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    connection.needs_reset = True
    sending = begin(connection)
    await peer.expects(b"RSET\r\n" + MAIL + RCPT + BDAT)
    peer.says("421 4.4.2 idle for too long")
    peer.hangs_up()
    with pytest.raises(UpstreamClosedEarly):
        await sending


# Parameters of MAIL.

UTF8 = Envelope("é@x", ["b@y"], smtputf8=True)


@pytest.mark.parametrize(
    ("extensions", "to", "mail"),
    [
        ({"SIZE": "1000"}, Envelope("a@x", ["b@y"]), "MAIL FROM:<a@x> SIZE=18"),
        ({}, Envelope("", ["b@y"]), "MAIL FROM:<>"),
        ({"8BITMIME": ""}, Envelope("a@x", ["b@y"], body_8bit=True), "MAIL FROM:<a@x> BODY=8BITMIME"),
        ({"8BITMIME": ""}, Envelope("a@x", ["b@y"]), "MAIL FROM:<a@x>"),
        ({"SMTPUTF8": ""}, UTF8, "MAIL FROM:<é@x> SMTPUTF8"),
        ({}, Envelope("a@x", ["b@y"], body_8bit=True, smtputf8=True), "MAIL FROM:<a@x>"),
        (
            {"SIZE": "", "8BITMIME": "", "SMTPUTF8": ""},
            Envelope("a@x", ["b@y"], body_8bit=True, smtputf8=True),
            "MAIL FROM:<a@x> SIZE=18 BODY=8BITMIME SMTPUTF8",
        ),
    ],
)
async def test_mail_says_what_the_provider_understands(
    network: Upstreams, extensions: dict[str, str], to: Envelope, mail: str
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection, to)
    await peer.expects(f"{mail}\r\n".encode())
    peer.says("550 5.0.0 no")
    assert not (await sending).is_positive


@pytest.mark.parametrize(
    ("to", "content", "answer"),
    [
        (Envelope("a@x", ["b@y"], body_8bit=True), b"\xe9\r\n", replies.EIGHT_BIT_UNSUPPORTED),
        (Envelope("a@x", ["b@y"], smtputf8=True), b"\xc3\xa9\r\n", replies.SMTPUTF8_UNSUPPORTED),
        (UTF8, b"a\r\n", replies.SMTPUTF8_UNSUPPORTED),
        (Envelope("a@x", ["é@y"], smtputf8=True), b"a\r\n", replies.SMTPUTF8_UNSUPPORTED),
    ],
)
async def test_what_the_provider_cannot_take_is_refused_before_a_word_is_said(
    network: Upstreams, to: Envelope, content: bytes, answer: Reply
) -> None:
    connection, peer = await network.connect(BOTH)
    assert await transact(connection, to, Content(content, is_stuffed=False)) == answer
    connection.close()
    assert await peer.rest() == b"QUIT\r\n"
