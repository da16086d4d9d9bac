"""MAIL, RCPT, DATA and BDAT in every order: what a transaction answers."""

from __future__ import annotations

import pytest

from xoauth2_proxy import replies
from xoauth2_proxy.smtp.protocol import Envelope, Reply
from xoauth2_proxy.submission.transaction import BadChunk, Chunk, ClientTransaction, parse_chunk

MAX_BYTES = 1000
MAX_RECIPIENTS = 3
SENDER = "FROM:<a@example.com>"
RECIPIENT = "TO:<b@example.com>"


def begun(mail: str = SENDER, *recipients: str) -> ClientTransaction:
    """Return a transaction with these recipients accepted."""
    incoming = ClientTransaction(MAX_BYTES, MAX_RECIPIENTS)
    assert incoming.mail(mail) == replies.SENDER_OK
    for recipient in recipients:
        assert incoming.rcpt(recipient) == replies.RECIPIENT_OK
    return incoming


def answers(*commands: str) -> list[Reply | None]:
    """Return what each command draws; DATA and BDAT: None where they may go on."""
    incoming = ClientTransaction(MAX_BYTES, MAX_RECIPIENTS)
    found: list[Reply | None] = []
    for command in commands:
        verb, _, argument = command.partition(" ")
        match verb:
            case "MAIL":
                found.append(incoming.mail(argument))
            case "RCPT":
                found.append(incoming.rcpt(argument))
            case "DATA":
                found.append(incoming.data_refusal())
            case _:
                refusal = incoming.chunk_refusal()
                if refusal is None:
                    incoming.chunks.add(b"x")
                else:
                    incoming.fail()
                found.append(refusal)
    return found


MAIL, RCPT = f"MAIL {SENDER}", f"RCPT {RECIPIENT}"
OK, SEQUENCE = [replies.SENDER_OK, replies.RECIPIENT_OK], replies.BAD_SEQUENCE


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([MAIL, RCPT, "DATA"], [*OK, None]),
        ([MAIL, RCPT, "BDAT"], [*OK, None]),
        ([MAIL, RCPT, "BDAT", "BDAT"], [*OK, None, None]),
        (["RCPT TO:<b@c>"], [SEQUENCE]),
        (["DATA"], [SEQUENCE]),
        (["BDAT"], [SEQUENCE]),
        ([MAIL, MAIL], [replies.SENDER_OK, SEQUENCE]),
        ([MAIL, "DATA"], [replies.SENDER_OK, SEQUENCE]),
        ([MAIL, "BDAT"], [replies.SENDER_OK, SEQUENCE]),
        ([MAIL, "RCPT TO:<>", "DATA"],
         [replies.SENDER_OK, replies.RECIPIENT_MALFORMED, replies.NO_VALID_RECIPIENTS]),
        ([MAIL, "RCPT TO:<>", "BDAT"],
         [replies.SENDER_OK, replies.RECIPIENT_MALFORMED, replies.NO_VALID_RECIPIENTS]),
        ([MAIL, "RCPT TO:<>", RCPT, "DATA"],
         [replies.SENDER_OK, replies.RECIPIENT_MALFORMED, replies.RECIPIENT_OK, None]),
        ([MAIL, RCPT, "BDAT", "DATA"], [*OK, None, SEQUENCE]),
        ([MAIL, RCPT, "BDAT", RCPT], [*OK, None, SEQUENCE]),
        ([MAIL, RCPT, "BDAT", MAIL], [*OK, None, SEQUENCE]),
        ([MAIL, "BDAT", RCPT, "BDAT"],
         [replies.SENDER_OK, SEQUENCE, SEQUENCE, SEQUENCE]),
        (["MAIL FROM:<x", MAIL], [replies.SENDER_MALFORMED, replies.SENDER_OK]),
    ],
)  # fmt: skip
def test_order_of_commands(commands: list[str], expected: list[Reply | None]) -> None:
    assert answers(*commands) == expected


def test_a_stray_chunk_does_not_void_the_next_transaction() -> None:
    assert answers("BDAT", MAIL, RCPT, "BDAT") == [SEQUENCE, *OK, None]


def test_data_does_not_rescue_a_transaction_whose_chunk_was_refused() -> None:
    assert answers(MAIL, "BDAT", RCPT, "DATA")[-1] == SEQUENCE


# MAIL.


@pytest.mark.parametrize(
    ("argument", "envelope"),
    [
        ("FROM:<>", Envelope("")),
        ("FROM:<A@example.com>", Envelope("A@example.com")),
        ("FROM:<a@b> SIZE=1000", Envelope("a@b", size_bytes=1000)),
        ("FROM:<a@b> size=0 body=8bitmime", Envelope("a@b", body_8bit=True)),
        ("FROM:<a@b> BODY=7BIT AUTH=<>", Envelope("a@b")),
        ("FROM:<a@b> AUTH=e+3Dmc2@example.com", Envelope("a@b")),
        ("FROM:<é@b> SMTPUTF8", Envelope("é@b", smtputf8=True)),
        ("FROM: a@b", Envelope("a@b")),
        ("FROM: a@b SIZE=1000\tBODY=8BITMIME", Envelope("a@b", size_bytes=1000, body_8bit=True)),
        ("FROM:\t<a@b>\tSIZE=1000", Envelope("a@b", size_bytes=1000)),
    ],
)
def test_mail_sets_the_envelope(argument: str, envelope: Envelope) -> None:
    incoming = begun(argument)
    assert incoming.has_begun
    assert incoming.envelope == envelope


@pytest.mark.parametrize(
    ("argument", "refusal"),
    [
        ("", replies.SENDER_MALFORMED),
        ("FROM:", replies.SENDER_MALFORMED),
        ("FROM: SIZE=1", replies.SENDER_MALFORMED),
        ("FROM:a b@c", replies.ARGUMENT_MALFORMED),
        ("FROM:A <a@b>", replies.ARGUMENT_MALFORMED),
        ("TO:<a@b>", replies.SENDER_MALFORMED),
        ("FROM:<é@b>", replies.NEEDS_SMTPUTF8),
        ("FROM:<a@b> SIZE=1 SIZE=1", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SIZE", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SIZE=-1", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SIZE=1k", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SIZE=٣", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SIZE=" + "9" * 21, replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> BODY=BINARYMIME", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> BODY", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SMTPUTF8=yes", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> MT-PRIORITY=3", replies.PARAMETER_UNKNOWN),
        ("FROM:<a@b> RET=ALL", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> RET", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> ENVID=a+b", replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> ENVID=" + "a" * 101, replies.ARGUMENT_MALFORMED),
        ("FROM:<a@b> SIZE=1001", replies.TOO_LARGE),
    ],
)
def test_mail_refused_begins_nothing(argument: str, refusal: Reply) -> None:
    incoming = ClientTransaction(MAX_BYTES, MAX_RECIPIENTS)
    assert incoming.mail(argument) == refusal
    assert not incoming.has_begun
    assert incoming.rcpt(RECIPIENT) == replies.BAD_SEQUENCE


# RCPT.


def test_recipients_are_kept_in_order_as_written() -> None:
    incoming = begun(SENDER, "TO:<Z@example.com>", "to: <a@example.com>", "TO:<Z@example.com>")
    assert incoming.envelope.forward_paths == ["Z@example.com", "a@example.com", "Z@example.com"]


@pytest.mark.parametrize(
    ("argument", "refusal"),
    [
        ("", replies.RECIPIENT_MALFORMED),
        ("TO:<>", replies.RECIPIENT_MALFORMED),
        ("TO:b@c>", replies.RECIPIENT_MALFORMED),
        ("TO:<é@b>", replies.NEEDS_SMTPUTF8),
        ("TO:<b@c> RRVS=2014-04-03T23:01:00Z", replies.PARAMETER_UNKNOWN),
        ("TO:<b@c> NOTIFY=NEVER,DELAY", replies.ARGUMENT_MALFORMED),
        ("TO:<b@c> NOTIFY", replies.ARGUMENT_MALFORMED),
        ("TO:<b@c> ORCPT=rfc822", replies.ARGUMENT_MALFORMED),
        ("TO:<b@c> ORCPT=rfc822;a+2", replies.ARGUMENT_MALFORMED),
        ("TO:<b@c> =", replies.ARGUMENT_MALFORMED),
    ],
)
def test_rcpt_refused_adds_nobody(argument: str, refusal: Reply) -> None:
    incoming = begun()
    assert incoming.rcpt(argument) == refusal
    assert incoming.envelope.forward_paths == []


def test_a_strict_transaction_takes_no_path_without_brackets() -> None:
    incoming = ClientTransaction(MAX_BYTES, MAX_RECIPIENTS, is_strict=True)
    assert incoming.mail("FROM:a@b") == replies.SENDER_MALFORMED
    assert incoming.mail("FROM: <a@b>") == replies.SENDER_OK
    assert incoming.rcpt("TO: b@c") == replies.RECIPIENT_MALFORMED


def test_non_ascii_recipients_need_smtputf8() -> None:
    assert begun("FROM:<a@b> SMTPUTF8", "TO:<é@b>").envelope.forward_paths == ["é@b"]


def test_recipients_are_limited() -> None:
    incoming = begun(SENDER, *[RECIPIENT] * MAX_RECIPIENTS)
    assert incoming.rcpt(RECIPIENT) == replies.TOO_MANY_RECIPIENTS
    assert len(incoming.envelope.forward_paths) == MAX_RECIPIENTS
    assert incoming.data_refusal() is None


# BDAT.


def test_chunks_gather_in_one_place_with_the_size_limit() -> None:
    incoming = begun(SENDER, RECIPIENT)
    incoming.chunks.add(b"x" * 600)
    incoming.chunks.add(b"y" * 400)
    assert not incoming.chunks.is_too_large
    incoming.chunks.add(b"z")
    assert incoming.chunks.is_too_large


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        ("0", Chunk(0, is_last=False)),
        ("0 LAST", Chunk(0, is_last=True)),
        ("1000 last", Chunk(1000, is_last=True)),
        ("7   Last", Chunk(7, is_last=True)),
        ("9" * 12, Chunk(999_999_999_999, is_last=False)),
    ],
)
def test_chunk_announced(argument: str, chunk: Chunk) -> None:
    assert parse_chunk(argument) == chunk


@pytest.mark.parametrize(
    "argument",
    ["", "LAST", "-1", "+1", "1.0", "0x10", "1LAST", "1 LAST x", "1 FIRST", " 1", "9" * 13, "1\n"],
)
def test_malformed_chunk(argument: str) -> None:
    with pytest.raises(BadChunk):
        parse_chunk(argument)
