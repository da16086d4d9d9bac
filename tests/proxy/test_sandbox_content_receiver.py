from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.sandbox.message_store import MessageStore
from xoauth2_proxy.sandbox.smtp.session_state import ContentReceiver, DataDecoder

LINES = b"From: a\r\n\r\n.\r\n..\r\n...x\r\n.x\r\n\r\n. .\r\nend.\r\n"


def stuffed(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]


def read(pieces: list[bytes], max_bytes: int = 10_000) -> tuple[ContentReceiver, bytes]:
    """Return the receiver and what follows the end of data."""
    receiver = ContentReceiver(MessageStore(), max_bytes)
    reader = DataDecoder(receiver)
    for number, piece in enumerate(pieces):
        end = reader.feed(piece, 0)
        if end >= 0:
            return receiver, piece[end:] + b"".join(pieces[number + 1 :])
    raise AssertionError("no end of data")


@pytest.mark.parametrize("cut", range(len(stuffed(LINES)) + 4))
def test_a_cut_anywhere_changes_nothing(cut: int) -> None:
    wire = stuffed(LINES) + b".\r\n"
    receiver, rest = read([wire[:cut], wire[cut:] + b"RSET\r\n"])
    assert receiver.take_content() == LINES
    assert rest == b"RSET\r\n"


def test_single_octets_make_the_same_message() -> None:
    wire = stuffed(LINES) + b".\r\n"
    receiver, _ = read([wire[at : at + 1] for at in range(len(wire))])
    assert receiver.take_content() == LINES
    assert receiver.sha256 == hashlib.sha256(LINES).hexdigest()
    assert receiver.size_bytes == len(LINES)
    assert not receiver.has_bare_line_ends


@given(st.lists(st.sampled_from([b".", b"\r\n", b"x", b"\r", b"\n"])), st.data())
def test_any_content_survives_stuffing_and_cuts(words: list[bytes], data: st.DataObject) -> None:
    content = b"".join(words)
    content = content + b"\r\n" if content else b""
    wire = stuffed(content) + b".\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    bounds = [0, *cuts, len(wire)]
    receiver, rest = read([wire[a:b] for a, b in itertools.pairwise(bounds)])
    assert receiver.take_content() == content
    assert rest == b""
    bare = content.replace(b"\r\n", b"")
    assert receiver.has_bare_line_ends == (b"\r" in bare or b"\n" in bare)


@pytest.mark.parametrize(
    "almost", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n.\rx", b"\r\n. \r\n"]
)
def test_nothing_but_crlf_dot_crlf_ends_data(almost: bytes) -> None:
    receiver, rest = read([b"a" + almost + b"b\r\n.\r\nNOOP\r\n"])
    assert rest == b"NOOP\r\n"
    assert (receiver.take_content() or b"").endswith(b"b\r\n")


def test_an_empty_message_has_no_octets() -> None:
    receiver, _ = read([b".\r\n"])
    assert receiver.take_content() == b""


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"\n", b"\r", b"a\r\r\n", b"\n\r"])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_bare_line_ends_are_seen_across_pieces(content: bytes, cut: int) -> None:
    receiver = ContentReceiver(MessageStore(), 1000)
    receiver.add(content[:cut])
    receiver.add(content[cut:])
    assert receiver.has_bare_line_ends


def test_crlf_cut_in_two_is_not_bare() -> None:
    receiver = ContentReceiver(MessageStore(), 1000)
    for piece in (b"a\r", b"\nb\r", b"", b"\n"):
        receiver.add(piece)
    assert not receiver.has_bare_line_ends


def test_too_large_content_is_let_go() -> None:
    received = MessageStore(max_bytes=10)
    receiver = ContentReceiver(received, 10)
    receiver.add(b"0123456789")
    assert not receiver.is_too_large
    receiver.add(b"0")
    assert receiver.is_too_large
    assert receiver.take_content() is None
    assert received.reserve(10)


def test_content_without_room_is_digested_and_not_kept() -> None:
    received = MessageStore(max_bytes=5)
    receiver = ContentReceiver(received, 100)
    receiver.add(b"0123")
    receiver.add(b"4567")
    assert receiver.take_content() is None
    assert receiver.sha256 == hashlib.sha256(b"01234567").hexdigest()
    assert received.reserve(5)
