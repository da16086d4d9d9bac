"""Content between DATA or BDAT and DATA or BDAT, against slow and obvious implementations."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.smtp.content import (
    Collector,
    Content,
    DataFraming,
    DataReader,
    Refusal,
    message_id,
)

PLENTY = 1_000_000

# Octets among which ends of lines, dots and half-ends are frequent.
_octets = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"\0", b"\xff"]), max_size=20
).map(b"".join)
_lines = st.lists(st.text(st.sampled_from(".ab"), max_size=3).map(str.encode), max_size=8).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@st.composite
def cut(draw: st.DrawFn, octets: bytes) -> list[bytes]:
    """Cut `octets` anywhere, empty chunks included."""
    at = sorted(draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    return [octets[start:end] for start, end in zip([0, *at], [*at, len(octets)], strict=True)]


# Slow and obvious: one octet, one line at a time.


def should_be_clean(octets: bytes) -> bool:
    return not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets)


def end_of_data(octets: bytes) -> tuple[bytes, bytes] | None:
    """Return content and rest of what follows a DATA line; None where the end is not there."""
    line_start = 0
    for at in range(len(octets)):
        if octets[at - 1 : at + 1] == b"\r\n" and at:
            if octets[line_start : at + 1] == b".\r\n":
                return octets[:line_start], octets[at + 1 :]
            line_start = at + 1
    return None


def stuffed(content: bytes) -> bytes:
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


def unstuffed(octets: bytes) -> bytes:
    lines = octets.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


def read(*chunks: bytes, max_bytes: int = PLENTY) -> tuple[Collector, bytes | None]:
    """Feed a reader until it has found the end; return what it gathered and what was left."""
    collector = Collector(max_bytes, is_strict=True)
    reader = DataReader(collector)
    for number, chunk in enumerate(chunks):
        rest = reader.feed(chunk)
        if rest is not None:
            return collector, rest + b"".join(chunks[number + 1 :])
    return collector, None


def is_clean(collector: Collector) -> bool:
    return collector.refusal() not in (Refusal.BARE_LINE_ENDS, Refusal.NUL)


def taken(collector: Collector) -> bytes:
    return collector.content().octets


# The end of DATA.


@given(st.data(), _octets)
def test_reader_agrees_with_reading_octet_by_octet(data: st.DataObject, octets: bytes) -> None:
    collector, rest = read(*data.draw(cut(octets)))
    expected = end_of_data(octets)
    assert rest == (None if expected is None else expected[1])
    if expected is not None:
        assert taken(collector) == (expected[0] if collector.is_acceptable else b"")
        assert collector.size_bytes == len(expected[0])
        assert is_clean(collector) is should_be_clean(expected[0])


def test_every_short_content_is_read_alike_over_every_cut_in_two_and_octet_by_octet() -> None:
    for length in range(6):
        for octets in map(bytes, itertools.product(b"\r\n.a", repeat=length)):
            sent = octets + b"\r\n.\r\n"
            content, rest = end_of_data(sent) or (b"", b"")
            cuts = [[sent[:at], sent[at:]] for at in range(len(sent))]
            for chunks in [*cuts, [sent[at : at + 1] for at in range(len(sent))]]:
                collector, found = read(*chunks)
                assert found == rest, chunks
                assert is_clean(collector) is should_be_clean(content), chunks
                if is_clean(collector):
                    relayed = collector.content()
                    assert relayed.for_bdat() == unstuffed(content), chunks
                    assert relayed.for_data() == content + b".\r\n", chunks


@given(_lines, _octets, st.data())
def test_content_and_what_follows_are_told_apart_over_any_split(
    content: bytes, following: bytes, data: st.DataObject
) -> None:
    octets = stuffed(content) + b".\r\n" + following
    collector, rest = read(*data.draw(cut(octets)))
    assert rest == following
    assert collector.content().for_bdat() == content
    assert is_clean(collector)


def test_every_split_in_three_finds_the_same_end() -> None:
    octets = b"a\r\n..\r\n\r\nb\r\n.\r\nRSET\r\n"
    for first in range(len(octets) + 1):
        for second in range(first, len(octets) + 1):
            collector, rest = read(octets[:first], octets[first:second], octets[second:])
            assert rest == b"RSET\r\n"
            assert taken(collector) == b"a\r\n..\r\n\r\nb\r\n"


def test_content_may_be_empty() -> None:
    collector, rest = read(b".\r\nQUIT\r\n")
    assert (taken(collector), rest) == (b"", b"QUIT\r\n")
    assert is_clean(collector)


def test_content_of_dots_only() -> None:
    content = b".\r\n..\r\n...\r\n"
    collector, rest = read(stuffed(content) + b".\r\n")
    assert rest == b""
    assert collector.content().for_bdat() == content


# Smuggling (CVE-2023-51764 and its family): what is no CRLF.CRLF must not end DATA.

_NO_END = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r\n.\0\r\n",
    b"\r\n\0.\r\n",
    b"\0\r\n.\n",
    b"\r\0\n.\r\n",
    b"\r\r\n.\n",
    b"\r\n.\r\r\n",
]


@pytest.mark.parametrize("fake_end", _NO_END)
def test_smuggled_end_ends_nothing_wherever_it_is_split(fake_end: bytes) -> None:
    content = b"Subject: a\r\n\r\nb" + fake_end + b"MAIL FROM:<evil@example.com>\r\n"
    octets = content + b".\r\nNOOP\r\n"
    for at in range(len(octets) + 1):
        collector, rest = read(octets[:at], octets[at:])
        assert rest == b"NOOP\r\n"
        assert taken(collector) == (content if collector.is_acceptable else b"")
        assert is_clean(collector) is should_be_clean(content)


@pytest.mark.parametrize("fake_end", _NO_END)
def test_smuggled_end_at_the_very_start(fake_end: bytes) -> None:
    for at in range(len(fake_end) + 1):
        _, rest = read(fake_end[:at], fake_end[at:])
        assert rest is None


@pytest.mark.parametrize("fake_end", [end for end in _NO_END if not should_be_clean(end)])
def test_smuggled_end_in_bdat_is_noticed_across_chunks(fake_end: bytes) -> None:
    octets = b"a" + fake_end + b"MAIL\r\n"
    for at in range(len(octets) + 1):
        collector = Collector(PLENTY, is_strict=True)
        collector.add(octets[:at])
        collector.add(octets[at:])
        assert not is_clean(collector)


# Line ends.


@given(st.data(), _octets)
def test_line_ends_agree_with_looking_at_each(data: st.DataObject, octets: bytes) -> None:
    collector = Collector(PLENTY, is_strict=True)
    for chunk in data.draw(cut(octets)):
        collector.add(chunk)
    assert is_clean(collector) is should_be_clean(octets)


@pytest.mark.parametrize(
    ("chunks", "clean"),
    [
        ([], True),
        ([b""], True),
        ([b"a\r", b"\nb"], True),
        ([b"\r", b"", b"\n"], True),
        ([b"\r", b"\n\r", b"\n"], True),
        ([b"a\r", b"b\n"], False),
        ([b"\r", b"\r\n"], False),
        ([b"a\r"], False),
        ([b"\n"], False),
        ([b"\n\r"], False),
        ([b"a", b"\n"], False),
        ([b"a\r\n", b"\n"], False),
        ([b"\n", b"\r\n"], False),
    ],
)
def test_line_ends_at_chunk_borders(chunks: list[bytes], clean: bool) -> None:
    collector = Collector(PLENTY, is_strict=True)
    for chunk in chunks:
        collector.add(chunk)
    assert is_clean(collector) is clean


# Gathering.


@given(st.data(), _octets, st.integers(0, 30))
def test_collector_keeps_up_to_its_limit_and_counts_beyond(
    data: st.DataObject, octets: bytes, limit: int
) -> None:
    collector = Collector(limit, is_strict=True)
    for chunk in data.draw(cut(octets)):
        collector.add(chunk)
    assert collector.size_bytes == len(octets)
    assert collector.is_too_large is (len(octets) > limit)
    if collector.refusal() is None:
        ends_well = not octets or octets.endswith(b"\r\n")
        expected = octets if ends_well else octets + b"\r\n"
        assert collector.content() == Content(expected, is_stuffed=False)
        assert is_clean(collector) is should_be_clean(octets)


def test_beyond_the_limit_nothing_is_kept() -> None:
    collector = Collector(10, is_strict=True)
    for chunk in [b"x" * 8, b"y" * 8, b"z" * 8]:
        collector.add(chunk)
    assert collector.content().octets == b""
    assert collector.size_bytes == 24


def test_end_of_data_is_found_behind_content_over_the_limit() -> None:
    collector, rest = read(b"x" * 100, b"\r\n", b".\r", b"\nNOOP\r\n", max_bytes=10)
    assert rest == b"NOOP\r\n"
    assert collector.is_too_large
    assert collector.size_bytes == 102


def test_missing_crlf_at_the_end_of_bdat_is_added() -> None:
    collector = Collector(PLENTY, is_strict=True)
    collector.add(b"a\r\nb")
    assert collector.content().octets == b"a\r\nb\r\n"


# From DATA or BDAT to DATA or BDAT.


@given(_lines)
def test_for_data_stuffs_each_line_and_ends_with_a_dot(content: bytes) -> None:
    assert Content(content, is_stuffed=False).for_data() == stuffed(content) + b".\r\n"
    assert Content(stuffed(content), is_stuffed=True).for_data() == stuffed(content) + b".\r\n"


@given(_lines)
def test_for_bdat_takes_one_dot_from_each_line(octets: bytes) -> None:
    assert Content(octets, is_stuffed=True).for_bdat() == unstuffed(octets)
    assert Content(octets, is_stuffed=False).for_bdat() == octets


@given(_lines)
def test_content_survives_every_hop(content: bytes) -> None:
    by_data = Content(content, is_stuffed=False).for_data()
    collector, rest = read(by_data)
    assert rest == b""
    again = collector.content()
    assert again.for_bdat() == content
    assert again.for_data() == by_data


@given(st.data(), _octets)
def test_content_in_chunks_is_judged_and_relayed_as_if_it_came_whole(
    data: st.DataObject, octets: bytes
) -> None:
    stuffed_octets = stuffed(octets) + (b"" if octets.endswith(b"\r\n") or not octets else b"\r\n")
    if b"\r\n.\r\n" in b"\r\n" + stuffed_octets:
        return
    collector, rest = read(*data.draw(cut(stuffed_octets + b".\r\nQUIT\r\n")))
    assert rest is not None
    assert is_clean(collector) is should_be_clean(stuffed_octets)
    if is_clean(collector):
        content = collector.content()
        assert content.for_bdat() == unstuffed(stuffed_octets)
        assert content.for_data() == stuffed_octets + b".\r\n"


def test_empty_content() -> None:
    for is_stuffed in (True, False):
        content = Content(b"", is_stuffed)
        assert (content.for_data(), content.for_bdat()) == (b".\r\n", b"")


# Content that is framed for DATA while it arrives.


@given(st.data(), _lines, st.booleans())
def test_framing_in_chunks_is_what_the_whole_would_be(
    data: st.DataObject, content: bytes, is_stuffed: bool
) -> None:
    octets = stuffed(content) if is_stuffed else content
    framing = DataFraming(is_stuffed=is_stuffed)
    framed = b"".join(framing.feed(chunk) for chunk in data.draw(cut(octets)))
    assert framed + framing.finish() == Content(octets, is_stuffed).for_data()


@pytest.mark.parametrize("is_stuffed", [True, False])
@pytest.mark.parametrize("content", [b"", b".\r\n", b"\r\n.\r\n..\r\n", b"a\r\n.b\r\n\r\n.\r\n"])
def test_framing_is_the_same_over_every_chunking(content: bytes, is_stuffed: bool) -> None:
    octets = stuffed(content) if is_stuffed else content
    whole = Content(octets, is_stuffed).for_data()
    for cuts in range(1 << max(0, len(octets) - 1)):
        framing = DataFraming(is_stuffed=is_stuffed)
        framed, at = b"", 0
        for end in [*(n + 1 for n in range(len(octets) - 1) if cuts >> n & 1), len(octets)]:
            framed += framing.feed(octets[at:end])
            at = end
        assert framed + framing.finish() == whole


@given(st.data(), _octets)
def test_framing_ends_with_a_dot_on_a_line_of_its_own(data: st.DataObject, octets: bytes) -> None:
    framing = DataFraming(is_stuffed=False)
    framed = b"".join(framing.feed(chunk) for chunk in data.draw(cut(octets)))
    assert b"\r\n.\r\n" not in b"\r\n" + framed
    framed += framing.finish()
    assert (b"\r\n" + framed).endswith(b"\r\n.\r\n")
    assert (b"\r\n" + framed).count(b"\r\n.\r\n") == 1


@given(st.data(), _octets)
def test_collector_gives_everything_once_however_it_is_taken(
    data: st.DataObject, octets: bytes
) -> None:
    collector = Collector(PLENTY, is_strict=True)
    taken_so_far = b""
    for chunk in data.draw(cut(octets)):
        collector.add(chunk)
        if data.draw(st.booleans()):
            taken_so_far += collector.take()
            assert not taken_so_far.endswith(b"\r")
            assert collector.held_bytes < 2
    if collector.refusal() is None:
        assert taken_so_far + collector.take() == octets


# The message's own name.


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (b"Subject: a\r\nMessage-ID: <1@x>\r\n\r\nb\r\n", "<1@x>"),
        (b"MESSAGE-ID:\t<2@x>\r\n\r\n", "<2@x>"),
        (b"X-Message-ID: <3@x>\r\n\r\n", ""),
        (b"Subject: a\r\n\r\nMessage-ID: <4@x>\r\n", ""),
        (b"Message-ID: <\xff@x>\r\n", "<�@x>"),
        (b"", ""),
        (b"X: " + b"x" * 20_000 + b"\r\nMessage-ID: <5@x>\r\n", ""),
    ],
)
def test_message_id_is_looked_for_near_the_start_of_the_header(octets: bytes, found: str) -> None:
    assert message_id(octets) == found
