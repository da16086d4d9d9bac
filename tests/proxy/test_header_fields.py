"""A header in its fields: what is found, and that an edit leaves every other octet as it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.smtp.header_fields import Field, Header, begins_with_field, stuffed, unstuffed

NAMES = ("from", "to")
TEN_LINES = b"From:\r\n" + b"".join(b" part%d\r\n" % n for n in range(9)) + b" <a@x.example>\r\n"
_octets = st.lists(
    st.sampled_from(
        [
            *(b"From", b"from ", b">From ", b"X-Y", b"Received", b"a@x.example", b"\xef\xbb\xbf"),
            *(b":", b" ", b"\t", b"\r\n", b"\r\n ", b"\r\n\t", b".", b"\0", b"\xff"),
        ]
    ),
    max_size=30,
).map(b"".join)


@pytest.mark.parametrize(
    ("block", "fields", "remainder"),
    [
        (b"", [], b""),
        (b"From: a\r\nTo: b\r\n", ["from", "to"], b""),
        (b"X: a\r\nFrom: a\r\nY: b\r\n c\r\nTo: b\r\nZ: c\r\n", ["from", "to"], b""),
        (b"FROM:a\r\n", ["from"], b""),
        (b"From : a\r\nfrOM\t \t: b\r\n", ["from", "from"], b""),
        (TEN_LINES + b"To: b\r\n", ["from", "to"], b""),
        (b"From: a\r\n \r\n\t\r\nTo: b\r\n", ["from", "to"], b""),
        (b"X: a\r\n From: b\r\nTo: b\r\n", ["to"], b""),
        (b"From:\r\nTo:\r\n", ["from", "to"], b""),
        (b"From: a\r\n b", ["from"], b""),
        ("Betreff-Ü: x\r\nTo: ü\r\n".encode(), ["to"], b""),
        (b"\xef\xbb\xbfFrom: a\r\n", ["from"], b""),
        (b"Fr\xef\xbb\xbfom: a\r\nX-From: a\r\nFromm: a\r\nTo: b\r\n", ["to"], b""),
        (b"Received: From: a\r\n b\r\nFrom: a\r\n", ["from"], b""),
        (b"no field\r\nFrom: a\r\n", [], b"no field\r\nFrom: a\r\n"),
        (b"To: b\r\nno field\r\nFrom: a\r\n", ["to"], b"no field\r\nFrom: a\r\n"),
        (b" folded\r\nFrom: a\r\n", [], b" folded\r\nFrom: a\r\n"),
        (b": a\r\n", [], b": a\r\n"),
        (b"From a@x Sat Jan  1 10:00:00 2000\r\nTo: b\r\n", ["to"], b""),
        (b">From a@x Sat Jan  1 10:00:00 2000\r\nTo: b\r\n", ["to"], b""),
        (b"From a@x Sat Jan  1 10:00:00 2000\r\n To: b\r\n", [], b" To: b\r\n"),
        (b"To: b\r\nFrom a@x\r\n", ["to"], b"From a@x\r\n"),
        (b"From\0: a\r\n", [], b"From\0: a\r\n"),
    ],
)
def test_fields_are_found(block: bytes, fields: list[str], remainder: bytes) -> None:
    header = Header(block, NAMES)
    assert [field.name for field in found(header)] == fields
    assert header.remainder == remainder
    assert header.octets == block


def test_a_value_is_unfolded_and_its_octets_are_kept() -> None:
    (field,) = Header(b'From :\t"a\r\n  b"\r\n\t<a@x.example>  \r\n', NAMES).named("from")
    assert field.value == b'"a  b"\t<a@x.example>'
    assert field.raw_value == b'\t"a\r\n  b"\r\n\t<a@x.example>  '


@pytest.mark.parametrize(
    ("remainder", "is_found"),
    [
        (b"text\r\nFrom: a\r\n", True),
        (b"text\r\n FROM \t: a\r\n", True),
        (b"text\r\nFrom\0: a\r\n", True),
        (b"\xff\x0bFrom: a\r\n", True),
        (b"text\r\nSender: a\r\n", True),
        (b"text\r\nX-From: a\r\nfrom: nobody", True),
        (b"text\r\nX-From: a\r\nFrom the start\r\n", False),
        (b"text: From\r\n", False),
        (b"", False),
    ],
)
def test_a_field_behind_a_line_that_is_none_is_found(remainder: bytes, is_found: bool) -> None:
    header = Header(b"To: b\r\nno field\r\n" + remainder, NAMES)
    assert header.has_in_remainder(("from", "sender")) is is_found


def found(header: Header) -> list[Field]:
    return [part for part in header._parts if part.name]


@given(_octets)
def test_what_is_split_is_the_same_when_joined(block: bytes) -> None:
    header = Header(block, NAMES)
    assert header.octets == block
    for field in found(header):
        assert field.name in field.octets.lower().decode("latin-1")
        assert len(field.octets.split(b"\n")) > 1 or block.endswith(field.octets)


@given(_octets)
def test_fields_are_those_that_reading_line_by_line_finds(block: bytes) -> None:
    block = re.sub(rb"(?:\r\n)+", b"\r\n", block).removeprefix(b"\r\n")
    names: list[str] = []
    lines = block.splitlines(keepends=True) if b"\r" in block else [block] * bool(block)
    ends_at = 0
    for number, line in enumerate(lines):
        name, colon, _ = line.partition(b":")
        name = name.rstrip(b" \t")
        is_field = bool(colon and name) and all(33 <= octet != 127 for octet in name)
        is_separator = number == 0 and line.removeprefix(b">").startswith(b"From ")
        is_folded = line[:1] in (b" ", b"\t") and (number > 1 or (names or [""])[-1] != "separator")
        if is_field:
            names.append(name.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lower())
        elif is_separator:
            names.append("separator")
        elif not (is_folded and names):
            break
        ends_at += len(line)
    header = Header(block, NAMES)
    assert [field.name for field in found(header)] == [one for one in names if one in NAMES]
    assert header.remainder == block[ends_at:]


@given(_octets, st.data())
def test_an_edit_leaves_every_other_octet(block: bytes, data: st.DataObject) -> None:
    header = Header(block, NAMES)
    if not found(header):
        return
    field = data.draw(st.sampled_from(found(header)))
    at = header._parts.index(field)
    before = b"".join(one.octets for one in header._parts[:at])
    after = block[len(before) + len(field.octets) :]
    new = header.replace(field, b"X: new\r\n")
    assert header.octets == before + b"X: new\r\n" + after
    header.insert("y", b"Y: z\r\n", after=new)
    assert header.octets == before + b"X: new\r\nY: z\r\n" + after
    header.remove([new])
    assert header.octets == before + b"Y: z\r\n" + after


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"", b"N: v\r\n"),
        (b"To: b\r\n", b"N: v\r\nTo: b\r\n"),
        (
            b"From x 1:00\r\nReturn-Path: <>\r\nReceived: a\r\n b\r\nTo: b\r\nReceived: c\r\n",
            b"From x 1:00\r\nReturn-Path: <>\r\nReceived: a\r\n b\r\nN: v\r\nTo: b\r\n"
            b"Received: c\r\n",
        ),
        (b"Received: a", b"Received: a\r\nN: v\r\n"),
        (b"just text\r\n", b"N: v\r\n\r\njust text\r\n"),
        (b"From x 1:00\r\njust text\r\n", b"From x 1:00\r\nN: v\r\n\r\njust text\r\n"),
        (b"To: b\r\njust text\r\n", b"N: v\r\nTo: b\r\njust text\r\n"),
    ],
)
def test_a_new_field_comes_first_but_for_trace_fields(block: bytes, expected: bytes) -> None:
    header = Header(block, NAMES)
    header.insert("n", b"N: v\r\n")
    assert header.octets == expected


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        (b"From: a\r\n", True),
        (b"X :\r\n", True),
        (b"From a@x 1:00\r\n", True),
        (b"text\r\n", False),
        (b" x: y\r\n", False),
        (b"\r\n", False),
    ],
)
def test_a_first_line_tells_whether_there_is_a_header(line: bytes, begins: bool) -> None:
    assert begins_with_field(line) is begins


_lines = st.lists(st.sampled_from([b"", b".", b"..x", b"a", b".From: a", b"a.b"])).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@given(_lines)
def test_dots_are_put_before_lines_and_taken_away(octets: bytes) -> None:
    expected = b"".join(
        b"." * line.startswith(b".") + line for line in octets.splitlines(keepends=True)
    )
    assert stuffed(octets) == expected
    assert unstuffed(expected) == octets
