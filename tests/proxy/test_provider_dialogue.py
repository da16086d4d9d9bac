"""The dialogue with a provider as a state machine: what is sent, and what each reply means."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.transactions import (
    BDAT,
    BOTH,
    CHUNKING,
    CONTENT,
    DATA,
    KEPT,
    MAIL,
    PIPELINING,
    RCPT,
    TWO,
    envelope,
)
from xoauth2_proxy import replies
from xoauth2_proxy.errors import (
    ExtensionMissing,
    OutcomeUnknown,
    UpstreamClosedEarly,
    UpstreamDropped,
    UpstreamError,
)
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import MAX_REPLY_LINE_BYTES, Envelope, Reply
from xoauth2_proxy.upstream.dialogue import Dialogue, State
from xoauth2_proxy.upstream.envelope import joined, mail_command

if TYPE_CHECKING:
    from collections.abc import Mapping

WAYS = [BOTH, PIPELINING, CHUNKING, {}]


def sending(
    extensions: Mapping[str, str], to: Envelope | None = None, *, is_fresh: bool = True
) -> Dialogue:
    dialogue = Dialogue(extensions)
    dialogue.send_message(to or envelope(), CONTENT, is_fresh=is_fresh)
    return dialogue


def awaiting_final_reply(extensions: Mapping[str, str]) -> Dialogue:
    """Return a dialogue that has sent a whole message, whose envelope was accepted."""
    dialogue = sending(extensions, is_fresh=False)
    for answer in [b"250 2.1.0 a\r\n", b"250 2.1.5 b\r\n", b"354 go\r\n"]:
        while dialogue.take():
            pass
        if dialogue.state is not State.FINAL:
            dialogue.feed(answer)
    while dialogue.take():
        pass
    return dialogue


def flights(dialogue: Dialogue, *blocks: bytes) -> list[bytes]:
    """Return what is sent at first and after each block of replies."""
    sent = [dialogue.take()]
    for block in blocks:
        dialogue.feed(block)
        sent.append(dialogue.take())
    return sent


# The ways of a message.


@pytest.mark.parametrize(
    ("extensions", "is_fresh", "to", "blocks", "sent"),
    [
        (
            BOTH,
            True,
            envelope(),
            [b"250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.0.0 kept\r\n"],
            [MAIL + RCPT + BDAT, b""],
        ),
        (
            BOTH,
            False,
            envelope(),
            [b"250 2.1.0 a\r\n250 2.1.5 b\r\n", b"250 2.0.0 kept\r\n"],
            [MAIL + RCPT, BDAT, b""],
        ),
        (
            BOTH,
            True,
            envelope("b@y", "c@z"),
            [b"250 a\r\n250 b\r\n250 c\r\n", b"250 2.0.0 kept\r\n"],
            [MAIL + TWO, BDAT, b""],
        ),
        (
            PIPELINING,
            True,
            envelope("b@y", "c@z"),
            [b"250 a\r\n250 b\r\n250 c\r\n354 go\r\n", b"250 2.0.0 kept\r\n"],
            [MAIL + TWO + b"DATA\r\n", DATA, b""],
        ),
        (
            {},
            True,
            envelope(),
            [b"250 a\r\n", b"250 b\r\n", b"354 go\r\n", b"250 2.0.0 kept\r\n"],
            [MAIL, RCPT, b"DATA\r\n", DATA, b""],
        ),
        (
            CHUNKING,
            True,
            envelope(),
            [b"250 a\r\n", b"250 b\r\n", b"250 2.0.0 kept\r\n"],
            [MAIL, RCPT, BDAT, b""],
        ),
    ],
    ids=["one flight", "not fresh", "two recipients", "data", "lock step", "lock step, chunking"],
)
def test_a_message_takes_as_few_flights_as_the_provider_allows(
    extensions: Mapping[str, str],
    is_fresh: bool,
    to: Envelope,
    blocks: list[bytes],
    sent: list[bytes],
) -> None:
    dialogue = sending(extensions, to, is_fresh=is_fresh)
    assert flights(dialogue, *blocks) == sent
    assert dialogue.result == KEPT
    assert dialogue.state is State.READY
    assert not dialogue.needs_reset


def test_without_enhanced_codes_content_goes_by_data() -> None:
    dialogue = sending({"PIPELINING": "", "CHUNKING": ""})
    assert dialogue.take() == MAIL + RCPT + b"DATA\r\n"


@given(cuts=st.lists(st.integers(1, 60)), way=st.sampled_from([0, 1]))
def test_replies_mean_the_same_however_they_are_split(cuts: list[int], way: int) -> None:
    extensions = (BOTH, PIPELINING)[way]
    final = b"250 2.0.0 kept\r\n" if way == 0 else b"354 go\r\n"
    octets = b"250-2.1.0 a\r\n250 2.1.0 a\r\n250 2.1.5 b\r\n" + final
    dialogue = sending(extensions)
    dialogue.take()
    while octets:
        cut = cuts.pop() if cuts else len(octets)
        dialogue.feed(octets[:cut])
        octets = octets[cut:]
    if way:
        assert dialogue.take() == DATA
        dialogue.feed(b"250 2.0.0 kept\r\n")
    assert dialogue.result == KEPT


# I1: replies answer commands in order.


@pytest.mark.parametrize("octets", [b"421 4.4.2 bye\r\n", b"4", b"250-\r\n", b"250 ok\r\n"])
def test_octets_that_no_command_asked_for_end_the_dialogue(octets: bytes) -> None:
    dialogue = Dialogue({})
    dialogue.feed(octets)
    assert dialogue.state is State.CLOSED
    assert "no command" in dialogue.ending
    assert dialogue.take() == b""


@pytest.mark.parametrize(
    "octets", [b"\x16\x03\x01\r\n", b"hello\r\n", b"250-a\r\n550 b\r\n", b"x" * 5000]
)
def test_garbage_ends_the_dialogue(octets: bytes) -> None:
    dialogue = Dialogue({})
    dialogue.command(b"NOOP\r\n")
    dialogue.feed(octets)
    assert isinstance(dialogue.result, UpstreamClosedEarly)
    assert dialogue.state is State.CLOSED


def test_an_endless_line_is_not_gathered() -> None:
    dialogue = Dialogue({})
    dialogue.command(b"NOOP\r\n")
    dialogue.feed(b"250 " + b"x" * MAX_REPLY_LINE_BYTES)
    assert "too long" in dialogue.ending


def test_a_surplus_reply_makes_replies_that_differ_unbelievable() -> None:
    dialogue = sending(PIPELINING)
    dialogue.take()
    dialogue.feed(b"250 a\r\n550 b\r\n354 c\r\n250 d\r\n")
    assert isinstance(dialogue.result, UpstreamClosedEarly)


def test_replies_that_all_refuse_are_believed_despite_a_surplus() -> None:
    dialogue = sending(PIPELINING)
    dialogue.take()
    dialogue.feed(b"550 a\r\n550 b\r\n550 c\r\n550 d\r\n")
    assert dialogue.result == Reply(550, "", ("a",))
    assert dialogue.state is State.CLOSED


# I2: nothing but the message's own 250 means delivery.


@pytest.mark.parametrize(
    "final",
    [b"250 2.1.5 ok\r\n", b"251 2.0.0 ok\r\n", b"250 ok\r\n", b"354 go\r\n"],
    ids=["a recipient's", "no 250", "not enhanced", "354"],
)
def test_behind_bdat_only_an_enhanced_250_of_its_own_means_delivery(final: bytes) -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    dialogue.feed(b"250 2.1.0 a\r\n250 2.1.5 b\r\n" + final)
    assert type(dialogue.result) is OutcomeUnknown
    assert dialogue.state is State.CLOSED


@pytest.mark.parametrize("doubled", [0, 1])
def test_a_provider_that_answers_a_command_twice_delivers_nothing(doubled: int) -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    answers = [b"250 2.1.0 a\r\n", b"250 2.1.5 b\r\n"]
    answers.insert(doubled, answers[doubled])
    dialogue.feed(b"".join(answers))
    assert isinstance(dialogue.result, OutcomeUnknown)


@pytest.mark.parametrize("more", [b"250 2.0.0 kept\r\n", b"250 2.0", b"garbage\r\n", b"g"])
@pytest.mark.parametrize("extensions", WAYS)
def test_octets_behind_the_reply_to_the_content_make_the_outcome_unknown(
    extensions: Mapping[str, str], more: bytes
) -> None:
    # Never a second attempt: the message may have been accepted.
    dialogue = awaiting_final_reply(extensions)
    dialogue.feed(b"250 2.0.0 kept\r\n" + more)
    assert isinstance(dialogue.result, OutcomeUnknown)


@pytest.mark.parametrize("later", [b"garbage\r\n", b"250 ok\r\n", b"2"])
def test_octets_after_the_step_has_its_reply_do_not_undo_it(later: bytes) -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    dialogue.feed(b"250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.0.0 kept\r\n")
    dialogue.feed(later)
    assert dialogue.result == KEPT
    assert dialogue.state is State.CLOSED


@pytest.mark.parametrize(
    ("replied", "outcome"),
    [
        (b"250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.0.0 kept\r\n421 4.3.2 bye\r\n", Reply),
        (b"250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.0.0 kept\r\n421-4.3.2 bye\r\n421 bye\r\n", Reply),
        (b"250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.0.0 kept\r\n422 4.3.2 bye\r\n", OutcomeUnknown),
        (b"421 4.3.2 bye\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n", UpstreamClosedEarly),
        (b"421 4.3.2 bye\r\n503 5.5.1 no\r\n", UpstreamClosedEarly),
        (b"421 4.3.2 bye\r\n550 5.1.1 b\r\n250 2.0.0 kept\r\n", OutcomeUnknown),
    ],
    ids=[
        "421 behind",
        "421 in two lines",
        "422 behind",
        "421 to all",
        "421, then lost",
        "no and yes",
    ],
)
def test_what_replies_to_one_flight_mean_does_not_depend_on_packets(
    replied: bytes, outcome: type[object]
) -> None:
    for cut in range(len(replied) + 1):
        dialogue = sending(BOTH)
        dialogue.take()
        dialogue.feed(replied[:cut])
        dialogue.feed(replied[cut:])
        if dialogue.result is None:
            dialogue.lose("closed by the provider")
        # A step that has its reply is not undone by what comes after it.
        is_settled_first = cut == replied.find(b"422 ") and outcome is OutcomeUnknown
        assert type(dialogue.result) is (Reply if is_settled_first else outcome), cut


@pytest.mark.parametrize("to_reset", [b"552 5.3.4 too large, again\r\n", b"451 4.3.0 later\r\n"])
def test_a_late_reply_is_not_taken_for_that_to_the_reset(to_reset: bytes) -> None:
    dialogue = sending(BOTH, is_fresh=False)
    dialogue.take()
    dialogue.feed(b"250 2.1.0 a\r\n550 5.1.1 b\r\n")
    assert dialogue.needs_reset
    dialogue.send_message(envelope(), CONTENT, is_fresh=False)
    dialogue.take()
    dialogue.feed(to_reset + b"250 2.0.0 reset\r\n250 2.1.0 a\r\n")
    assert isinstance(dialogue.result, UpstreamClosedEarly)
    assert dialogue.state is State.CLOSED


def test_nothing_of_a_message_is_kept_after_it() -> None:
    dialogue = Dialogue(CHUNKING)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        content = Content(b"x" * 499_998 + b"\r\n", is_stuffed=False)
        dialogue.send_message(envelope(), content, is_fresh=False)
        del content
        for answer in [b"250 a\r\n", b"250 b\r\n", b"250 2.0.0 kept\r\n"]:
            while dialogue.take():
                pass
            dialogue.feed(answer)
        assert dialogue.result == KEPT
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


@pytest.mark.parametrize("extensions", WAYS)
@pytest.mark.parametrize("is_one_read", [True, False])
def test_a_421_behind_the_reply_to_the_content_does_not_undo_it(
    extensions: Mapping[str, str], is_one_read: bool
) -> None:
    dialogue = awaiting_final_reply(extensions)
    final, closing = b"250 2.0.0 kept\r\n", b"421 4.3.2 shutting down\r\n"
    for octets in [final + closing] if is_one_read else [final, closing]:
        dialogue.feed(octets)
    assert dialogue.result == KEPT
    assert dialogue.state is State.CLOSED


def test_a_reply_begun_before_the_content_was_complete_delivers_nothing() -> None:
    dialogue = granted()
    dialogue.add_content(b"a\r\n")
    dialogue.take()
    dialogue.feed(b"250 2.0.0 premature\r")
    dialogue.end_content(b".\r\n")
    dialogue.take()
    dialogue.feed(b"\n")
    assert isinstance(dialogue.result, OutcomeUnknown)


def granted() -> Dialogue:
    """Return a dialogue that may stream content."""
    dialogue = Dialogue(PIPELINING)
    dialogue.begin(envelope(), ["b@y"])
    dialogue.take()
    dialogue.feed(b"250 a\r\n250 b\r\n")
    dialogue.ask_for_go_ahead()
    dialogue.take()
    dialogue.feed(b"354 go\r\n")
    return dialogue


@pytest.mark.parametrize("is_one_read", [True, False])
def test_content_refused_right_behind_the_354_has_that_reply(is_one_read: bool) -> None:
    whole = sending(PIPELINING)
    whole.take()
    envelope_replies, refusal = b"250 a\r\n250 b\r\n354 go\r\n", b"552 5.3.4 too large\r\n"
    if is_one_read:
        whole.feed(envelope_replies + refusal)
    else:
        whole.feed(envelope_replies)
        whole.feed(refusal)
    streamed = granted()
    streamed.result = None  # collected
    streamed.feed(refusal)
    for dialogue in (whole, streamed):
        assert dialogue.result == Reply(552, "5.3.4", ("too large",))
        assert dialogue.take() == b""


def test_a_421_before_any_content_allows_another_attempt() -> None:
    dialogue = sending(PIPELINING)
    dialogue.take()
    dialogue.feed(b"250 a\r\n250 b\r\n354 go\r\n421 4.3.2 bye\r\n")
    assert type(dialogue.result) is UpstreamClosedEarly


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("refused", [b"250 2.1.0 a\r\n550 b\r\n", b"550 a\r\n503 b\r\n"])
def test_a_message_accepted_behind_a_refused_envelope_is_in_doubt(
    refused: bytes, blocks: int
) -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    octets = refused + b"250 2.0.0 kept\r\n"
    for part in [octets] if blocks == 1 else octets.splitlines(keepends=True):
        dialogue.feed(part)
    assert isinstance(dialogue.result, OutcomeUnknown)


def test_a_421_to_mail_is_no_reason_to_send_again_if_the_message_was_accepted() -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    dialogue.feed(b"421 4.3.2 bye\r\n250 2.1.5 b\r\n250 2.0.0 kept\r\n")
    assert isinstance(dialogue.result, OutcomeUnknown)


@pytest.mark.parametrize("code", [300, 334, 352, 355])
def test_no_3yz_but_354_grants_content(code: int) -> None:
    dialogue = sending(PIPELINING)
    dialogue.take()
    dialogue.feed(b"250 a\r\n250 b\r\n%d go\r\n" % code)
    assert type(dialogue.result) is UpstreamClosedEarly
    assert dialogue.take() == b""


@pytest.mark.parametrize("answer", [b"250 ok\r\n", b"220 ok\r\n"])
def test_a_2yz_to_data_is_never_the_messages(answer: bytes) -> None:
    dialogue = sending(PIPELINING)
    dialogue.take()
    dialogue.feed(b"250 a\r\n250 b\r\n" + answer)
    assert type(dialogue.result) is UpstreamClosedEarly


@given(
    way=st.sampled_from(WAYS),
    codes=st.lists(
        st.sampled_from([b"250 ok", b"250 2.0.0 ok", b"250 2.1.5 ok", b"354 go", b"550 no", b"421"])
    ),
)
def test_no_order_of_replies_delivers_without_a_positive_reply_to_the_last_command(
    way: Mapping[str, str], codes: list[bytes]
) -> None:
    dialogue = sending(way)
    sent, answered = dialogue.take(), 0
    for code in codes:
        if dialogue.result is not None:
            break
        dialogue.feed(code + b"\r\n")
        answered += 1
        sent += dialogue.take()
    if isinstance(dialogue.result, Reply) and dialogue.result.is_positive:
        assert CONTENT.octets in sent or DATA in sent
        assert answered == 3 if "CHUNKING" in way else answered == 4
        assert codes[answered - 1].startswith(b"250")
        assert b"550 no" not in codes[:answered]


# Refusals.


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (b"550 5.1.0 a\r\n503 5.5.1 b\r\n503 5.5.1 c\r\n", "5.1.0"),
        (b"250 2.1.0 a\r\n550 5.1.1 b\r\n503 5.5.1 c\r\n", "5.1.1"),
        (b"250 2.1.0 a\r\n250 2.1.5 b\r\n552 5.3.4 c\r\n", "5.3.4"),
    ],
    ids=["sender", "recipient", "content"],
)
def test_in_one_flight_the_first_refusal_is_the_reply(answers: bytes, code: str) -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    dialogue.feed(answers)
    assert isinstance(dialogue.result, Reply)
    assert dialogue.result.enhanced == code
    assert dialogue.state is State.READY


def test_a_recipient_refused_leaves_a_transaction_to_reset() -> None:
    dialogue = sending(BOTH, envelope("b@y", "c@z"))
    assert flights(dialogue, b"250 a\r\n250 b\r\n550 5.1.1 c\r\n") == [MAIL + TWO, b""]
    assert dialogue.needs_reset
    dialogue.send_message(envelope(), CONTENT, is_fresh=True)
    assert dialogue.take() == b"RSET\r\n" + MAIL + RCPT


def test_data_granted_to_a_part_of_the_recipients_ends_the_connection() -> None:
    dialogue = sending(PIPELINING, envelope("b@y", "c@z"))
    sent = flights(dialogue, b"250 a\r\n250 b\r\n550 5.1.1 c\r\n354 go\r\n")
    assert sent == [MAIL + TWO + b"DATA\r\n", b""]
    assert isinstance(dialogue.result, Reply)
    assert dialogue.state is State.CLOSED


@pytest.mark.parametrize("code", [421, 432, 500, 502, 503, 504, 530, 538, 555])
def test_a_reply_about_the_session_says_that_it_is_spent(code: int) -> None:
    dialogue = sending({})
    flights(dialogue, b"250 a\r\n", b"%d no\r\n" % code)
    assert dialogue.result == Reply(code, "", ("no",))
    assert dialogue.is_spent


# I3: what a loss means.


@pytest.mark.parametrize(
    ("extensions", "heard", "meaning"),
    [
        *((way, b"", UpstreamClosedEarly) for way in (PIPELINING, CHUNKING, {})),
        (BOTH, b"", OutcomeUnknown),
        (BOTH, b"250 2.1.0 a\r\n250 2.1.5 b\r\n", OutcomeUnknown),
        (PIPELINING, b"250 a\r\n250 b\r\n", UpstreamClosedEarly),
        (BOTH, b"421 4.7.0 too much\r\n", UpstreamClosedEarly),
        (PIPELINING, b"421 4.7.0 too much\r\n", UpstreamClosedEarly),
    ],
)
def test_a_loss_means_what_the_state_says(
    extensions: Mapping[str, str], heard: bytes, meaning: type[UpstreamError]
) -> None:
    dialogue = sending(extensions)
    flights(dialogue, heard)
    dialogue.lose("broken")
    assert type(dialogue.result) is meaning


def test_a_loss_between_go_ahead_and_content_leaves_nothing_in_doubt() -> None:
    dialogue = sending(PIPELINING)
    dialogue.take()
    dialogue.feed(b"250 a\r\n250 b\r\n354 go\r\n")
    dialogue.lose("broken")
    assert type(dialogue.result) is UpstreamClosedEarly


def test_a_loss_after_the_sender_was_refused_is_the_refusal() -> None:
    dialogue = sending(BOTH)
    dialogue.take()
    dialogue.feed(b"550 5.1.0 no\r\n")
    dialogue.lose("broken")
    assert dialogue.result == Reply(550, "5.1.0", ("no",))


@pytest.mark.parametrize(
    ("last", "meaning"), [(False, UpstreamDropped), (True, OutcomeUnknown)], ids=["amid", "after"]
)
def test_a_loss_of_streamed_content_depends_on_its_end(
    last: bool, meaning: type[UpstreamError]
) -> None:
    dialogue = Dialogue(PIPELINING)
    dialogue.begin(envelope(), ["b@y"])
    assert flights(dialogue, b"250 a\r\n250 b\r\n") == [MAIL + RCPT, b""]
    dialogue.ask_for_go_ahead()
    assert flights(dialogue, b"354 go\r\n") == [b"DATA\r\n", b""]
    dialogue.add_content(b"a\r\n")
    assert dialogue.take() == b"a\r\n"
    if last:
        dialogue.end_content(b".\r\n")
    dialogue.lose("broken")
    assert type(dialogue.result) is meaning


# The envelope.

EVERYTHING = {"SIZE": "35882577", "8BITMIME": "", "SMTPUTF8": "", "PIPELINING": ""}


@pytest.mark.parametrize(
    ("extensions", "size_bytes", "is_ascii", "parameters"),
    [
        (EVERYTHING, 7, True, " SIZE=7 BODY=8BITMIME SMTPUTF8"),
        (EVERYTHING, 0, False, " BODY=8BITMIME SMTPUTF8"),
        ({"8BITMIME": "", "SMTPUTF8": ""}, 7, False, " BODY=8BITMIME SMTPUTF8"),
        ({"SIZE": ""}, 7, True, " SIZE=7"),
        ({}, 7, True, ""),
    ],
)
def test_mail_says_what_the_provider_understands(
    extensions: dict[str, str], size_bytes: int, is_ascii: bool, parameters: str
) -> None:
    sender = Envelope("a@x", ["b@y"], body_8bit=True, smtputf8=True)
    line = mail_command(sender, extensions, size_bytes, lambda: is_ascii)
    assert line == f"MAIL FROM:<a@x>{parameters}\r\n".encode()


@pytest.mark.parametrize(
    ("extensions", "sender", "answer"),
    [
        ({"SMTPUTF8": ""}, Envelope("a@x", ["b@y"], body_8bit=True), replies.EIGHT_BIT_UNSUPPORTED),
        ({"8BITMIME": ""}, Envelope("a@x", ["b@y"], smtputf8=True), replies.SMTPUTF8_UNSUPPORTED),
    ],
)
def test_what_the_provider_lacks_is_told_before_anything_is_sent(
    extensions: dict[str, str], sender: Envelope, answer: Reply
) -> None:
    dialogue = Dialogue(extensions)
    with pytest.raises(ExtensionMissing) as caught:
        dialogue.begin(sender, ["b@y"])
    assert caught.value.reply is answer
    assert dialogue.take() == b""
    assert dialogue.transactions == 0
    assert dialogue.state is State.READY


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (["450 4.2.1", "450 4.2.2"], "450 4.2.1"),
        (["450 4.2.1", "551 5.1.6"], "551 5.1.6"),
        (["550 5.1.1", "450 4.2.1"], "550 5.1.1"),
    ],
)
def test_a_permanent_refusal_outweighs_transient_ones(codes: list[str], told: str) -> None:
    refusals = []
    for number, words in enumerate(codes):
        code, enhanced = words.split()
        refusals.append((f"{number}@y", Reply(int(code), enhanced, ("no",))))
    answer = joined(refusals, recipients=3)
    assert f"{answer.code} {answer.enhanced}" == told
    each = (f"Sent to no one, because of <{path}>: {reply}" for path, reply in refusals)
    assert answer.text == tuple(each)
    assert joined(refusals[:1], recipients=1) is refusals[0][1]
