"""A transaction whose connection is lost, by how much of the message had left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.transactions import (
    BDAT,
    BOTH,
    CHUNKING,
    CONTENT,
    DATA,
    MAIL,
    PIPELINING,
    RCPT,
    begin,
    envelope,
)
from tests.support.upstream_patience import COMMANDS, FINAL_REPLIES, PIECES, wait_only
from xoauth2_proxy.errors import (
    OutcomeUnknown,
    UpstreamClosedEarly,
    UpstreamDropped,
    UpstreamError,
)
from xoauth2_proxy.smtp.content import Content

if TYPE_CHECKING:
    import asyncio

    from tests.support.peers import Upstreams
    from xoauth2_proxy.smtp.protocol import Reply

pytestmark = pytest.mark.both_loops


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
    while not (await peer.line()).startswith((b"DATA", b"BDAT")):
        if extensions != BOTH:
            peer.says("250 ok")
    if "CHUNKING" in extensions:
        await peer.expects(CONTENT.for_bdat())
    else:
        peer.says("354 go")
        await peer.expects(DATA)
    peer.breaks()
    await lost(sending, OutcomeUnknown)


async def test_no_final_reply_in_time_is_unknown(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(0.05, FINAL_REPLIES, monkeypatch)
    connection, peer = await network.connect(BOTH)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + BDAT)
    peer.says("250 ok", "250 ok")
    await lost(sending, OutcomeUnknown)
    assert await peer.rest() == b""


async def test_no_reply_to_the_envelope_in_time_may_be_tried_again(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(0.01, COMMANDS, monkeypatch)
    connection, _ = await network.connect(PIPELINING)
    await lost(begin(connection), UpstreamClosedEarly)


async def test_a_provider_that_does_not_read_is_given_up(
    network: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_only(0.05, PIECES, monkeypatch)
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection, content=Content(b"x" * 16_000_000 + b"\r\n", is_stuffed=False))
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    peer.says("250 ok", "250 ok", "354 go")
    await lost(sending, UpstreamDropped)


async def test_a_connection_found_dead_may_be_tried_again(network: Upstreams) -> None:
    connection, _ = await network.connect(BOTH)
    connection.abort()
    with pytest.raises(UpstreamClosedEarly):
        await connection.send_message(envelope(), CONTENT)


async def test_lost_once_the_content_was_written_is_unknown(network: Upstreams) -> None:
    connection, peer = await network.connect(PIPELINING)
    sending = begin(connection)
    await peer.expects(MAIL + RCPT + b"DATA\r\n")
    # The event loop does this if both came in one packet: the content leaves in the first call.
    connection.data_received(b"250 ok\r\n250 ok\r\n354 go\r\n")
    connection.eof_received()
    with pytest.raises(OutcomeUnknown):
        await sending


async def test_421_to_the_reset_may_be_tried_again(network: Upstreams) -> None:
    connection, peer = await network.connect(BOTH)
    connection.dialogue.needs_reset = True
    sending = begin(connection)
    await peer.expects(b"RSET\r\n" + MAIL + RCPT)
    peer.says("421 4.4.2 idle for too long")
    peer.hangs_up()
    with pytest.raises(UpstreamClosedEarly):
        await sending
