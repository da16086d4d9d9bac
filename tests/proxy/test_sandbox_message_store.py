from __future__ import annotations

import asyncio
import sys
import tracemalloc

import pytest

from tests.support.sandbox import AwaitableCounter, WaitingStore
from xoauth2_proxy.sandbox.message_store import Message, MessageStore, find_message_id

MIB = 1024 * 1024


def accept(received: MessageStore, content: bytes | None) -> Message:
    if content is not None and not received.reserve(len(content)):
        content = None
    size_bytes = len(content or b"")
    return received.add(Message("a@b", "a@b", ("c@d",), size_bytes, "", "DATA", content))


def test_messages_are_numbered_from_one_without_gaps() -> None:
    received = MessageStore()
    messages = [accept(received, b"x") for _ in range(3)]
    assert [message.seq for message in messages] == [1, 2, 3]
    assert len({message.id for message in messages}) == 3
    assert list(received) == messages


def test_the_oldest_records_go_first_and_are_counted() -> None:
    received = MessageStore(max_records=2)
    for _ in range(5):
        accept(received, b"x")
    assert [message.seq for message in received] == [4, 5]
    assert (received.total, received.evicted, len(received)) == (5, 3, 2)


def test_the_oldest_content_goes_first_and_its_record_stays() -> None:
    received = MessageStore(max_bytes=3 * MIB)
    for _ in range(4):
        accept(received, b"x" * MIB)
    assert [message.content is not None for message in received] == [False, False, True, True]
    assert received.evicted == 0


def test_content_larger_than_all_room_is_not_kept() -> None:
    received = MessageStore(max_bytes=MIB)
    first = accept(received, b"01234")
    assert accept(received, b"x" * (MIB + 1)).content is None
    assert accept(received, b"01234").content == b"01234"
    assert received.find(1) is first, "content drives no record out while records are few"


def test_room_of_evicted_records_is_used_again() -> None:
    received = MessageStore(max_bytes=2 * MIB + 10_000, max_records=2)
    for _ in range(10):
        accept(received, b"x" * MIB)
    assert [message.content for message in received] == [b"x" * MIB] * 2


def to_many(received: MessageStore, content: bytes | None = None) -> Message:
    """Accept a message whose envelope is large."""
    paths = tuple(f"{number:03d}{'x' * 200}@example.com" for number in range(1000))
    if content is not None:
        assert received.reserve(len(content))
    return received.add(Message("a@b", "a@b", paths, 0, "", "DATA", content))


def test_envelopes_are_bounded_like_content() -> None:
    received = MessageStore(max_bytes=MIB)
    for _ in range(20):
        to_many(received)
    assert len(received) == 3, "each takes 270 kB"
    assert [message.seq for message in received] == [18, 19, 20]
    assert received.evicted == 17
    held = sum(sum(map(sys.getsizeof, message.forward_paths)) for message in received)
    assert held <= MIB


def test_no_record_is_free_of_charge() -> None:
    received = MessageStore(max_bytes=MIB)
    for _ in range(5000):
        accept(received, b"")
    assert len(received) < 2500, "each takes at least 420 octets"
    tracemalloc.start()
    try:
        for _ in range(5000):
            accept(received, b"Message-ID: <%s>\r\n" % (b"x" * 4000))
        assert tracemalloc.get_traced_memory()[0] < 1.2 * MIB
    finally:
        tracemalloc.stop()


def test_a_large_record_drives_out_content_before_other_records() -> None:
    received = MessageStore(max_bytes=MIB)
    first = accept(received, b"x" * (MIB - 50_000))
    to_many(received)
    assert first.content is None
    assert received.find(1) is first


def test_records_leave_half_the_room_to_content() -> None:
    received = MessageStore(max_bytes=MIB)
    for _ in range(3):
        to_many(received)
    assert accept(received, b"x" * (MIB // 2)).content is not None
    assert [message.seq for message in received] == [3, 4]


def test_room_that_is_given_back_is_used_again() -> None:
    received = MessageStore(max_bytes=10)
    assert received.reserve(10)
    assert not received.reserve(1)
    received.release(10)
    assert received.reserve(10)


def test_a_page_begins_after_a_number_and_ends_at_its_limit() -> None:
    received = MessageStore(max_records=5)
    for _ in range(8):  # 4 to 8 are held
        accept(received, None)
    assert [m.seq for m in received.after(0, 2)] == [4, 5]
    assert [m.seq for m in received.after(5, 100)] == [6, 7, 8]
    assert received.after(8, 100) == []
    assert received.after(1000, 100) == []


def test_clearing_forgets_messages_and_goes_on_counting() -> None:
    received = MessageStore(max_bytes=MIB)
    accept(received, b"0123456789")
    assert received.clear() == 1
    assert (list(received), received.after(0, 10), received.total) == ([], [], 1)
    assert accept(received, b"0123456789").seq == 2
    assert [message.content for message in received] == [b"0123456789"]
    assert received.find(1) is None
    received.clear()
    assert received.reserve(MIB), "all room is given back"
    assert received.evicted == 0


async def test_waiting_ends_when_the_count_is_reached() -> None:
    received = WaitingStore()
    waiting = asyncio.create_task(received.wait_until(2))
    accept(received, b"1")
    await asyncio.sleep(0)
    assert not waiting.done()
    accept(received, b"2")
    assert [message.content for message in await waiting] == [b"1", b"2"]


async def test_waiting_for_what_never_comes_ends_too() -> None:
    with pytest.raises(TimeoutError):
        await AwaitableCounter().reached(1, timeout_seconds=0.01)


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    counter = AwaitableCounter()
    waiting = asyncio.create_task(counter.reached(2))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (counter.add(), counter.add()) == (1, 2)
    await counter.reached(2)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Message-ID: <1@x>\r\n\r\nbody", "<1@x>"),
        (b"From: a\r\nMESSAGE-id:<1@x>\r\nTo: b\r\n\r\n", "<1@x>"),
        (b"Message-ID:\r\n <1@x>\r\n\r\n", "<1@x>"),
        (b"Message-ID: <1@x>", "<1@x>"),
        (b"Message-ID:\r\nFrom: a\r\n\r\n", ""),
        (b"X-Message-ID: <1@x>\r\n\r\n", ""),
        (b"From: a\r\n\r\nMessage-ID: <in-the-body@x>\r\n", ""),
        (b"X: " + b"y" * 9000 + b"\r\nMessage-ID: <far@x>\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_the_message_id_is_found_in_the_header(content: bytes, expected: str) -> None:
    assert find_message_id(content) == expected


def test_the_newest_come_first_when_asked_backwards() -> None:
    received = MessageStore(max_records=3)
    for _ in range(5):
        accept(received, b"x")
    assert [message.seq for message in received.before(6, 10)] == [5, 4, 3]
    assert [message.seq for message in received.before(999, 2)] == [5, 4]
    assert [message.seq for message in received.before(5, 1)] == [4]
    assert received.before(3, 10) == received.before(0, 10) == received.before(6, 0) == []
