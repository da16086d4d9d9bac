"""A message that is sent while it arrives: its steps, its refusals, and what a loss means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.transactions import KEPT, MAIL, RCPT, TWO, envelope
from tests.support.upstream_patience import COMMANDS, FINAL_REPLIES, PIECES, wait_only
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.errors import OutcomeUnknown, UpstreamClosedEarly, UpstreamDropped, UpstreamError
from xoauth2_proxy.smtp.protocol import Envelope, Reply
from xoauth2_proxy.upstream.connection import CONTENT_TAKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.support.peers import Peer, Upstreams
    from xoauth2_proxy.upstream.connection import Connection

pytestmark = pytest.mark.both_loops

PIPELINING = {"PIPELINING": ""}
MUCH = b"x" * 998 + b"\r\n"
MUCH *= 16_000


class Stream:
    """A transaction in steps: the envelope, `go_ahead`, `write` any number of times, `end`."""

    def __init__(self, connection: Connection, sender: Envelope) -> None:
        self._connection = connection
        self._envelope = sender
        self._has_begun = False

    async def begin(self) -> Reply:
        return await self._connection.begin(self._envelope, self._envelope.forward_paths)

    async def recipient(self, path: str) -> Reply:
        if not self._has_begun:
            self._has_begun = True
            sender = await self._connection.begin(self._envelope, [])
            if not sender.is_positive:
                return sender
        self._envelope.forward_paths.append(path)
        return await self._connection.add_recipient(self._envelope)

    async def go_ahead(self) -> Reply:
        return await self._connection.ask_for_go_ahead()

    async def write(self, octets: bytes) -> Reply:
        if self._connection.add_content(octets):
            return CONTENT_TAKEN
        return await self._connection.room()

    async def end(self, octets: bytes) -> Reply:
        return await self._connection.end_content(octets)


async def begun(
    network: Upstreams, extensions: dict[str, str] = PIPELINING
) -> tuple[Stream, Connection, Peer]:
    """Return a stream whose envelope was accepted."""
    connection, peer = await network.connect(extensions)
    stream = Stream(connection, envelope())
    beginning = asyncio.create_task(stream.begin())
    await peer.expects(MAIL)
    peer.says("250 2.1.0 ok")
    await peer.expects(RCPT)
    peer.says("250 2.1.5 ok")
    await beginning
    return stream, connection, peer


async def going(network: Upstreams) -> tuple[Stream, Connection, Peer]:
    """Return a stream that may send content."""
    stream, connection, peer = await begun(network)
    asking = asyncio.create_task(stream.go_ahead())
    await peer.expects_flight(b"DATA\r\n")
    peer.says("354 go")
    await asking
    return stream, connection, peer


async def refused(step: Awaitable[Reply]) -> Reply:
    reply = await step
    assert reply.code >= 400
    return reply


async def lost(step: Awaitable[object], kind: type[UpstreamError]) -> str:
    with pytest.raises(kind) as caught:
        await step
    assert caught.type is kind
    return str(caught.value)


# The way of a message.


async def test_a_message_goes_by_data_piece_by_piece(network: Upstreams) -> None:
    stream, connection, peer = await going(network)
    for piece in (b"Subject: a\r\n\r\n", b"..b", b"\r\n"):
        await stream.write(piece)
        await peer.expects_flight(piece)
    ending = asyncio.create_task(stream.end(b".\r\n"))
    await peer.expects_flight(b".\r\n")
    peer.says("250 2.0.0 kept")
    assert await ending == KEPT
    assert connection.is_usable
    assert connection.dialogue.transactions == 1
    assert not connection.dialogue.needs_reset


async def test_the_envelope_is_one_flight_and_never_with_data(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    stream = Stream(connection, envelope("b@y", "c@z"))
    beginning = asyncio.create_task(stream.begin())
    await peer.expects_flight(MAIL + TWO)
    peer.says("250 ok", "250 ok", "250 ok")
    await beginning


async def test_without_pipelining_each_command_waits(network: Upstreams) -> None:
    connection, peer = await network.connect({})
    beginning = asyncio.create_task(Stream(connection, envelope("b@y", "c@z")).begin())
    for command in (MAIL, b"RCPT TO:<b@y>\r\n", b"RCPT TO:<c@z>\r\n"):
        await peer.expects_flight(command)
        peer.says("250 ok")
    await beginning


async def test_an_open_transaction_is_reset_first(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    connection.dialogue.needs_reset = True
    beginning = asyncio.create_task(Stream(connection, envelope()).begin())
    await peer.expects_flight(b"RSET\r\n" + MAIL + RCPT)
    peer.says("250 reset", "250 ok", "250 ok")
    await beginning


async def test_recipients_may_be_asked_for_one_by_one(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    stream = Stream(connection, envelope())
    for path, before, answer in (("b@y", MAIL, "250 2.1.5 ok"), ("c@z", b"", "550 5.1.1 who")):
        asking = asyncio.create_task(stream.recipient(path))
        if before:
            await peer.expects_flight(before)
            peer.says("250 2.1.0 ok")
        await peer.expects_flight(b"RCPT TO:<%b>\r\n" % path.encode())
        peer.says(answer)
        assert str(await asking) == answer
    assert connection.is_usable


async def test_write_waits_while_the_provider_does_not_read(network: Upstreams) -> None:
    stream, _, peer = await going(network)
    writing = asyncio.create_task(stream.write(MUCH))
    await peer.expects(MUCH[:1000])
    assert not writing.done()
    await peer.expects(MUCH[1000:])
    await writing


# Refusals.


async def test_a_refused_sender_leaves_the_connection_usable(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    beginning = asyncio.create_task(Stream(connection, envelope()).begin())
    await peer.expects(MAIL + RCPT)
    peer.says("550 5.1.8 no", "503 5.5.1 MAIL first")
    assert await refused(beginning) == Reply(550, "5.1.8", ("no",))
    assert connection.is_usable
    assert not connection.dialogue.needs_reset


async def test_a_refused_recipient_leaves_a_transaction_to_reset(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    beginning = asyncio.create_task(Stream(connection, envelope("b@y", "c@z")).begin())
    await peer.expects(MAIL + TWO)
    peer.says("250 ok", "250 ok", "550 5.1.1 unknown")
    answer = await refused(beginning)
    assert answer.text == ("Sent to no one, because of <c@z>: 550 5.1.1 unknown",)
    assert connection.is_usable
    assert connection.dialogue.needs_reset


async def test_data_refused_leaves_a_transaction_to_reset(network: Upstreams) -> None:
    stream, connection, peer = await begun(network)
    asking = asyncio.create_task(stream.go_ahead())
    await peer.expects(b"DATA\r\n")
    peer.says("451 4.7.1 not now")
    assert await refused(asking) == Reply(451, "4.7.1", ("not now",))
    assert connection.is_usable
    assert connection.dialogue.needs_reset


@pytest.mark.parametrize("answer", ["250 2.0.0 kept", "220 what"])
async def test_another_answer_to_data_is_out_of_order(network: Upstreams, answer: str) -> None:
    stream, _, peer = await begun(network)
    asking = asyncio.create_task(stream.go_ahead())
    await peer.expects(b"DATA\r\n")
    peer.says(answer)
    await lost(asking, UpstreamClosedEarly)


async def test_a_refusal_at_the_end_is_the_reply(network: Upstreams) -> None:
    stream, connection, peer = await going(network)
    await stream.write(b"a\r\n")
    ending = asyncio.create_task(stream.end(b".\r\n"))
    await peer.expects(b"a\r\n.\r\n")
    peer.says("554 5.7.1 spam")
    assert await ending == Reply(554, "5.7.1", ("spam",))
    assert connection.is_usable


# An early refusal: the provider has seen enough.


async def refuse_early(connection: Connection, peer: Peer, line: str) -> None:
    """Say something in the midst of content, and wait until it was heard."""
    await peer.expects(b"a\r\n")
    peer.says(line)
    await until(lambda: bool(connection.dialogue.ending))


async def test_an_early_refusal_ends_the_next_write(network: Upstreams) -> None:
    stream, connection, peer = await going(network)
    await stream.write(b"a\r\n")
    await refuse_early(connection, peer, "552 5.3.4 too big")
    assert str(await refused(stream.write(b"b\r\n"))) == "552 5.3.4 too big"
    assert not connection.is_usable


async def test_an_early_refusal_ends_the_message_at_its_end(network: Upstreams) -> None:
    stream, connection, peer = await going(network)
    await stream.write(b"a\r\n")
    await refuse_early(connection, peer, "552 5.3.4 too big")
    assert str(await refused(stream.end(b".\r\n"))) == "552 5.3.4 too big"
    assert await peer.rest() == b"", "the end of a message that was refused"


async def test_an_early_refusal_ends_a_write_that_waits(network: Upstreams) -> None:
    stream, _, peer = await going(network)
    writing = asyncio.create_task(stream.write(MUCH))
    await peer.expects(MUCH[:1000])
    assert not writing.done()
    peer.says("552-5.3.4 too", "552 5.3.4 big")
    assert await refused(writing) == Reply(552, "5.3.4", ("too", "big"))


async def test_an_early_refusal_counts_although_the_provider_hangs_up_behind_it(
    network: Upstreams,
) -> None:
    stream, connection, _ = await going(network)
    await stream.write(b"a\r\n")
    connection.data_received(b"552 5.3.4 too big\r\n")
    connection.eof_received()
    assert str(await refused(stream.write(b"b\r\n"))) == "552 5.3.4 too big"


async def test_an_early_refusal_may_come_in_pieces(network: Upstreams) -> None:
    stream, connection, _ = await going(network)
    await stream.write(b"a\r\n")
    for piece in (b"552-5.3.4 too\r\n", b"552 5.3", b".4 big\r\n"):
        connection.data_received(piece)
    assert await refused(stream.write(b"b\r\n")) == Reply(552, "5.3.4", ("too", "big"))


@pytest.mark.parametrize("answer", ["250 2.0.0 kept", "354 go on"])
async def test_an_early_yes_is_no_reply_to_the_message(network: Upstreams, answer: str) -> None:
    stream, connection, peer = await going(network)
    await stream.write(b"a\r\n")
    await refuse_early(connection, peer, answer)
    await lost(stream.end(b".\r\n"), UpstreamDropped)


# Losses.


async def test_lost_at_the_envelope_may_be_tried_again(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    beginning = asyncio.create_task(Stream(connection, envelope()).begin())
    await peer.expects(MAIL)
    peer.breaks()
    await lost(beginning, UpstreamClosedEarly)


@pytest.mark.parametrize("extensions", [PIPELINING, {}])
async def test_421_to_mail_may_be_tried_again(
    network: Upstreams, extensions: dict[str, str]
) -> None:
    connection, peer = await network.connect(extensions)
    beginning = asyncio.create_task(Stream(connection, envelope()).begin())
    await peer.expects(MAIL)
    peer.says("421 4.7.0 too much")
    peer.hangs_up()
    assert "421 4.7.0 too much" in await lost(beginning, UpstreamClosedEarly)


async def test_lost_before_content_may_be_tried_again(network: Upstreams) -> None:
    stream, _, peer = await begun(network)
    asking = asyncio.create_task(stream.go_ahead())
    await peer.expects(b"DATA\r\n")
    peer.breaks()
    await lost(asking, UpstreamClosedEarly)


async def test_lost_while_content_waits_is_dropped(network: Upstreams) -> None:
    stream, _, peer = await going(network)
    writing = asyncio.create_task(stream.write(MUCH))
    await peer.expects(MUCH[:1000])
    peer.breaks()
    await lost(writing, UpstreamDropped)


async def test_lost_between_two_pieces_is_dropped(network: Upstreams) -> None:
    stream, connection, peer = await going(network)
    await stream.write(b"a\r\n")
    peer.hangs_up()
    await until(lambda: bool(connection.dialogue.ending))
    await lost(stream.end(b".\r\n"), UpstreamDropped)


async def test_lost_behind_the_end_is_unknown(network: Upstreams) -> None:
    stream, _, peer = await going(network)
    await stream.write(b"a\r\n")
    ending = asyncio.create_task(stream.end(b".\r\n"))
    await peer.expects(b"a\r\n.\r\n")
    peer.breaks()
    await lost(ending, OutcomeUnknown)


async def test_a_provider_that_does_not_read_is_given_up(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(0.05, PIECES, monkeypatch)
    stream, connection, _ = await going(network)
    await lost(stream.write(MUCH), UpstreamDropped)
    assert not connection.is_usable


async def test_a_silent_provider_is_given_up(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(0.02, COMMANDS, monkeypatch)
    wait_only(0.02, FINAL_REPLIES, monkeypatch)
    stream, _, _ = await begun_patiently(network, monkeypatch)
    await lost(stream.go_ahead(), UpstreamClosedEarly)


async def begun_patiently(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> tuple[Stream, Connection, Peer]:
    with monkeypatch.context() as patient:
        wait_only(PATIENCE_SECONDS, COMMANDS, patient)
        return await begun(network)


async def test_the_first_early_refusal_counts_and_no_later_one(network: Upstreams) -> None:
    stream, connection, peer = await going(network)
    await stream.write(b"some\r\n")
    await peer.expects(b"some\r\n")
    connection.data_received(b"552 5.3.4 too big\r\n")
    connection.data_received(b"421 4.4.2 closing\r\n")
    assert (await refused(stream.write(b"more\r\n"))).code == 552
