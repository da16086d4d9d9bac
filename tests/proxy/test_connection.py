"""A connection to a provider: replies in order, and no trust after any surprise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.smtp.protocol import MAX_REPLY_LINE_BYTES, Reply
from xoauth2_proxy.upstream.connection import Connection, ConnectionLost

if TYPE_CHECKING:
    from tests.support.peers import Peer, Upstreams

pytestmark = pytest.mark.both_loops

LONG = PATIENCE_SECONDS


@pytest.fixture
async def pair(network: Upstreams) -> tuple[Connection, Peer]:
    return await network.connect()


async def gone(connection: Connection) -> str:
    """Wait until the connection has noticed its end, and return the reason."""
    ended = asyncio.get_running_loop().create_future()
    connection.on_gone = lambda _: ended.set_result(None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ended
    assert not connection.is_usable
    with pytest.raises(ConnectionLost) as caught:
        connection.send(b"NOOP\r\n", replies=1)
    return str(caught.value)


async def test_replies_come_in_the_order_of_commands(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(b"ONE\r\nTWO\r\n", replies=2)
    connection.send(b"THREE\r\n", replies=1)
    await peer.expects(b"ONE\r\nTWO\r\nTHREE\r\n")
    assert not connection.is_usable
    peer.says("250-1", "250 1", "354 2", "550 5.1.1 3")
    assert [await connection.reply(LONG) for _ in range(3)] == [
        Reply(250, "", ("1", "1")),
        Reply(354, "", ("2",)),
        Reply(550, "5.1.1", ("3",)),
    ]
    assert connection.is_usable


async def test_a_reply_in_pieces_is_waited_for(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(b"NOOP\r\n", replies=1)
    waiting = asyncio.create_task(connection.reply(LONG))
    await peer.expects(b"NOOP\r\n")
    for octet in b"250-a\r\n250 b\r\n":
        assert not waiting.done()
        connection.data_received(bytes([octet]))
    assert await waiting == Reply(250, "", ("a", "b"))


async def test_content_draws_no_reply_of_its_own(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(b"a\r\n", replies=0)
    assert connection.is_usable
    await peer.expects(b"a\r\n")


@pytest.mark.parametrize("octets", ["421 4.4.2 bye\r\n", "4", "250-\r\n"])
async def test_octets_nobody_asked_for_end_it(pair: tuple[Connection, Peer], octets: str) -> None:
    connection, peer = pair
    peer.writer.write(octets.encode())
    assert (await gone(connection)).startswith("unasked")
    assert await peer.rest() == b""


async def test_replies_of_which_one_is_too_many_are_not_believed_where_they_differ(
    pair: tuple[Connection, Peer],
) -> None:
    connection, _ = pair
    connection.send(b"ONE\r\nTWO\r\n", replies=2)
    connection.data_received(b"250 a\r\n550 b\r\n250 c\r\n")
    assert not connection.is_usable
    with pytest.raises(ConnectionLost, match="unasked reply: 250"):
        await connection.reply(LONG)


@pytest.mark.parametrize("code", [250, 550])
async def test_replies_of_which_one_is_too_many_are_believed_where_all_say_the_same(
    pair: tuple[Connection, Peer], code: int
) -> None:
    connection, _ = pair
    connection.send(b"ONE\r\nTWO\r\n", replies=2)
    connection.data_received(b"%d a\r\n%d b\r\n%d c\r\n" % (code, code, code))
    assert not connection.is_usable
    assert [await connection.reply(LONG) for _ in range(2)] == [
        Reply(code, "", ("a",)),
        Reply(code, "", ("b",)),
    ]
    with pytest.raises(ConnectionLost, match="unasked"):
        await connection.reply(LONG)


async def test_the_beginning_of_a_reply_too_many_ends_it(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    connection.send(b"NOOP\r\n", replies=1)
    connection.data_received(b"250 one\r\n250-the beginning of ano")
    assert await connection.reply(LONG) == Reply(250, "", ("one",))
    assert not connection.is_usable


@pytest.mark.parametrize(
    "octets", [b"\x16\x03\x01\r\n", b"hello\r\n", b"250-a\r\n550 b\r\n", b"x" * 5000]
)
async def test_garbage_ends_it(pair: tuple[Connection, Peer], octets: bytes) -> None:
    connection, peer = pair
    connection.send(b"NOOP\r\n", replies=1)
    waiting = asyncio.create_task(connection.reply(LONG))
    await peer.expects(b"NOOP\r\n")
    peer.writer.write(octets)
    with pytest.raises(ConnectionLost):
        await waiting
    assert not connection.is_usable
    assert await peer.rest() == b""


async def test_an_endless_line_is_not_gathered(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    connection.send(b"NOOP\r\n", replies=1)
    connection.data_received(b"250 " + b"x" * MAX_REPLY_LINE_BYTES)
    with pytest.raises(ConnectionLost, match="too long"):
        await connection.reply(LONG)


async def test_a_reply_that_does_not_come_in_time_ends_it(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(b"NOOP\r\n", replies=1)
    with pytest.raises(ConnectionLost, match="timed out"):
        await connection.reply(0.01)
    assert await peer.rest() == b"NOOP\r\n"


async def test_end_of_input_wakes_who_waits(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(b"NOOP\r\n", replies=1)
    waiting = asyncio.create_task(connection.reply(LONG))
    await peer.expects(b"NOOP\r\n")
    peer.hangs_up()
    with pytest.raises(ConnectionLost, match="closed by the provider"):
        await waiting


async def test_a_reset_ends_it(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    peer.breaks()
    await gone(connection)


async def test_a_last_reply_is_read_although_the_provider_hung_up(
    pair: tuple[Connection, Peer],
) -> None:
    connection, peer = pair
    connection.send(b"NOOP\r\n", replies=1)
    await peer.expects(b"NOOP\r\n")
    peer.says("421 4.4.2 bye")
    peer.hangs_up()
    assert "closed by the provider" in await gone(connection)
    assert (await connection.reply(LONG)).code == 421


async def test_on_gone_is_called_once(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    calls: list[Connection] = []
    connection.on_gone = calls.append
    connection.abort("first")
    connection.abort("second")
    connection.close()
    assert calls == [connection]
    with pytest.raises(ConnectionLost, match="first"):
        connection.send(b"", replies=0)


async def test_close_says_quit(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.close()
    assert await peer.rest() == b"QUIT\r\n"


async def test_close_in_the_middle_says_nothing(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(b"DATA\r\n", replies=1)
    connection.close()
    assert await peer.rest() == b"DATA\r\n"


async def test_a_reply_not_read_makes_it_unusable(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    connection.send(b"NOOP\r\n", replies=1)
    connection.data_received(b"250 ok\r\n")
    assert not connection.is_usable
    await connection.reply(LONG)
    assert connection.is_usable


# Back-pressure.

MUCH = b"x" * 16_000_000  # more than both kernels' buffers


async def test_drain_waits_until_the_peer_reads(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    await connection.drain(LONG)
    connection.send(MUCH, replies=0)
    draining = asyncio.create_task(connection.drain(LONG))
    await asyncio.wait([draining], timeout=0.01)
    assert not draining.done()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await peer.reader.readexactly(len(MUCH))
        await draining


async def test_drain_gives_up_on_a_peer_that_does_not_read(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    connection.send(MUCH, replies=0)
    with pytest.raises(ConnectionLost, match="timed out"):
        await connection.drain(0.01)


async def test_drain_ends_with_the_connection(pair: tuple[Connection, Peer]) -> None:
    connection, peer = pair
    connection.send(MUCH, replies=0)
    draining = asyncio.create_task(connection.drain(LONG))
    await asyncio.wait([draining], timeout=0.01)
    assert not draining.done()
    peer.breaks()
    with pytest.raises(ConnectionLost):
        await draining


async def test_repr_is_for_the_log(pair: tuple[Connection, Peer]) -> None:
    connection, _ = pair
    connection.send(b"NOOP\r\n", replies=1)
    assert repr(connection) == "<Connection 1 replies outstanding, 0 transactions>"
    connection.abort("broken")
    assert repr(connection) == "<Connection broken, 0 transactions>"
