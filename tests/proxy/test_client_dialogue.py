"""The dialogue with a client as a state machine: its replies, its events, and its limits."""

from __future__ import annotations

import base64
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.accounts import mailbox
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.smtp.protocol import Reply, ReplyParser, reply
from xoauth2_proxy.submission.dialogue import ClientDialogue, State
from xoauth2_proxy.submission.events import (
    ContentArrived,
    Event,
    LoginAttempt,
    LoginMalformed,
    MessageComplete,
    MessageRefused,
    RecipientAdded,
    Signal,
)
from xoauth2_proxy.submission.policy import SessionPolicy
from xoauth2_proxy.upstream.envelope import rcpt_command

POLICY = SessionPolicy(
    hostname="relay.example",
    max_message_bytes=1000,
    max_recipients=3,
    buffer_bytes=100,
    idle_seconds=300.0,
    tls_context=None,
    may_auth_in_clear=True,
)
LOGIN = Login(mailbox())
ENVELOPE = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"
ACCEPTED = [replies.SENDER_OK, replies.RECIPIENT_OK]
LINE_BYTES = 12_288 + len("AUTH OAUTHBEARER \r\n")


def events(dialogue: ClientDialogue, *parts: bytes) -> list[Event]:
    """Return the events up to one that must be answered, or to the end of the octets."""
    found: list[Event] = []
    for part in parts:
        dialogue.feed(part)
        while dialogue.state is not State.WAITING:
            event = dialogue.next_event()
            if event is None:
                break
            found.append(event)
            if event is Signal.ENDED:
                break
    return found


def said(dialogue: ClientDialogue) -> list[Reply]:
    return ReplyParser().feed(dialogue.take())


def new(policy: SessionPolicy = POLICY) -> ClientDialogue:
    return ClientDialogue(policy, lambda login: login)


def logged_in(*, verifies: bool = False, policy: SessionPolicy = POLICY) -> ClientDialogue:
    dialogue = new(policy)
    token = base64.b64encode(b"\0a@x\0secret")
    (attempt,) = events(dialogue, b"EHLO c\r\nAUTH PLAIN " + token + b"\r\n")
    assert isinstance(attempt, LoginAttempt)
    dialogue.logged_in(Login(replace(mailbox(), verifies=verifies)))
    assert said(dialogue)[-1] == replies.AUTHENTICATED
    return dialogue


# Lines.


def test_a_group_is_answered_at_once_and_in_order() -> None:
    dialogue = logged_in()
    assert events(dialogue, ENVELOPE + b"FOO\r\nRSET\r\nNOOP\r\n") == []
    assert said(dialogue) == [*ACCEPTED, replies.COMMAND_UNKNOWN, replies.RESET, replies.OK]


def test_a_line_is_answered_when_it_is_complete() -> None:
    dialogue = new()
    for octet in b"NOOP\r":
        assert events(dialogue, bytes([octet])) == []
        assert dialogue.take() == b""
    assert events(dialogue, b"\nNO") == []
    assert said(dialogue) == [replies.OK]
    assert dialogue.unread_bytes == 2


@pytest.mark.parametrize(("length", "fits"), [(2048, True), (2049, False)])
def test_a_command_has_2048_octets_at_most(length: int, fits: bool) -> None:
    dialogue = new()
    events(dialogue, b"NOOP ".ljust(length - 2, b"x") + b"\r\n")
    assert said(dialogue) == [replies.OK if fits else replies.COMMAND_TOO_LONG]


@pytest.mark.parametrize("verb", [b"NOOP ", b"AUTH "])
@pytest.mark.parametrize("length", [LINE_BYTES + 1, 100_000])
def test_a_line_that_is_too_long_is_discarded_as_it_comes(verb: bytes, length: int) -> None:
    dialogue = new()
    line = verb.ljust(length - 2, b"x") + b"\r\n"
    for at in range(0, len(line), 7000):
        events(dialogue, line[at : at + 7000])
        assert dialogue.unread_bytes <= LINE_BYTES
    events(dialogue, b"NOOP\r\n")
    too_long = replies.AUTH_LINE_TOO_LONG if verb == b"AUTH " else replies.COMMAND_TOO_LONG
    assert said(dialogue) == [too_long, replies.OK]


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT many\r\n",
        b"BDAT 5 FIRST\r\n",
        b"BDAT 5\rLAST\n",
        b"BDAT \xff\r\n",
        b"BDAT 4001\r\n",
        b"BDAT " + b"5" * 3000 + b"\r\n",
        b"BDAT " + b"5" * 20_000 + b"\r\n",
    ],
)
def test_a_chunk_of_unknown_length_ends_the_dialogue(line: bytes) -> None:
    dialogue = logged_in()
    assert events(dialogue, ENVELOPE + line + b"RSET\r\nQUIT\r\n")[-1] is Signal.ENDED
    answers = said(dialogue)
    assert len(answers) == 3
    assert answers[-1].code >= 500


def test_the_end_of_input_is_noticed_after_what_came_before_it() -> None:
    dialogue = new()
    dialogue.feed(b"NOOP\r\nNO")
    dialogue.feed_eof()
    assert dialogue.next_event() is Signal.ENDED
    assert said(dialogue) == [replies.OK]
    assert dialogue.next_event() is Signal.ENDED


def test_a_flood_gives_others_their_turn() -> None:
    dialogue = new()
    dialogue.feed(b"NOOP\r\n" * 250)
    turns = [dialogue.next_event() for _ in range(3)]
    assert turns == [Signal.TURN_OVER, Signal.TURN_OVER, None]
    assert said(dialogue) == [replies.OK] * 250


# Waiting and draining.


def test_nothing_is_read_while_an_event_is_unanswered() -> None:
    dialogue = logged_in()
    (message,) = events(dialogue, ENVELOPE + b"BDAT 4 LAST\r\na\r\n\0NOOP\r\n")
    assert isinstance(message, MessageRefused)  # a NUL
    (message,) = events(dialogue, ENVELOPE + b"BDAT 3 LAST\r\na\r\nNOOP\r\n")
    assert isinstance(message, MessageComplete)
    said(dialogue)
    with pytest.raises(RuntimeError, match="not been answered"):
        dialogue.next_event()
    dialogue.finish(replies.OK)
    assert events(dialogue, b"") == []
    assert said(dialogue) == [replies.OK, replies.OK]
    with pytest.raises(RuntimeError, match="no event"):
        dialogue.finish(replies.OK)


def test_an_answer_after_the_end_says_nothing() -> None:
    dialogue = logged_in()
    events(dialogue, ENVELOPE + b"BDAT 3 LAST\r\na\r\n")
    said(dialogue)
    dialogue.close(replies.SHUTTING_DOWN)
    assert said(dialogue) == [replies.SHUTTING_DOWN]
    assert dialogue.close(replies.OK) is Signal.ENDED
    assert dialogue.take() == b""


def test_no_answer_reopens_a_dialogue_that_was_closed() -> None:
    dialogue = new()
    token = base64.b64encode(b"user=a@x\x01auth=Bearer t\x01\x01")
    events(dialogue, b"EHLO c\r\nAUTH XOAUTH2 " + token + b"\r\n")
    said(dialogue)
    dialogue.close(replies.SHUTTING_DOWN)
    dialogue.login_failed(replies.CREDENTIALS_INVALID, is_token=True)
    dialogue.logged_in(LOGIN)
    assert said(dialogue) == [replies.SHUTTING_DOWN]
    assert dialogue.next_event() is Signal.ENDED


@pytest.mark.parametrize("before", [b"", b"EHLO c\r\nAUTH LOGIN\r\n", b"EHLO c\r\n"])
def test_draining_ends_a_dialogue_without_transaction(before: bytes) -> None:
    dialogue = new()
    events(dialogue, before)
    said(dialogue)
    dialogue.drain()
    assert dialogue.next_event() is Signal.ENDED
    assert said(dialogue) == [replies.SHUTTING_DOWN]


def test_draining_lets_a_transaction_come_to_its_end() -> None:
    dialogue = logged_in()
    events(dialogue, ENVELOPE + b"DATA\r\na")
    dialogue.drain()
    (message,) = events(dialogue, b"\r\n.\r\n")
    assert isinstance(message, MessageComplete)
    dialogue.finish(replies.OK)
    assert dialogue.next_event() is Signal.ENDED
    assert said(dialogue)[-2:] == [replies.OK, replies.SHUTTING_DOWN]


# TLS.


def test_octets_behind_starttls_end_the_dialogue() -> None:
    dialogue = new(replace(POLICY, tls_context=object()))  # type: ignore[arg-type]
    assert events(dialogue, b"STARTTLS\r\nEHLO c\r\n") == [Signal.ENDED]
    assert said(dialogue) == [replies.OCTETS_AFTER_STARTTLS]


# A ClientHello ends where it likes; with an LF in it, it looks like a line.
@pytest.mark.parametrize(
    "parts",
    [
        (b"\x16\x03\x01\x02\x00\x01",),
        (b"\x16", b"\x03\x01"),
        (b"\x16\x03\x01\x00\x0a\x01", b"\xff"),
        (b"\x16\x03\x01\x00\x05\r\n\x01",),
    ],
)
def test_tls_from_the_first_octet_ends_the_dialogue(
    parts: tuple[bytes, ...],
) -> None:
    dialogue = new()
    assert events(dialogue, *parts)[:2] == [Signal.TLS_UNASKED, Signal.ENDED]
    assert said(dialogue) == [replies.TLS_UNASKED]


@pytest.mark.parametrize("before", [b"NOOP\r\n", b"nonsense\r\n"])
def test_octets_like_tls_behind_a_command_are_a_bad_line(before: bytes) -> None:
    dialogue = new()
    assert events(dialogue, before + b"\x16\x03\x01\r\n") == []
    assert said(dialogue)[-1] == replies.COMMAND_MALFORMED


def test_nothing_said_in_cleartext_outlives_starttls() -> None:
    dialogue = logged_in(policy=replace(POLICY, tls_context=object()))  # type: ignore[arg-type]
    assert events(dialogue, ENVELOPE) == []
    assert events(dialogue, b"STARTTLS\r\n") == [Signal.TLS_REQUESTED]
    dialogue.feed(b"MAIL FROM:<a@x>\r\n")  # with the last flight of the handshake
    dialogue.secured()
    assert events(dialogue, b"EHLO c\r\nMAIL FROM:<a@x>\r\nDATA\r\n") == []
    answers = said(dialogue)
    assert answers[:4] == [*ACCEPTED, replies.START_TLS, replies.HELLO_FIRST]
    assert "STARTTLS" not in answers[4].text
    assert answers[5:] == [replies.AUTH_REQUIRED, replies.AUTH_REQUIRED]


# Logging in.


def test_a_refused_token_is_told_in_a_challenge_first() -> None:
    dialogue = new()
    token = base64.b64encode(b"user=a@x\x01auth=Bearer t\x01\x01")
    (attempt,) = events(dialogue, b"EHLO c\r\nAUTH XOAUTH2 " + token + b"\r\n")
    assert isinstance(attempt, LoginAttempt)
    dialogue.login_failed(replies.CREDENTIALS_INVALID, is_token=True)
    assert events(dialogue, b"\r\nNOOP\r\n") == []
    answers = said(dialogue)
    assert [one.code for one in answers[1:]] == [334, 535, 250]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (b"*\r\n", replies.AUTH_CANCELLED),
        (b"a\r\n", replies.AUTH_MALFORMED),
        (b"YQ==\n", replies.AUTH_MALFORMED),
        (b"x" * 20_000 + b"\r\n", replies.AUTH_LINE_TOO_LONG),
    ],
)
def test_an_exchange_that_goes_wrong_is_answered_once(response: bytes, answer: Reply) -> None:
    dialogue = new()
    (ended,) = events(dialogue, b"EHLO c\r\nAUTH PLAIN\r\n" + response + b"NOOP\r\n")
    assert ended == LoginMalformed("PLAIN")
    assert said(dialogue)[1:] == [Reply(334, "", ("",)), answer, replies.OK]


def test_the_fifth_failure_ends_the_dialogue() -> None:
    dialogue = new()
    found = events(dialogue, b"EHLO c\r\n" + b"AUTH PLAIN =\r\n" * 6)
    assert found == [LoginMalformed("PLAIN")] * 5 + [Signal.ENDED]
    assert said(dialogue)[-1] == replies.TOO_MANY_AUTH_FAILURES


# Content that is handed on.


def streamed(dialogue: ClientDialogue, *parts: bytes) -> tuple[bytes, list[Event]]:
    """Return the content handed on, and the other events."""
    content, others = b"", list[Event]()
    for part in parts:
        dialogue.feed(part)
        while (event := dialogue.next_event()) is not None:
            if isinstance(event, ContentArrived):
                content += event.octets
                dialogue.finish(replies.OK) if event.is_last else dialogue.content_sent()
            else:
                others.append(event)
    return content, others


@pytest.mark.parametrize("size", [1, 99, 100])
def test_content_within_the_buffer_is_handed_over_whole(size: int) -> None:
    dialogue = logged_in()
    content = b"x" * (size - 1)
    found = events(dialogue, ENVELOPE + b"DATA\r\n", content, b"\r\n.\r\n")
    assert isinstance(found[0], MessageComplete)
    assert found[0].content.octets == content + b"\r\n"


@pytest.mark.parametrize("command", [b"DATA", b"BDAT 402 LAST"])
def test_content_beyond_the_buffer_is_handed_on_as_it_comes(command: bytes) -> None:
    dialogue = logged_in()
    end = b"\r\n.\r\n" if command == b"DATA" else b"\r\n"
    parts = [ENVELOPE + command + b"\r\n", *[b"x" * 80] * 5, end]
    content, others = streamed(dialogue, *parts)
    assert content == b"x" * 400 + b"\r\n"
    assert others == []
    assert said(dialogue)[-1] == replies.OK


def test_what_is_handed_on_stops_when_the_message_becomes_unacceptable() -> None:
    dialogue = logged_in()
    parts = [b"x" * 300, b"\0" + b"x" * 300, b"x" * 300, b"\r\n.\r\n"]
    content, others = streamed(dialogue, ENVELOPE + b"DATA\r\n", *parts)
    assert content == b"x" * 296  # four octets might be the beginning of the end
    stopped, refused = others
    assert stopped is Signal.CONTENT_UNACCEPTABLE
    assert isinstance(refused, MessageRefused)
    assert refused.message.size_bytes == 903
    assert said(dialogue)[-1] == refused.reply == replies.NUL_IN_CONTENT


@pytest.mark.parametrize("command", [b"RSET\r\n", b"EHLO c\r\n", b"HELO c\r\n"])
def test_a_message_that_the_client_gives_up_is_dropped_once(command: bytes) -> None:
    dialogue = logged_in()
    chunk = b"BDAT 300\r\n" + b"x" * 300
    _, others = streamed(dialogue, ENVELOPE + chunk, command, command)
    assert others == [Signal.TRANSACTION_DROPPED]


def test_a_chunk_that_makes_the_message_too_large_ends_the_transaction() -> None:
    dialogue = logged_in()
    chunk = b"BDAT 600\r\n" + b"x" * 600
    _, others = streamed(dialogue, ENVELOPE + chunk, chunk, chunk, b"RSET\r\n")
    assert others[0] is Signal.CONTENT_UNACCEPTABLE
    assert isinstance(others[1], MessageRefused)
    assert len(others) == 2
    codes = [one.code for one in said(dialogue)]
    assert codes == [250, 250, 250, 552, 503, 250]


def test_after_a_refused_chunk_no_recipient_is_taken() -> None:
    dialogue = logged_in()
    events(dialogue, b"MAIL FROM:<a@x>\r\nBDAT 2 LAST\r\na\nRCPT TO:<b@y>\r\nRSET\r\n")
    assert [one.code for one in said(dialogue)] == [250, 503, 503, 250]


def test_each_recipient_keeps_its_own_parameters() -> None:
    dialogue = logged_in()
    events(dialogue, b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y> NOTIFY=NEVER\r\nRCPT TO:<b@y>\r\n")
    (message,) = events(dialogue, b"RCPT TO:<b@y> NOTIFY=FAILURE\r\nDATA\r\n.\r\n")
    assert isinstance(message, MessageComplete)
    assert [rcpt_command(message.message.envelope, index, {"DSN": ""}) for index in range(3)] == [
        b"RCPT TO:<b@y> NOTIFY=NEVER\r\n",
        b"RCPT TO:<b@y>\r\n",
        b"RCPT TO:<b@y> NOTIFY=FAILURE\r\n",
    ]


def test_recipients_are_judged_one_by_one_where_the_account_asks_for_it() -> None:
    dialogue = logged_in(verifies=True)
    (first,) = events(dialogue, b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@z>\r\n")
    assert isinstance(first, RecipientAdded)
    dialogue.recipient_answered(reply(550, "1.1", "unknown"))
    (second,) = events(dialogue, b"")
    assert isinstance(second, RecipientAdded)
    dialogue.recipient_answered(replies.RECIPIENT_OK)
    (last,) = events(dialogue, b"DATA\r\nx\r\n.\r\n")
    assert isinstance(last, ContentArrived)
    assert last.is_last
    assert last.message.envelope.forward_paths == ["c@z"]
    assert [one.code for one in said(dialogue)] == [250, 550, 250, 354]


@pytest.mark.parametrize("line", [b" BDAT 6 LAST\r\n", b"\tBDAT 6\r\n"])
def test_a_chunk_behind_a_command_that_is_none_is_not_read_as_commands(line: bytes) -> None:
    dialogue = logged_in()
    assert events(dialogue, ENVELOPE + line + b"RSET\r\n") == [Signal.ENDED]
    assert [one.code for one in said(dialogue)] == [250, 250, 500]


def test_other_sessions_get_their_turn_whatever_a_client_says() -> None:
    dialogue = logged_in()
    refused = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 1 LAST\r\n\0"
    dialogue.feed(refused * 500)
    turns = [0]
    while (event := dialogue.next_event()) is not None:
        if event is Signal.TURN_OVER:
            turns.append(0)
        turns[-1] += isinstance(event, MessageRefused)
    assert sum(turns) == 500
    assert max(turns) <= 50
    assert [one.code for one in said(dialogue)] == [250, 250, 550] * 500


@pytest.mark.parametrize(
    "command", [b"DATA\r\n%b.\r\n", b"BDAT 200000 LAST\r\n%b"], ids=["DATA", "BDAT"]
)
def test_nothing_of_a_message_is_kept_after_it(command: bytes) -> None:
    dialogue = logged_in(
        policy=replace(POLICY, max_message_bytes=1_000_000, buffer_bytes=1_000_000)
    )
    octets = ENVELOPE + command % (b"x" * 199_998 + b"\r\n")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2):
            dialogue.feed(bytes(bytearray(octets)))  # a copy, as a transport's octets are
            while dialogue.state is not State.WAITING:
                dialogue.next_event()
            dialogue.finish(replies.OK)
            while dialogue.next_event() is not None:
                pass
        del _
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


# Whatever the pieces.

_ITEMS = st.sampled_from(
    [
        b"EHLO c\r\n",
        b"AUTH PLAIN " + base64.b64encode(b"\0a@x\0secret") + b"\r\n",
        b"AUTH LOGIN\r\nYQ==\r\nYg==\r\n",
        ENVELOPE,
        b"RCPT TO:<>\r\n",
        b"DATA\r\n" + b"x" * 150 + b"\r\n..\r\n.\r\n",
        b"DATA\r\n.\r\n",
        b"DATA\r\n" + b"y" * 1100 + b"\r\n.\r\n",
        b"BDAT 5\r\nab\r\nc",
        b"BDAT 150 LAST\r\n" + b"z" * 148 + b"\r\n",
        b"BDAT 0 LAST\r\n",
        b"RSET\r\n",
        b"NOOP " + b"n" * 3000 + b"\r\n",
        b"\n",
        b"MAIL FROM:<a@x> SIZE=1001\r\n",
        b"\xff\r\n",
    ]
)


def conversation(pieces: list[bytes]) -> tuple[bytes, list[object]]:
    """Return everything said, and what the dialogue asked for, content joined."""
    dialogue, output, asked, content = new(), b"", list[object](), b""
    for piece in [*pieces, b""]:
        dialogue.feed(piece)
        if piece == b"":
            dialogue.feed_eof()
        while (event := dialogue.next_event()) not in (None, Signal.ENDED):
            if isinstance(event, LoginAttempt):
                dialogue.logged_in(LOGIN)
            elif isinstance(event, MessageComplete):
                asked.append((list(event.message.envelope.forward_paths), event.content.octets))
                dialogue.finish(replies.OK)
            elif isinstance(event, ContentArrived):
                content += event.octets
                if event.is_last:
                    asked.append((list(event.message.envelope.forward_paths), content))
                    dialogue.finish(replies.OK)
                    content = b""
                else:
                    dialogue.content_sent()
            elif isinstance(event, MessageRefused):
                asked.append((event.message.size_bytes, event.reply))
                content = b""
            elif event is Signal.TRANSACTION_DROPPED:
                content = b""
        output += dialogue.take()
    return output, asked


@given(st.lists(_ITEMS, max_size=12), st.lists(st.integers(1, 400), max_size=12), st.booleans())
def test_any_split_of_a_dialogue_gives_the_same_replies_and_messages(
    items: list[bytes], sizes: list[int], begins_well: bool
) -> None:
    head = b"EHLO c\r\nAUTH PLAIN AGFAeABzZWNyZXQ=\r\n" if begins_well else b""
    octets, pieces = head + b"".join(items), list[bytes]()
    rest = octets
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces = [piece for piece in [*pieces, rest] if piece]
    assert conversation(pieces) == conversation([octets] if octets else [])
