"""The From field that the relay writes: read back by Python's parser, and folded."""

from __future__ import annotations

import email
from email import policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.smtp.from_field import from_field, is_harmless_name, phrase

ADDRESS = "scanner@x.example"


def test_a_short_field_is_one_line() -> None:
    assert from_field("", ADDRESS) == b"From: scanner@x.example\r\n"
    assert from_field("Third floor", ADDRESS) == b"From: Third floor <scanner@x.example>\r\n"
    assert (
        from_field(phrase("Floor, 3rd"), ADDRESS) == b'From: "Floor, 3rd" <scanner@x.example>\r\n'
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("", ""),
        ("Scanner", "Scanner"),
        ("  Third\t floor ", "Third floor"),
        ("Floor 2.1", '"Floor 2.1"'),
        ('the "old" one\\', '"the \\"old\\" one\\\\"'),
        ("a@b.example", '"a@b.example"'),
        ("Büro", "=?utf-8?B?QsO8cm8=?="),
        ("=?x?", "=?utf-8?B?PT94Pw==?="),
    ],
)
def test_a_name_is_quoted_or_encoded_only_if_it_must_be(name: str, written: str) -> None:
    assert phrase(name) == written


_names = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"]), min_size=1, max_size=200
).filter(lambda name: name.isprintable() and name.strip())


@given(_names)
def test_any_name_is_read_back_and_its_lines_are_short(name: str) -> None:
    octets = from_field(phrase(name), ADDRESS)
    assert octets.isascii()
    assert octets.endswith(b"\r\n")
    lines = octets.split(b"\r\n")[:-1]
    words = [len(word) for line in lines for word in line.split(b" ")]
    assert all(len(line) <= 78 or max(words) > 70 for line in lines)
    assert all(line.strip() for line in lines)
    assert all(line.startswith(b" ") for line in lines[1:])
    assert max(len(line) for line in lines) <= 998
    field = email.message_from_bytes(octets + b"\r\n", policy=policy.default)["from"]
    (address,) = field.addresses
    assert address.addr_spec == ADDRESS
    read = address.display_name
    if "=?" in phrase(name):  # Python's parser puts spaces between encoded words, unlike RFC 2047
        read = str(make_header(decode_header(phrase(name))))
    assert read == " ".join(name.split())


@pytest.mark.parametrize(
    ("name", "is_harmless"),
    [
        ("", True),
        ("Scanner", True),
        ('"A, B"', True),
        ("=?utf-8?q?A=2C_B?=", True),
        ("M\udcfcller", True),
        ("boss@x.example", False),
        ('"boss@x.example"', False),
        ("boss\uff20x.example", False),
        ("=?utf-8?q?boss=40x?=", False),
        ("=?utf-8?B?Ym9zc0B4?=", False),
        ("=?utf-8?B?Ym9zc0B4", True),  # not an encoded word, so shown as it stands
        ("=?no-such-charset?q?a?=", False),
        ("=?utf-8?B?a?=", False),
        ('"a\\ b"', False),
        ("x" * 901, False),
    ],
)
def test_a_name_that_could_show_another_address_is_not_kept(name: str, is_harmless: bool) -> None:
    assert is_harmless_name(name) is is_harmless
