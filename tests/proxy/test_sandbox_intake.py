from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.sandbox.message_store import Received
from xoauth2_proxy.sandbox.smtp.content_receiver import DataReader, Intake

LINES = b"From: a\r\n\r\n.\r\n..\r\n...x\r\n.x\r\n\r\n. .\r\nend.\r\n"


def stuffed(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]


def read(pieces: list[bytes], max_bytes: int = 10_000) -> tuple[Intake, bytes]:
    """Return the intake and what follows the end of data."""
    intake = Intake(Received(), max_bytes)
    reader = DataReader(intake)
    for number, piece in enumerate(pieces):
        end = reader.feed(piece, 0)
        if end >= 0:
            return intake, piece[end:] + b"".join(pieces[number + 1 :])
    raise AssertionError("no end of data")


@pytest.mark.parametrize("cut", range(len(stuffed(LINES)) + 4))
def test_a_cut_anywhere_changes_nothing(cut: int) -> None:
    wire = stuffed(LINES) + b".\r\n"
    intake, rest = read([wire[:cut], wire[cut:] + b"RSET\r\n"])
    assert intake.take_content() == LINES
    assert rest == b"RSET\r\n"


def test_single_octets_make_the_same_message() -> None:
    wire = stuffed(LINES) + b".\r\n"
    intake, _ = read([wire[at : at + 1] for at in range(len(wire))])
    assert intake.take_content() == LINES
    assert intake.sha256 == hashlib.sha256(LINES).hexdigest()
    assert intake.size_bytes == len(LINES)
    assert not intake.has_bare_line_ends


@given(st.lists(st.sampled_from([b".", b"\r\n", b"x", b"\r", b"\n"])), st.data())
def test_any_content_survives_stuffing_and_cuts(words: list[bytes], data: st.DataObject) -> None:
    content = b"".join(words)
    content = content + b"\r\n" if content else b""
    wire = stuffed(content) + b".\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    bounds = [0, *cuts, len(wire)]
    intake, rest = read([wire[a:b] for a, b in itertools.pairwise(bounds)])
    assert intake.take_content() == content
    assert rest == b""
    bare = content.replace(b"\r\n", b"")
    assert intake.has_bare_line_ends == (b"\r" in bare or b"\n" in bare)


@pytest.mark.parametrize(
    "almost", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n.\rx", b"\r\n. \r\n"]
)
def test_nothing_but_crlf_dot_crlf_ends_data(almost: bytes) -> None:
    intake, rest = read([b"a" + almost + b"b\r\n.\r\nNOOP\r\n"])
    assert rest == b"NOOP\r\n"
    assert (intake.take_content() or b"").endswith(b"b\r\n")


def test_an_empty_message_has_no_octets() -> None:
    intake, _ = read([b".\r\n"])
    assert intake.take_content() == b""


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"\n", b"\r", b"a\r\r\n", b"\n\r"])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_bare_line_ends_are_seen_across_pieces(content: bytes, cut: int) -> None:
    intake = Intake(Received(), 1000)
    intake.add(content[:cut])
    intake.add(content[cut:])
    assert intake.has_bare_line_ends


def test_crlf_cut_in_two_is_not_bare() -> None:
    intake = Intake(Received(), 1000)
    for piece in (b"a\r", b"\nb\r", b"", b"\n"):
        intake.add(piece)
    assert not intake.has_bare_line_ends


def test_too_large_content_is_let_go() -> None:
    received = Received(max_bytes=10)
    intake = Intake(received, 10)
    intake.add(b"0123456789")
    assert not intake.is_too_large
    intake.add(b"0")
    assert intake.is_too_large
    assert intake.take_content() is None
    assert received.reserve(10)


def test_content_without_room_is_digested_and_not_kept() -> None:
    received = Received(max_bytes=5)
    intake = Intake(received, 100)
    intake.add(b"0123")
    intake.add(b"4567")
    assert intake.take_content() is None
    assert intake.sha256 == hashlib.sha256(b"01234567").hexdigest()
    assert received.reserve(5)
