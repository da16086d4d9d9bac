"""One transaction on a connection: its flights and its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.transactions import (
    BDAT,
    BOTH,
    CHUNKING,
    DATA,
    KEPT,
    MAIL,
    PIPELINING,
    RCPT,
    TWO,
    begin,
    envelope,
)
from xoauth2_proxy.errors import (
    UpstreamError,
)
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.upstream.connection import FRESH_SECONDS
from xoauth2_proxy.upstream.dialogue import ONE_FLIGHT_BYTES

if TYPE_CHECKING:
    from tests.support.peers import Peer, Upstreams

pytestmark = pytest.mark.both_loops


# Flights: what is expected of one comes before anything in it was answered, and no more.


async def test_one_recipient_on_a_fresh_connection_takes_one_flight(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection)
    await peer.expects_flight(MAIL + RCPT + BDAT)
    peer.says("250 2.1.0 ok", "250 2.1.5 ok", "250 2.0.0 kept")
    assert await sending == KEPT
    assert connection.is_usable
    assert connection.dialogue.transactions == 1


async def envelope_first(peer: Peer, rcpt: bytes = RCPT) -> None:
    """Expect the envelope alone in a flight, and accept it."""
    await peer.expects_flight(MAIL + rcpt)
    peer.says("250 2.1.0 ok", *["250 2.1.5 ok"] * rcpt.count(b"\n"))


async def test_an_older_connection_takes_two_flights(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    connection.last_used_at -= FRESH_SECONDS
    sending = begin(connection)
    await envelope_first(peer)
    await peer.expects_flight(BDAT)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_several_recipients_take_two_flights(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection, envelope("b@y", "c@z"))
    await envelope_first(peer, TWO)
    await peer.expects_flight(BDAT)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_large_content_waits_for_its_envelope(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    large = Content(b"x" * ONE_FLIGHT_BYTES + b"\r\n", is_stuffed=False)
    sending = begin(connection, content=large)
    await envelope_first(peer)
    await peer.expects_flight(b"BDAT %d LAST\r\n" % len(large.octets) + large.octets)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_without_chunking_the_envelope_and_data_are_one_flight(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection, envelope("b@y", "c@z"))
    await peer.expects_flight(MAIL + TWO + b"DATA\r\n")
    peer.says("250 ok", "250 ok", "250 ok", "354 go")
    await peer.expects_flight(DATA)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


@pytest.mark.parametrize("extensions", [{}, CHUNKING])
async def test_without_pipelining_each_command_waits(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection, envelope("b@y", "c@z"))
    for command in (MAIL, b"RCPT TO:<b@y>\r\n", b"RCPT TO:<c@z>\r\n"):
        await peer.expects_flight(command)
        peer.says("250 ok")
    if extensions:
        await peer.expects_flight(BDAT)
    else:
        await peer.expects_flight(b"DATA\r\n")
        peer.says("354 go")
        await peer.expects_flight(DATA)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT


async def test_several_messages_on_one_connection(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    for number in range(1, 4):
        sending = begin(connection)
        await peer.expects_flight(MAIL + RCPT + BDAT)
        peer.says("250 ok", "250 ok", "250 2.0.0 kept")
        assert await sending == KEPT
        assert connection.dialogue.transactions == number


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
    assert not connection.dialogue.needs_reset


async def test_a_refused_recipient_is_followed_by_a_reset(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + BDAT)
    peer.says("250 ok", "550 5.1.1 unknown", "554 5.5.1 nobody")
    assert await sending == Reply(550, "5.1.1", ("unknown",))
    assert connection.is_usable
    sending = begin(connection)
    await peer.expects(b"RSET\r\n" + MAIL + RCPT)  # not in one flight: RSET may be refused
    peer.says("250 reset", "250 ok", "250 ok")
    await peer.expects(BDAT)
    peer.says("250 2.0.0 kept")
    assert await sending == KEPT
    assert not connection.dialogue.needs_reset


async def test_a_refusal_at_the_end_is_followed_by_a_reset(network: Upstreams) -> None:
    connection, peer = await network.connect({})
    connection.dialogue.needs_reset = True
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
    assert connection.dialogue.needs_reset


async def test_one_recipient_refused_of_two_delivers_to_nobody_by_bdat(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    sending = begin(connection, envelope("b@y", "c@z"))
    await peer.expects(MAIL + TWO)
    peer.says("250 ok", "250 ok", "550 5.1.1 unknown")
    answer = await sending
    assert (answer.code, answer.enhanced) == (550, "5.1.1")
    assert answer.text == ("Sent to no one, because of <c@z>: 550 5.1.1 unknown",)
    assert connection.dialogue.needs_reset
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
    assert connection.dialogue.needs_reset


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
            "Sent to no one, because of <b@y>: 450 4.2.1 busy",
            "Sent to no one, because of <c@z>: 550 5.1.1 unknown",
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
    assert not connection.is_usable


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


async def test_a_positive_answer_to_data_is_never_taken_for_the_messages(
    network: Upstreams,
) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    peer.says("250 ok", "250 ok", "250 2.0.0 kept")
    with pytest.raises(UpstreamError):
        await sending
