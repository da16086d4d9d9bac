"""The transport around a dialogue: waiting, back-pressure and closing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.transactions import CONTENT, MAIL, PIPELINING, RCPT, envelope
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.errors import UpstreamClosedEarly, UpstreamDropped
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.upstream.connection import CONTENT_TAKEN, Connection

if TYPE_CHECKING:
    from tests.support.peers import Peer, Upstreams

pytestmark = pytest.mark.both_loops

LONG = PATIENCE_SECONDS
MUCH = b"x" * 16_000_000  # more than both kernels' buffers


@pytest.fixture
async def pair(network: Upstreams) -> tuple[Connection, Peer]:
    return await network.connect(PIPELINING)


async def gone(connection: Connection) -> str:
    """Wait until the connection has noticed its end, and return the reason."""
    ended = asyncio.get_running_loop().create_future()
    connection.on_gone = lambda _: ended.set_result(None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ended
    assert not connection.is_usable
    with pytest.raises(UpstreamClosedEarly) as caught:
        await connection.command(b"NOOP\r\n", LONG)
    return str(caught.value)


async def content_wanted(pair: tuple[Connection, Peer]) -> tuple[Connection, Peer]:
    """Return the connection in the midst of a transaction: the provider waits for content."""
    connection, peer = pair
    beginning = connection.begin(envelope(), ["b@y"])
    await peer.expects(MAIL + RCPT)
    peer.says("250 ok", "250 ok")
    await beginning
    asking = connection.ask_for_go_ahead()
    await peer.expects(b"DATA\r\n")
    peer.says("354 go")
    assert (await asking).code == 354
    return connection, peer


async def test_a_reply_in_pieces_is_waited_for(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    waiting = connection.command(b"NOOP\r\n", LONG)
    await peer.expects(b"NOOP\r\n")
    for octet in b"250-a\r\n250 b\r\n":
        assert not waiting.done()
        connection.data_received(bytes([octet]))
    assert await waiting == Reply(250, "", ("a", "b"))
    assert connection.is_usable


async def test_a_connection_that_loses_its_order_is_aborted(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    peer.says("250 unasked")
    assert "no command" in await gone(connection)
    assert await peer.rest() == b""


async def test_a_reply_that_does_not_come_in_time_ends_it(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    with pytest.raises(UpstreamClosedEarly, match="timed out"):
        await connection.command(b"NOOP\r\n", 0.01)
    assert await peer.rest() == b"NOOP\r\n"


async def test_end_of_input_wakes_the_one_who_waits(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    waiting = connection.command(b"NOOP\r\n", LONG)
    await peer.expects(b"NOOP\r\n")
    peer.hangs_up()
    with pytest.raises(UpstreamClosedEarly, match="closed by the provider"):
        await waiting


async def test_a_reset_ends_it(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    peer.breaks()
    await gone(connection)


async def test_a_last_reply_counts_although_the_provider_hung_up(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    waiting = connection.command(b"NOOP\r\n", LONG)
    await peer.expects(b"NOOP\r\n")
    peer.says("421 4.4.2 bye")
    peer.hangs_up()
    assert (await waiting).code == 421
    assert "closed by the provider" in await gone(connection)


async def test_on_gone_is_called_once(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    calls: list[Connection] = []
    connection.on_gone = calls.append
    connection.abort("first")
    connection.abort("second")
    connection.close()
    assert calls == [connection]
    with pytest.raises(UpstreamClosedEarly, match="first"):
        await connection.command(b"NOOP\r\n", LONG)


async def test_close_says_quit(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.close()
    assert await peer.rest() == b"QUIT\r\n"


async def test_close_in_the_middle_says_nothing(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    waiting = connection.command(b"NOOP\r\n", LONG)
    connection.close()
    with pytest.raises(UpstreamClosedEarly):
        await waiting
    assert await peer.rest() == b"NOOP\r\n"


async def test_content_waits_until_the_provider_reads(pair: tuple[Connection, Peer]) -> None:
    connection, peer = await content_wanted(pair)
    assert connection.add_content(b"a\r\n")
    assert not connection.add_content(MUCH)
    writing = asyncio.create_task(connection.room())
    await asyncio.wait([writing], timeout=0.01)
    assert not writing.done()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await peer.reader.readexactly(len(MUCH) + 3)
        assert await writing is CONTENT_TAKEN


async def test_waiting_for_room_ends_with_the_connection(pair: tuple[Connection, Peer]) -> None:
    connection, peer = await content_wanted(pair)
    assert not connection.add_content(MUCH)
    writing = asyncio.create_task(connection.room())
    await asyncio.wait([writing], timeout=0.01)
    assert not writing.done()
    peer.breaks()
    with pytest.raises(UpstreamDropped):
        await writing


async def test_repr_is_for_the_log(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    waiting = connection.command(b"NOOP\r\n", LONG)
    assert repr(connection) == "<Connection 1 replies awaited, 0 transactions>"
    connection.abort("broken")
    assert repr(connection) == "<Connection broken, 0 transactions>"
    with pytest.raises(UpstreamClosedEarly):
        await waiting


async def test_an_earlier_reply_is_never_taken_for_a_later_steps(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    waiting = connection.command(b"NOOP\r\n", LONG)
    await peer.expects(b"NOOP\r\n")
    connection.data_received(b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n")
    assert (await waiting).code == 250
    for step in (
        connection.send_message(envelope(), CONTENT),
        connection.begin(envelope(), ["b@y"]),
        connection.ask_for_go_ahead(),
        connection.command(b"NOOP\r\n", LONG),
    ):
        with pytest.raises(UpstreamClosedEarly):
            await step
