"""The mailboxes of a From field: read strictly, before any decoding, and as others read them."""

from __future__ import annotations

import email
from email import policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.smtp.mailbox_list import (
    Mailbox,
    NotMailboxes,
    parse_mailboxes,
    split_address,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@x.example", [("", "a@x.example")]),
        ("<a@x.example>", [("", "a@x.example")]),
        ("A B <a@x.example>", [("A B", "a@x.example")]),
        ("Scanner 2.Floor <a@x.example>", [("Scanner 2.Floor", "a@x.example")]),
        ('"A, B" <a@x.example>', [('"A, B"', "a@x.example")]),
        ('"A \\" <b@y>" <a@x.example>', [('"A \\" <b@y>"', "a@x.example")]),
        ('"b@y" <a@x.example>', [('"b@y"', "a@x.example")]),
        ("a@x.example <a@x.example>", [("a@x.example", "a@x.example")]),
        ("(b@y) a@x.example (c (d@z) \\) e)", [("", "a@x.example")]),
        ("<a@x.example (c)>", [("", "a@x.example")]),
        ("A (b, <c@y>) <a@x.example>", [("A (b, <c@y>)", "a@x.example")]),
        (
            "=?utf-8?q?A=2C_=3Cb=40y=3E?= <a@x.example>",
            [("=?utf-8?q?A=2C_=3Cb=40y=3E?=", "a@x.example")],
        ),
        ("a@x.example, B <b@y.example>", [("", "a@x.example"), ("B", "b@y.example")]),
        (", a@x.example,, b@y.example ,", [("", "a@x.example"), ("", "b@y.example")]),
        ("Müller <ü@ä.example>", [("Müller", "ü@ä.example")]),
        ('"a b"@x.example', [("", '"a b"@x.example')]),
        ("a@[192.0.2.1]", [("", "a@[192.0.2.1]")]),
        ("..a..@x.example", [("", "..a..@x.example")]),
        ("", []),
        (" , ,", []),
        ("(nobody)", []),
    ],
)
def test_mailboxes_are_read(value: str, expected: list[tuple[str, str]]) -> None:
    assert parse_mailboxes(value.encode()) == [Mailbox(*one) for one in expected]


@pytest.mark.parametrize(
    "value",
    [
        *("Undisclosed:;", "A: a@x.example;", "a@x.example;", ":", "A :) <a@x.example>"),
        *("Scanner", "a", "@x.example", "a@", "<>", "A <>", "a@x.example b@y.example"),
        *("<a@x.example", "a@x.example>", "A <a@x.example> B", "<<a@x.example>>", "<a@x><b@y>"),
        *("b@y.example <a@x.example>", "b@y, c <a@x.example> d@z", "A <b@y.example, a@x.example>"),
        *("<@y.example:a@x.example>", "a@b@x.example", "a @x.example", "a@ x.example"),
        *("a(c)@x.example", "a@(c)x.example", '"a".b@x.example'),
        *("(open a@x.example", "a@x.example)", '"open <a@x.example>', "A \\ <a@x.example>"),
        *("a\0@x.example", "a@x.example\0", "\x1b$B <a@x.example>", "a@x.example\r", "a\x7f@x"),
        *("=?utf-8?q?a=40y=2Eexample?=", "=?utf-8?q?a=40y?=@x.example", "a@=?utf-8?q?y?="),
        *("a\xa0@x.example", "a@x\u2028.example", "a\u200b@x.example"),
        *("a@x.example.", "a@.x.example", "a@x..example", "a@."),
        *("A [b] <a@x.example>", "[192.0.2.1]", "a@[192.0.2.1"),
    ],
)
def test_what_readers_may_take_differently_is_refused(value: str) -> None:
    with pytest.raises(NotMailboxes):
        parse_mailboxes(value.encode())


def test_octets_that_are_no_utf8_may_stand_in_a_name_only() -> None:
    (mailbox,) = parse_mailboxes(b"M\xfcller <a@x.example>")
    assert mailbox.name.encode("utf-8", "surrogateescape") == b"M\xfcller"
    with pytest.raises(NotMailboxes):
        parse_mailboxes(b"M\xfcller@x.example")


def test_a_value_that_would_keep_others_waiting_is_not_read() -> None:
    with pytest.raises(NotMailboxes, match="too long"):
        parse_mailboxes(b"(" * 4097)
    with pytest.raises(NotMailboxes, match="malformed"):
        parse_mailboxes(b"(" * 4096)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a@x.example", ("a", "x.example", False)),
        ('"a"@x.example', ("a", "x.example", False)),
        ('"a\\"b@y"@x.example', ('a"b@y', "x.example", True)),
        ('""@x.example', ("", "x.example", True)),
        ("a@[192.0.2.1]", ("a", "[192.0.2.1]", False)),
        ("postmaster", None),
        ("a@b@x.example", None),
        ("", None),
    ],
)
def test_an_address_has_a_local_part_and_a_domain(
    address: str, expected: tuple[str, str, bool] | None
) -> None:
    assert split_address(address) == expected


_values = st.lists(
    st.sampled_from(
        [*("a@x.example", "b@y.example", "A", "ü", "=?utf-8?q?c=40z=2C?="), *' ,<>()"\\:;@.[]\t']
    ),
    max_size=12,
).map("".join)


@given(_values)
def test_what_is_read_is_what_python_reads(value: str) -> None:
    """Python's parser guesses at much that is refused here; what is not refused it reads alike."""
    try:
        mailboxes = parse_mailboxes(value.encode())
    except NotMailboxes:
        return
    parsed = email.message_from_bytes(
        b"From: " + value.encode() + b"\r\n\r\n", policy=policy.default
    )
    theirs = [
        one.addr_spec.encode("utf-8", "surrogateescape").decode()
        for one in parsed["from"].addresses
        if one.addr_spec != "<>"
    ]
    assert theirs == [one.address for one in mailboxes]
