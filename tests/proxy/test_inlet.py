"""The buffer between a client and its session: lines, limits, back-pressure and ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.submission import reader as inlet_module
from xoauth2_proxy.submission.reader import EndOfInput, Interrupted, LineTooLong, Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.both_loops

ONE_READ_BYTES = 262_144  # of an event loop


class Receiver(asyncio.Protocol):
    """A server's protocol that feeds an inlet."""

    def __init__(self) -> None:
        self.inlet: Reader
        self.transport: asyncio.Transport
        self.is_fed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.inlet = Reader(self.transport)

    def data_received(self, data: bytes) -> None:
        self.inlet.feed(data)
        self.is_fed.set()

    def eof_received(self) -> bool:
        self.inlet.feed_eof()
        self.is_fed.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.inlet.feed_eof()
        self.is_fed.set()


class Ends:
    """An inlet, and the client's end of its connection."""

    def __init__(self, receiver: Receiver, writer: asyncio.StreamWriter) -> None:
        self.receiver = receiver
        self.inlet = receiver.inlet
        self.writer = writer

    async def send(self, octets: bytes) -> None:
        """Send, and wait until some of it was fed."""
        self.receiver.is_fed.clear()
        self.writer.write(octets)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.receiver.is_fed.wait()

    async def line(self, max_bytes: int = 100) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.inlet.line(max_bytes)

    async def octets(self, max_bytes: int = 100) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.inlet.octets(max_bytes)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    loop = asyncio.get_running_loop()
    receivers: asyncio.Queue[Receiver] = asyncio.Queue()

    def accept() -> Receiver:
        receiver = Receiver()
        loop.call_soon(receivers.put_nowait, receiver)
        return receiver

    server = await loop.create_server(accept, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    receiver = await receivers.get()
    yield Ends(receiver, writer)
    receiver.transport.abort()
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()
    server.close()


# Lines and octets.


async def test_lines_come_one_by_one_with_their_ends(ends: Ends) -> None:
    await ends.send(b"one\r\ntwo\nthr")
    assert ends.inlet.has_line
    assert [await ends.line(), await ends.line()] == [b"one\r\n", b"two\n"]
    assert ends.inlet.has_octets
    assert not ends.inlet.has_line
    await ends.send(b"ee\r\n")
    assert await ends.line() == b"three\r\n"
    assert not ends.inlet.has_octets


async def test_a_line_is_waited_for(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.line())
    for octet in b"EHLO\r\n":
        assert not waiting.done()
        await ends.send(bytes([octet]))
    assert await waiting == b"EHLO\r\n"


async def test_octets_come_as_they_are_up_to_a_limit(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.octets(3))
    await ends.send(b"abcde\r\n")
    assert await waiting == b"abc"
    assert await ends.octets(100) == b"de\r\n"


async def test_what_was_read_too_far_is_read_again_first(ends: Ends) -> None:
    await ends.send(b"QUIT\r\n")
    ends.inlet.put_back(b"NOOP\r\n")
    assert [await ends.line(), await ends.line()] == [b"NOOP\r\n", b"QUIT\r\n"]


# Lines that are too long.


async def test_a_line_as_long_as_allowed(ends: Ends) -> None:
    await ends.send(b"x" * 98 + b"\r\n")
    assert await ends.line(100) == b"x" * 98 + b"\r\n"


@pytest.mark.parametrize("length", [99, 100, 5000])
async def test_a_longer_line_is_discarded_and_the_next_one_is_read(ends: Ends, length: int) -> None:
    await ends.send(b"AUTH PLAIN " + b"x" * (length - 11) + b"\r\nNOOP\r\n")
    with pytest.raises(LineTooLong) as caught:
        await ends.line(100)
    assert caught.value.start.startswith(b"AUTH ")
    assert await ends.line(100) == b"NOOP\r\n"


async def test_a_line_that_grows_too_long_is_discarded_as_it_comes(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.line(100))
    await ends.send(b"AUTH " + b"x" * 200)
    for _ in range(5):
        await ends.send(b"y" * 10_000)
        await asyncio.sleep(0)  # let the reader discard
        assert not ends.inlet.has_octets
    await ends.send(b"z\r\nNOOP\r\n")
    with pytest.raises(LineTooLong) as caught:
        await waiting
    assert caught.value.start == b"AUTH xxxxxxxxxxx"
    assert await ends.line(100) == b"NOOP\r\n"


async def test_an_endless_line_ends_with_the_connection(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.line(100))
    await ends.send(b"x" * 200)
    ends.writer.write_eof()
    with pytest.raises(EndOfInput):
        await waiting


# Back-pressure.


async def test_reading_pauses_when_much_is_waiting_and_goes_on_when_little_is(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlet_module, "_HIGH_BYTES", 1000)
    monkeypatch.setattr(inlet_module, "_LOW_BYTES", 100)
    transport = ends.receiver.transport
    await ends.send(b"x" * 1000)
    assert transport.is_reading()
    await ends.send(b"x")
    assert not transport.is_reading()
    await ends.octets(900)
    assert not transport.is_reading()
    await ends.octets(1)
    assert transport.is_reading()
    await ends.send(b"y")
    assert await ends.octets(1000) == b"x" * 100 + b"y"


async def test_a_client_that_sends_without_end_is_held_back_and_loses_nothing(ends: Ends) -> None:
    total = 8_000_000
    ends.writer.write(b"x" * total)
    sending = asyncio.create_task(ends.writer.drain())
    read = 0
    most = 0
    while read < total:
        most = max(most, len(ends.inlet._buffer))
        read += len(await ends.octets(50_000))
    assert read == total
    assert most <= inlet_module._HIGH_BYTES + ONE_READ_BYTES
    await sending


async def test_what_a_lost_connection_left_can_be_read_to_its_end(ends: Ends) -> None:
    # More than enough to pause: reading on must not ask a dead transport for more.
    while ends.receiver.transport.is_reading():
        await ends.send(b"x" * 100_000 + b"\r\n")
    ends.receiver.is_fed.clear()
    ends.receiver.transport.abort()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ends.receiver.is_fed.wait()
    while ends.inlet.has_octets:
        await ends.octets(10_000)
    with pytest.raises(EndOfInput):
        await ends.octets()


# Ends.


async def test_lines_before_the_end_are_read_before_it(ends: Ends) -> None:
    ends.writer.write(b"QUIT\r\nhalf")
    ends.writer.write_eof()
    assert await ends.line() == b"QUIT\r\n"
    for _ in range(2):
        with pytest.raises(EndOfInput):
            await ends.line()


async def test_interrupt_ends_the_wait_and_the_next_one(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.line())
    await asyncio.sleep(0)
    ends.inlet.interrupt()
    with pytest.raises(Interrupted):
        await waiting
    with pytest.raises(Interrupted):
        await ends.octets()


async def test_interrupt_leaves_what_is_there_readable(ends: Ends) -> None:
    await ends.send(b"QUIT\r\n")
    ends.inlet.interrupt()
    assert await ends.line() == b"QUIT\r\n"


async def test_a_cancelled_wait_loses_nothing(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.line())
    await ends.send(b"NO")
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await ends.send(b"OP\r\n")
    assert await ends.line() == b"NOOP\r\n"
