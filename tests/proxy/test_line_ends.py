"""Line ends of content are repaired: against a slow and obvious implementation, over every cut."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.reference import repaired
from xoauth2_proxy.smtp.content import Collector, Content, DataFraming, DataReader, Refusal
from xoauth2_proxy.smtp.line_ends import MAX_CRS

PLENTY = 1_000_000
LIMIT = 100

_octets = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\n.", b"\r\n.", b"\r\r\n", b"a", b"\xff"]),
    max_size=25,
).map(b"".join)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
# All that some server takes for the end of DATA.
_LENIENT_END = re.compile(rb"(?<=[\r\n])\.(?=[\r\n])")


def collected(pieces: list[bytes], *, is_stuffed: bool, takes: bool) -> bytes:
    """Return what the pieces become, taken as they come (`takes`) or at the end."""
    collector = Collector(PLENTY)
    collector.is_stuffed = is_stuffed
    taken = b""
    for piece in pieces:
        collector.add(piece)
        if takes:
            taken += collector.take()
    assert collector.refusal() is None
    return taken + collector.take()


def pieces_of(octets: bytes) -> list[list[bytes]]:
    """Return the octets whole, cut in two at each place, and octet by octet."""
    halves = [[octets[:at], octets[at:]] for at in range(1, len(octets))]
    return [[octets], *halves, [octets[at : at + 1] for at in range(len(octets))]]


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(octets) + 1) for place in places)
    return [octets[start:end] for start, end in itertools.pairwise([0, *at, len(octets)])]


def may_be_data(content: bytes) -> bool:
    """Whether these octets can be the content of one DATA command."""
    return (not content or content.endswith(b"\r\n")) and b"\r\n.\r\n" not in b"\r\n" + content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\r\nb\r\r\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n", b"a b\r\n"),
        (b"\r\r\rX: y\r\n", b"   X: y\r\n"),
        (b"a\n\rb\r\n", b"a\r\n b\r\n"),
        (b"\n\n\n", b"\r\n\r\n\r\n"),
        (b"Subject: a\n folded\n\nb\n", b"Subject: a\r\n folded\r\n\r\nb\r\n"),
        (b"a\r", b"a\r\n"),
        (b"a\r\r", b"a\r\n"),
        (b"a\nb", b"a\r\nb"),
    ],
)
def test_lf_and_the_crs_before_it_are_a_line_end_and_a_lone_cr_is_a_space(
    content: bytes, expected: bytes
) -> None:
    for pieces in pieces_of(content):
        for takes in (False, True):
            assert collected(pieces, is_stuffed=False, takes=takes) == expected


@pytest.mark.parametrize(
    ("content", "becomes"),
    [
        # Behind a CRLF, a dot stuffs, as always.
        (b"a\n\r\n..b\r\n", b"a\r\n\r\n.b\r\n"),
        (b"a\n\r\n.b\r\n", b"a\r\n\r\nb\r\n"),
        # A client that stuffs behind LF: smtplib.
        (b"a\n..b\r\n", b"a\r\n.b\r\n"),
        (b"a\n..\nb\r\n", b"a\r\n.\r\nb\r\n"),
        # A client that does not: curl.
        (b"a\n.b\r\n", b"a\r\n.b\r\n"),
        (b"a\r\r\n.b\r\n", b"a\r\n.b\r\n"),
        # A lone dot ends nothing, and remains one.
        (b"a\n.\nb\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\n.\r\nb\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\nb\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\r\r\nb\r\n", b"a\r\n.\r\nb\r\n"),
        (b".\na\r\n", b".\r\na\r\n"),
        (b"a\n.\n.\n.\r\nb\r\n", b"a\r\n.\r\n.\r\n.\r\nb\r\n"),
        (b"a\r.\rb\r\n", b"a . b\r\n"),
    ],
)
def test_a_dot_is_stuffing_only_where_the_client_can_have_stuffed(
    content: bytes, becomes: bytes
) -> None:
    for pieces in pieces_of(content):
        for takes in (False, True):
            octets = collected(pieces, is_stuffed=True, takes=takes)
            assert Content(octets, is_stuffed=True).for_bdat() == becomes


@pytest.mark.parametrize("is_stuffed", [False, True])
def test_every_short_content_is_repaired_alike_over_every_cut(is_stuffed: bool) -> None:
    for length in range(6):
        for octets in map(bytes, itertools.product(b"\r\n.a", repeat=length)):
            content = octets + b"\r\n" if is_stuffed else octets
            if is_stuffed and not may_be_data(content):
                continue
            expected = (
                repaired(content, is_stuffed=is_stuffed) if _BARE.search(content) else content
            )
            for pieces in pieces_of(content):
                for takes in (False, True):
                    found = collected(pieces, is_stuffed=is_stuffed, takes=takes)
                    assert found == expected, (pieces, takes)


@given(_octets, st.lists(st.integers(0, 200), max_size=6), st.booleans(), st.booleans())
def test_any_content_is_repaired_alike_over_any_cut(
    octets: bytes, places: list[int], is_stuffed: bool, takes: bool
) -> None:
    content = octets + b"\r\n" if is_stuffed else octets
    if is_stuffed and not may_be_data(content):
        return
    expected = repaired(content, is_stuffed=is_stuffed) if _BARE.search(content) else content
    found = collected(cut(content, places), is_stuffed=is_stuffed, takes=takes)
    assert found == expected
    assert not _BARE.search(found)


# What leaves has one end, even for a server that takes anything for one.


def sent_for(pieces: list[bytes], way: str) -> list[bytes]:
    """Return what leaves by DATA for content that came by `way`: sent whole, and streamed."""
    leaves = []
    for streams in (False, True):
        collector = Collector(PLENTY)
        reader = DataReader(collector) if way == "DATA" else None
        framing = DataFraming(is_stuffed=way == "DATA")
        sent = b""
        for piece in [*pieces, b".\r\n"] if reader else pieces:
            if reader is None:
                collector.add(piece)
            elif reader.feed(piece) is not None:
                break
            if streams:
                sent += framing.feed(collector.take())
        assert collector.refusal() is None
        if streams:
            sent += framing.feed(collector.take()) + framing.finish()
        else:
            sent = collector.content().for_data()
        leaves.append(sent)
    return leaves


def ends_once(sent: bytes) -> bool:
    dots = [found.start() for found in _LENIENT_END.finditer(b"\r\n" + sent)]
    return sent.endswith(b".\r\n") and dots == [len(sent) - 1]


SIDES = ["".join(side) for length in range(4) for side in itertools.product("\r\n", repeat=length)]


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
@pytest.mark.parametrize("before", SIDES, ids=repr)
def test_no_variant_of_the_end_leaves_as_one_wherever_it_is_split(before: str, way: str) -> None:
    for after in SIDES:
        variant = f"{before}.{after}".encode()
        for content in (
            b"a" + variant + b"MAIL FROM:<x@y>\r\n",
            variant + b"b\r\n",
            b"a" + variant,
        ):
            if way == "DATA":
                content += b"" if content.endswith(b"\r\n") else b"c\r\n"
                if not may_be_data(content):
                    continue
            for pieces in pieces_of(content):
                whole, streamed = sent_for(pieces, way)
                assert ends_once(whole), pieces
                assert streamed == whole, pieces


@given(_octets, st.lists(st.integers(0, 200), max_size=6), st.sampled_from(["DATA", "BDAT"]))
def test_whatever_comes_leaves_with_one_end(octets: bytes, places: list[int], way: str) -> None:
    content = octets + b"\r\n" if way == "DATA" else octets
    if way == "DATA" and not may_be_data(content):
        return
    whole, streamed = sent_for(cut(content, places), way)
    assert ends_once(whole)
    assert streamed == whole


# Bounds.


def test_a_thousand_crs_in_a_row_are_refused_over_every_cut() -> None:
    for crs, refusal in ((MAX_CRS - 1, None), (MAX_CRS, Refusal.BARE_LINE_ENDS)):
        for end in (b"", b"x", b"\n"):
            octets = b"a\r\n" + b"\r" * crs + end
            for at in (0, 3, 4, 500, len(octets) - 1):
                collector = Collector(PLENTY)
                collector.add(octets[:at])
                collector.add(octets[at:])
                assert collector.refusal() is refusal, (crs, end, at)


@pytest.mark.parametrize("line", [b"abc\n", b"\r\r\r\r\n", b"\n"])
def test_the_limit_holds_for_what_comes_and_for_what_leaves(line: bytes) -> None:
    leaves = repaired(line, is_stuffed=False)
    fit = LIMIT // max(len(line), len(leaves))
    for lines, refusal in ((fit, None), (fit + 1, Refusal.TOO_LARGE)):
        for takes in (False, True):
            collector = Collector(LIMIT)
            for _ in range(lines):
                collector.add(line)
                if takes:
                    collector.take()
            assert collector.refusal() is refusal
            assert collector.size_bytes == lines * len(line)


@pytest.mark.parametrize("is_strict", [False, True])
def test_nul_is_refused_wherever_it_stands(is_strict: bool) -> None:
    octets = b"a\r\nb\r\n"
    for at in range(len(octets) + 1):
        collector = Collector(PLENTY, is_strict=is_strict)
        collector.add(octets[:at])
        collector.add(b"\0" + octets[at:])
        assert not collector.is_acceptable
        collector.add(b"more\r\n")
        assert collector.refusal() is Refusal.NUL or octets[at - 1 : at + 1] == b"\r\n"
        assert collector.held_bytes == 0


# The end that some clients mean.


@pytest.mark.parametrize(
    ("octets", "is_mistaken"),
    [
        (b"a\n.\n", True),
        (b"a\r\n.\n", True),
        (b"a\n.\r\n", True),
        (b"a\r.\r", True),
        (b"a\r.\r\n", True),
        (b".\n", True),
        (b"a\n.\nQUIT\n", True),
        (b"a\r\n.\nquit\r\n", True),
        (b".\nQUIT\n", True),
        (b"a\n.\nQUIT", False),
        (b"a\n.b\nQUIT\n", False),
        (b"a\r\n..\r\nQUIT\r\n", False),
        (b"a\nQUIT\n", False),
        (b"a\r\n.\r", False),  # its LF may follow
        (b"a\r\n..\n", False),
        (b"a\r\n.", False),
        (b"a.\n", False),
        (b"a\n.\nb", False),
        (b"", False),
    ],
)
def test_what_some_clients_take_for_the_end_is_recognized(octets: bytes, is_mistaken: bool) -> None:
    for pieces in pieces_of(octets):
        reader = DataReader(Collector(PLENTY))
        for piece in pieces:
            assert reader.feed(piece) is None
        assert reader.has_mistaken_end is is_mistaken, pieces
