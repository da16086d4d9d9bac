"""The header of a message whose login has rules: passed, refused, or rewritten octet by octet."""

from __future__ import annotations

import email
import re
from email import policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.corpus import real_messages
from tests.support.sender_oracle import (
    assert_no_reader_finds_another,
    assert_only_three_fields_changed,
    assert_passes_as_it_is,
    checked_or_none,
    others,
)
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules, sender_rules
from xoauth2_proxy.smtp.protocol import Envelope
from xoauth2_proxy.submission.sender_check import SenderCheck, SenderRefused, checked_header

OWN = "own@x.example"
MAY = "; this login may send as own@x.example, *@ours.example"


def rules(*senders: str, **rule: object) -> SenderRules:
    found = sender_rules(senders, FromRule(**rule))  # type: ignore[arg-type]
    assert found is not None
    return found


CHECKED = rules(OWN, "*@ours.example")
REWRITTEN = rules(OWN, "*@ours.example", rewrite=OWN)
ANSWERED = rules(OWN, "*@ours.example", rewrite=OWN, reply_to=True)
NAMED = rules(display_name="Third floor")
ANY_BUT_FILLED = rules("*", rewrite=OWN)


def refusal(block: bytes, held_to: SenderRules = CHECKED) -> str:
    with pytest.raises(SenderRefused) as caught:
        checked_header(block, held_to)
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (550, "5.7.1")
    (text,) = caught.value.reply.text
    return text


@pytest.mark.parametrize(
    "block",
    [
        b"From: own@x.example\r\n",
        b"FROM:OWN@X.EXAMPLE\r\n",
        b'To: b\r\nFrom : "A, B"\r\n <any@ours.example>\r\nX: y\r\n',
        b"From:\r\n" + b" (a)\r\n" * 10 + b" own@x.example\r\n",
        b"From: =?utf-8?q?A=2C_=3Cb=40y=3E?= <own@x.example>\r\n",
        b"From: M\xc3\xbcller <own@x.example>\r\n",
        b"From: M\xfcller <own@x.example>\r\n",
        b"From: own@x.example, a@ours.example\r\nSender: own@x.example\r\n",
        b"Sender: a@ours.example\r\nFrom: own@x.example\r\n",
        b"From: own@x.example\r\nResent-From: b@y.example\r\nResent-Sender: c@y\r\n",
        b"From: own@x.example\r\nDKIM-Signature: v=1\r\n",
        b"From: own@x.example\r\nno field\r\nReply-To: b@y.example\r\n",
        b"From own@x.example 1:00\r\nFrom: own@x.example\r\n",
        b"From: own@x.example",
    ],
)
@pytest.mark.parametrize("held_to", [CHECKED, REWRITTEN, ANSWERED])
def test_what_is_allowed_is_not_touched(block: bytes, held_to: SenderRules) -> None:
    assert checked_header(block, held_to) is block


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (b"", "The message has no From field"),
        (b"Subject: x\r\n", "The message has no From field"),
        (b"no header at all\r\n", "The message has no From field"),
        (b"From: own@x.example\r\nfrom : own@x.example\r\n", "The message has several From fields"),
        (b"From: b@y.example\r\n", "b@y.example in From is not allowed"),
        (b"From:\r\n A\r\n <b@y.example>\r\n", "b@y.example in From is not allowed"),
        (b"From: own@x.example (b), b@y.example\r\n", "b@y.example in From is not allowed"),
        ("From: ü@y.example\r\n".encode(), "ü@y.example in From is not allowed"),
        (b"\xef\xbb\xbfFrom: b@y.example\r\n", "b@y.example in From is not allowed"),
        (
            b"From: a@ours.example, b@ours.example\r\n",
            "From has several addresses, and there is no Sender field",
        ),
        (b"From: A:own@x.example;\r\n", "The From field is a group of addresses or malformed"),
        (b"From: undisclosed:;\r\n", "The From field is a group of addresses or malformed"),
        (b"From: Scanner\r\n", "The From field is malformed"),
        (b"From: =?utf-8?q?own=40x=2Eexample?=\r\n", "The From field is malformed"),
        (b"From: b@y.example <own@x.example>\r\n", "The From field is malformed"),
        (b"From:\r\n", "The From field has no address"),
        (b"From: ,\r\n", "The From field has no address"),
        (b"From: own@x.example" + b"," * 4096 + b"\r\n", "The From field is too long"),
        (b"From: own@x.example\r\nSender: b@y.example\r\n", "b@y.example in Sender is not allowed"),
        (b"From: own@x.example\r\nSender:\r\n", "The Sender field has no address"),
        (
            b"From: own@x.example\r\nSender: own@x.example, a@ours.example\r\n",
            "The Sender field has several addresses",
        ),
        (
            b"Sender: own@x.example\r\nFrom: own@x.example\r\nSender: own@x.example\r\n",
            "The message has several Sender fields",
        ),
        (
            b"From: own@x.example\r\nno field\r\nFrom: b@y.example\r\n",
            "A From or Sender field follows a line that is no header field",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_in_clear_words(block: bytes, fault: str) -> None:
    assert refusal(block) == fault + MAY


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"", b"From: own@x.example\r\n"),
        (b"Subject: x\r\n", b"From: own@x.example\r\nSubject: x\r\n"),
        (b"no header\r\nFrom: b@y\r\n", b"From: own@x.example\r\n\r\nno header\r\nFrom: b@y\r\n"),
        (
            b"A:  b \r\n\tc\r\nfRom : b@y.example\r\nZ:z",
            b"A:  b \r\n\tc\r\nFrom: own@x.example\r\nZ:z",
        ),
        (b"From: b@y.example", b"From: own@x.example\r\n"),
        (
            b"From: own@x.example\r\nTo: t\r\nFrom: b@y.example\r\n",
            b"From: own@x.example\r\nTo: t\r\n",
        ),
        (b"From: Bee\r\n\t<b@y.example>\r\n", b"From: Bee <own@x.example>\r\n"),
        (b"From: =?utf-8?q?B=2C?= <b@y>\r\n", b"From: =?utf-8?q?B=2C?= <own@x.example>\r\n"),
        (b"From: M\xfcller <b@y.example>\r\n", b"From: M\xfcller <own@x.example>\r\n"),
        (b'From: "b@y.example" <b@y.example>\r\n', b"From: own@x.example\r\n"),
        (b"From: =?utf-8?q?b=40y?= <b@y.example>\r\n", b"From: own@x.example\r\n"),
        (b"From: undisclosed:;\r\n", b"From: own@x.example\r\n"),
        (b"From: a@ours.example, b@ours.example\r\n", b"From: own@x.example\r\n"),
        (
            b"From: own@x.example\r\nSender: b@y.example\r\nsender: own@x.example\r\nTo: t\r\n",
            b"From: own@x.example\r\nTo: t\r\n",
        ),
        (
            b"From: b@y.example\r\nSender: own@x.example\r\n",
            b"From: own@x.example\r\nSender: own@x.example\r\n",
        ),
        (
            b"From: a@ours.example, own@x.example\r\nSender: b@y.example\r\n",
            b"From: own@x.example\r\n",
        ),
        (
            b"Received: a\r\nTo: t\r\nno field\r\n",
            b"Received: a\r\nFrom: own@x.example\r\nTo: t\r\nno field\r\n",
        ),
    ],
)
def test_what_is_not_allowed_is_rewritten(block: bytes, expected: bytes) -> None:
    assert checked_header(block, REWRITTEN) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(b"From\xa0", b"from\xc2\xa0 ", b"Sender\xc2\x85\t", b"\xe2\x80\x8bFrom", b"\xa0Sender"),
        *(b"\xef\xbb\xbf\xef\xbb\xbfFrom", b"\xef\xbb\xbfFrom\xa0"),
    ],
)
@pytest.mark.parametrize("held_to", [CHECKED, REWRITTEN])
def test_a_name_that_some_readers_take_for_from_is_refused(
    name: bytes, held_to: SenderRules
) -> None:
    # Node's mailparser 3 reads a name as Latin-1, trims the no-break space, and takes the first.
    block = name + b": b@y.example\r\nX: a\r\nFrom: own@x.example\r\n"
    assert refusal(block, held_to).startswith("A field is named From or Sender, with characters")
    folded = b"From: own@x.example\r\nX: a\r\n " + name + b": b@y.example\r\n"
    assert checked_header(folded, held_to) is folded


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            b"From: Bee\r\n <b@y.example>\r\nTo: t\r\n",
            b"From: Bee <own@x.example>\r\nReply-To: Bee\r\n <b@y.example>\r\nTo: t\r\n",
        ),
        (
            b"From: a@y.example, b@y.example\r\n",
            b"From: own@x.example\r\nReply-To: a@y.example, b@y.example\r\n",
        ),
        (
            b"reply-TO: c@z.example\r\nFrom: b@y.example\r\n",
            b"reply-TO: c@z.example\r\nFrom: own@x.example\r\n",
        ),
        (b"From: Scanner\r\n", b"From: own@x.example\r\n"),
        (b"From: b@y\r\nFrom: c@y\r\n", b"From: own@x.example\r\n"),
        (b"To: t\r\n", b"From: own@x.example\r\nTo: t\r\n"),
        (b"From: b@y", b"From: own@x.example\r\nReply-To: b@y\r\n"),
    ],
)
def test_the_old_from_becomes_reply_to_on_request(block: bytes, expected: bytes) -> None:
    assert checked_header(block, ANSWERED) == expected


def test_reply_to_is_folded_where_its_line_would_be_too_long() -> None:
    value = b" " + b"(c) " * 245 + b"b@y.example"
    assert len(b"From:" + value) <= 998 < len(b"Reply-To:" + value)
    (first, second, _) = checked_header(b"From:" + value + b"\r\n", ANSWERED).split(b"\r\n")[1:]
    assert first == b"Reply-To:"
    assert second == b" " + value


@pytest.mark.parametrize(
    ("fields", "signature"),
    [
        (b"DKIM-Signature: v=1; h=from\r\n", "DKIM-Signature"),
        (b"dkim-signature : v=1\r\n", "DKIM-Signature"),
        (b"ARC-Message-Signature: i=1\r\n", "ARC-Message-Signature"),
        (b"Content-Type: multipart/signed; boundary=x\r\n", "multipart/signed"),
        (b"content-type:\r\n (c) Multipart / Signed;\r\n boundary=x\r\n", "multipart/signed"),
        (b"Content-Type: application/pkcs7-mime\r\n", "application/pkcs7-mime"),
        (b"Content-Type: application/X-PKCS7-MIME; name=x\r\n", "application/x-pkcs7-mime"),
    ],
)
@pytest.mark.parametrize("held_to", [REWRITTEN, ANSWERED])
def test_a_signed_message_is_refused_rather_than_rewritten(
    fields: bytes, signature: str, held_to: SenderRules
) -> None:
    words = refusal(b"From: b@y.example\r\n" + fields, held_to)
    assert words == (
        f"b@y.example in From is not allowed, and cannot be changed in a signed message "
        f"({signature}){MAY}"
    )
    assert refusal(fields, held_to).startswith("The message has no From field, and cannot")


@pytest.mark.parametrize(
    "kind", [b"multipart/signed-not", b"multipart/mixed", b"text/plain; x=multipart/signed"]
)
def test_what_is_not_signed_is_rewritten(kind: bytes) -> None:
    block = b"From: b@y\r\nContent-Type: " + kind + b"\r\n"
    assert checked_header(block, REWRITTEN).startswith(b"From: own@x.example\r\n")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"From: b@y.example\r\n", b"From: Third floor <b@y.example>\r\n"),
        (b"A: b\r\nFrom: Old\r\n <b@y>\r\nC: d", b"A: b\r\nFrom: Third floor <b@y>\r\nC: d"),
        (b"From: a@y, b@y\r\nSender: a@y\r\n", None),
        (b"From: a@y, b@y\r\n", None),
        (b"From: Scanner\r\n", None),
        (b"To: t\r\n", None),
        (b"From: b@y\r\nDKIM-Signature: v=1\r\n", None),
    ],
)
def test_a_name_alone_refuses_nothing(block: bytes, expected: bytes | None) -> None:
    changed = checked_header(block, NAMED)
    if expected is None:
        assert changed is block
    else:
        assert changed == expected


def test_a_name_stands_beside_the_rewritten_address_too() -> None:
    held_to = rules(rewrite=OWN, display_name="Büro", reply_to=True)
    assert checked_header(b"From: b@y\r\n", held_to) == (
        b"From: =?utf-8?B?QsO8cm8=?= <own@x.example>\r\nReply-To: b@y\r\n"
    )
    assert checked_header(b"From: own@x.example\r\n", held_to) == (
        b"From: =?utf-8?B?QsO8cm8=?= <own@x.example>\r\n"
    )


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"From: b@y\r\n", None),
        (b"From: b@y\r\nno field\r\nFrom: c@y\r\n", None),
        (b"DKIM-Signature: v=1\r\n", None),
        (b"To: t\r\n", b"From: own@x.example\r\nTo: t\r\n"),
        (b"From: Scanner\r\n", b"From: own@x.example\r\n"),
    ],
)
def test_where_every_sender_is_allowed_only_what_is_missing_is_filled_in(
    block: bytes, expected: bytes | None
) -> None:
    checked = checked_header(block, ANY_BUT_FILLED)
    assert checked == (block if expected is None else expected)


# MAIL.


@pytest.mark.parametrize(
    ("sender", "held_to", "becomes"),
    [
        ("OWN@x.example", CHECKED, "OWN@x.example"),
        ("a@ours.example", REWRITTEN, "a@ours.example"),
        ("", CHECKED, ""),
        ("", REWRITTEN, ""),
        ("b@y.example", REWRITTEN, OWN),
        ("postmaster", REWRITTEN, OWN),
        ("b@y.example", NAMED, "b@y.example"),
    ],
)
def test_the_sender_in_mail_is_kept_or_rewritten(
    sender: str, held_to: SenderRules, becomes: str
) -> None:
    envelope = Envelope(sender)
    SenderCheck(held_to, envelope)
    assert envelope == Envelope(becomes)


def test_another_sender_in_mail_is_refused() -> None:
    with pytest.raises(SenderRefused) as caught:
        SenderCheck(CHECKED, Envelope("b@y.example"))
    assert str(caught.value.reply) == (
        "550 5.7.1 The sender b@y.example is not allowed; "
        "this login may send as own@x.example, *@ours.example"
    )
    assert caught.value.sender == "b@y.example"


def test_an_address_that_needs_smtputf8_asks_for_it() -> None:
    envelope = Envelope("b@y.example")
    SenderCheck(rules(rewrite="ü@x.example"), envelope)
    assert envelope == Envelope("ü@x.example", smtputf8=True)


# Any header.

_FIELD_STARTS = [
    *(b"From:", b"from :", b"FROM\t:", b"Sender:", b"Reply-To:", b"To:", b"X-Y :", b"Resent-From:"),
    *(b"From ", b"no field", b"\xc3\x9c:", b"\xef\xbb\xbfFrom:", b"Received:", b""),
    *(b"DKIM-Signature:", b"Content-Type: multipart/signed"),
]
_VALUES = [
    *(b"own@x.example", b"OWN@X.example", b"any@ours.example", b"evil@y.example", b"<evil@y>"),
    *(b"<own@x.example>", b"evil@y.example, own@x.example", b"own@x.example, a@ours.example"),
    *(b"A", b'"A, <evil@y>"', b"(evil@y.example)", b"=?utf-8?q?=3Cevil=40y=3E=2C?=", b"g:;"),
    *(b"=?utf-8?q?evil=40y?=@ours.example", b'"evil@y.example>"@ours.example', b"\xff"),
    *(b"evil@y.example\xa0@ours.example", b"@ours.example:evil@y", b"<", b">", b",", b"(", b'"'),
    *(b" ", b"\r\n ", b"\r\n\t", b"\r\n \r\n ", b"\\", b"evil@y.example <own@x.example>"),
    b"b" * 60,
]
_lines = st.tuples(
    st.sampled_from(_FIELD_STARTS), st.lists(st.sampled_from(_VALUES), max_size=4).map(b"".join)
).map(lambda one: one[0] + one[1] + b"\r\n")
_well_formed = st.sampled_from(
    [b"From: own@x.example\r\n", b"From: evil@y.example\r\n", b"Sender: evil@y\r\n", b"To: t\r\n"]
)
blocks = st.lists(st.one_of(_well_formed, _lines), max_size=6).map(
    lambda lines: re.sub(rb"\r\n(?:\r\n)+", b"\r\n", b"".join(lines)).removeprefix(b"\r\n")
)
_rules = st.sampled_from([CHECKED, REWRITTEN, ANSWERED, rules(rewrite=OWN, display_name="Bü, ro")])
OURS = re.compile(r"own@x\.example|[^@\"]+@ours\.example", re.IGNORECASE)


@given(blocks, _rules)
def test_only_three_fields_change_and_only_where_they_must(
    block: bytes, held_to: SenderRules
) -> None:
    checked = checked_or_none(block, held_to)
    if checked is not None and checked != block:
        assert_only_three_fields_changed(block, checked)


@given(blocks, _rules)
def test_what_was_checked_once_passes_as_it_is(block: bytes, held_to: SenderRules) -> None:
    checked = checked_or_none(block, held_to)
    if checked is not None:
        assert_passes_as_it_is(checked, held_to)


@given(blocks, _rules)
def test_no_reader_finds_a_sender_that_is_not_allowed(block: bytes, held_to: SenderRules) -> None:
    checked = checked_or_none(block, held_to)
    if checked is not None:
        assert_no_reader_finds_another(checked, OURS)


@pytest.mark.parametrize("held_to", [CHECKED, REWRITTEN, ANSWERED])
def test_real_messages_keep_their_octets(held_to: SenderRules) -> None:
    changed = 0
    for name, content in real_messages().items():
        block = content.partition(b"\r\n\r\n")[0] + b"\r\n"
        checked = checked_or_none(block, held_to)
        if checked is None:
            continue
        changed += checked != block
        assert others(checked) == others(block), name
        parsed = email.message_from_bytes(checked, policy=policy.default)
        assert [one.addr_spec for one in parsed["from"].addresses] == [OWN], name
    assert bool(changed) is bool(held_to.from_rule.rewrite)
