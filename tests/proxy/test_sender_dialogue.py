"""The dialogue with a client whose login has rules: in DATA and BDAT, whatever the pieces."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.test_client_dialogue import POLICY, said
from tests.proxy.test_sender_check import ANSWERED, CHECKED, NAMED, REWRITTEN, blocks
from tests.support.accounts import mailbox
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules
from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope, Reply
from xoauth2_proxy.smtp.sasl import PasswordLogin
from xoauth2_proxy.submission.dialogue import ClientDialogue, State
from xoauth2_proxy.submission.events import (
    ContentArrived,
    Event,
    LoginAttempt,
    MessageComplete,
    MessageRefused,
    RecipientAdded,
    Signal,
)
from xoauth2_proxy.submission.sender_check import (
    MAX_HEADER_BYTES,
    SenderRefused,
    checked_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

PLENTY = replace(POLICY, max_message_bytes=10_000_000)
OWN = b"own@x.example"
ENVELOPE = b"MAIL FROM:<own@x.example>\r\nRCPT TO:<b@y>\r\n"


class Conversation:
    """A client that has logged in, and what became of its messages."""

    def __init__(
        self,
        rules: SenderRules | None,
        *,
        verifies: bool = False,
        buffer_bytes: int = 100,
        strict: bool = False,
    ) -> None:
        account = replace(mailbox(), verifies=verifies)
        if rules is not None:
            account = replace(account, senders=rules.senders, from_rule=rules.from_rule)
        self.client = ConnectedClient()
        policy = replace(PLENTY, buffer_bytes=buffer_bytes, strict=strict)
        self.login = Login(account, account.own_credential)
        self.dialogue = ClientDialogue(
            policy, lambda login: self.login, client=self.client, session_id="s"
        )
        self.content = b""  # as BDAT would carry it, of the last message
        self.parts = 0  # that went on before the last one
        self.envelope = Envelope()
        self.events: list[Event] = []
        self.say(b"EHLO c\r\nAUTH PLAIN AGEAYg==\r\n")
        said(self.dialogue)

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.dialogue.feed(piece)
            while (event := self.dialogue.next_event()) is not None:
                if event is Signal.ENDED:
                    return
                self._answer(event)

    def _answer(self, event: Event) -> None:
        dialogue = self.dialogue
        if isinstance(event, LoginAttempt):
            assert isinstance(event.credentials, PasswordLogin)
            dialogue.logged_in(self.login)
        elif isinstance(event, RecipientAdded):
            dialogue.recipient_answered(replies.RECIPIENT_OK)
        elif isinstance(event, MessageComplete):
            self.envelope = event.message.envelope
            self.content = event.content.for_bdat()
            dialogue.finish(replies.OK)
        elif isinstance(event, ContentArrived):
            self.envelope = event.message.envelope
            self._stuffed += event.octets
            if event.is_last:
                ended = (
                    self._stuffed if self._stuffed.endswith(b"\r\n") else self._stuffed + b"\r\n"
                )
                self.content = Content(ended, event.is_stuffed).for_bdat()
                dialogue.finish(replies.OK)
            else:
                self.parts += 1
                dialogue.content_sent()
        elif event is not Signal.TURN_OVER:
            self.events.append(event)

    _stuffed = b""

    def last_reply(self) -> Reply:
        return said(self.dialogue)[-1]


def by_data(content: bytes) -> bytes:
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    return b"DATA\r\n" + stuffed + b".\r\n"


def by_bdat(content: bytes) -> bytes:
    return b"BDAT %d LAST\r\n" % len(content) + content


def by_bdat_in_chunks(content: bytes) -> bytes:
    chunks, size = b"", 1
    while content:
        chunks += b"BDAT %d\r\n" % len(content[:size]) + content[:size]
        content, size = content[size:], size + 2
    return chunks + b"BDAT 0 LAST\r\n"


WAYS = pytest.mark.parametrize("way", [by_data, by_bdat, by_bdat_in_chunks])
MODES = pytest.mark.parametrize(
    ("verifies", "buffer_bytes"), [(False, 1_000_000), (False, 100), (True, 100)]
)


@WAYS
@MODES
def test_a_sender_is_rewritten_wherever_the_content_is_held(
    way: Callable[[bytes], bytes], verifies: bool, buffer_bytes: int
) -> None:
    talk = Conversation(ANSWERED, verifies=verifies, buffer_bytes=buffer_bytes)
    body = b"\r\n.\r\n..\r\nFrom: evil@y\r\n" * 50
    octets = way(b"To: t\r\nFrom: B\r\n <evil@y.example>\r\nX: y\r\n" + body)
    talk.say(ENVELOPE, *(octets[at : at + 50] for at in range(0, len(octets), 50)))
    assert talk.last_reply() == replies.OK
    assert talk.content == (
        b"To: t\r\nFrom: B <own@x.example>\r\nReply-To: B\r\n <evil@y.example>\r\nX: y\r\n" + body
    )
    assert bool(talk.parts) is (buffer_bytes < 1000)


@WAYS
@MODES
def test_a_sender_is_refused_wherever_the_content_is_held(
    way: Callable[[bytes], bytes], verifies: bool, buffer_bytes: int
) -> None:
    talk = Conversation(CHECKED, verifies=verifies, buffer_bytes=buffer_bytes)
    content = b"From: evil@y.example\r\n\r\n" + b"x\r\n" * 500
    talk.say(ENVELOPE, *(way(content)[at : at + 50] for at in range(0, 5000, 50)), b"RSET\r\n")
    (*stopped, refused) = talk.events
    assert isinstance(refused, MessageRefused)
    assert refused.message.size_bytes == len(content) or way is by_bdat_in_chunks
    assert stopped in ([], [Signal.CONTENT_UNACCEPTABLE])
    assert bool(stopped) is (verifies)
    assert talk.parts == 0
    assert talk.content == b""
    assert str(refused.reply) == (
        "550 5.7.1 evil@y.example in From is not allowed; "
        "this login may send as own@x.example, *@ours.example"
    )
    assert refused.reply in said(talk.dialogue)
    talk.say(ENVELOPE + way(b"From: own@x.example\r\n\r\n"))
    assert talk.last_reply() == replies.OK


@pytest.mark.parametrize(
    ("header", "reason", "detail"),
    [
        (b"From: evil@y.example\r\n", Refused.SENDER_NOT_ALLOWED, "evil@y.example"),
        (b"From: own@x.example\r\nSender: evil@y\r\n", Refused.SENDER_NOT_ALLOWED, "evil@y"),
        (b"To: t\r\n", Refused.CONTENT_MALFORMED, "the message has no From field"),
        (b"From: A\r\n", Refused.CONTENT_MALFORMED, "the From field is malformed"),
    ],
)
def test_whoever_watches_the_clients_is_told_why(
    header: bytes, reason: Refused, detail: str
) -> None:
    talk = Conversation(CHECKED)
    talk.say(ENVELOPE + by_data(header + b"\r\n"))
    (refused,) = talk.events
    assert isinstance(refused, MessageRefused)
    client = refused.message.client
    assert client is talk.client
    assert (client.reason, client.detail, client.reply) == (reason, detail, refused.reply)


def test_another_sender_in_mail_begins_no_transaction() -> None:
    talk = Conversation(CHECKED)
    talk.say(b"MAIL FROM:<evil@y.example>\r\nRCPT TO:<b@y>\r\nDATA\r\n")
    codes = [(one.code, one.enhanced) for one in said(talk.dialogue)]
    assert codes == [(550, "5.7.1"), (503, "5.5.1"), (503, "5.5.1")]
    assert talk.client.reason is Refused.SENDER_NOT_ALLOWED
    assert (talk.client.sender, talk.client.detail) == ("evil@y.example",) * 2
    talk.say(ENVELOPE + by_data(b"From: own@x.example\r\n\r\n"))
    assert talk.last_reply() == replies.OK


def test_a_refused_sender_is_reported_although_the_next_message_is_accepted() -> None:
    seen = []

    class Observer:
        def turned_away(self, client: ConnectedClient) -> None:
            seen.append((client.reason, client.sender))

        def finished(
            self, client: ConnectedClient, sender: str, size_bytes: int, reply: Reply
        ) -> None:
            raise AssertionError

    talk = Conversation(CHECKED)
    talk.client.observer = Observer()
    talk.say(b"MAIL FROM:<evil@y.example>\r\n", ENVELOPE)
    assert seen == [(Refused.SENDER_NOT_ALLOWED, "evil@y.example")]


def test_the_sender_in_mail_is_rewritten_before_the_provider_hears_of_it() -> None:
    talk = Conversation(REWRITTEN, verifies=True)
    talk.say(b"MAIL FROM:<evil@y.example> RET=HDRS\r\nRCPT TO:<b@y>\r\n" + by_data(b"\r\nx\r\n"))
    assert talk.last_reply() == replies.OK
    assert talk.envelope == Envelope("own@x.example", ["b@y"], ret="HDRS")
    assert talk.content == b"From: own@x.example\r\n\r\nx\r\n"


def test_the_null_sender_may_send_what_its_header_allows() -> None:
    talk = Conversation(CHECKED)
    envelope = b"MAIL FROM:<>\r\nRCPT TO:<b@y>\r\n"
    talk.say(envelope + by_data(b"From: own@x.example\r\n\r\n"))
    assert talk.last_reply() == replies.OK
    assert talk.envelope.reverse_path == ""
    talk.say(envelope + by_data(b"From: MAILER-DAEMON@host.example\r\n\r\n"))
    assert talk.last_reply().code == 550


def test_rules_apply_from_the_next_mail_on() -> None:
    talk = Conversation(None)
    envelope = b"MAIL FROM:<evil@y.example>\r\nRCPT TO:<b@y>\r\n"
    talk.say(envelope)
    talk.login = replace(talk.login, account=replace(talk.login.account, senders=("a@x",)))
    talk.say(by_data(b"From: evil@y.example\r\n\r\n"))
    assert [one.code for one in said(talk.dialogue)] == [250, 250, 354, 250]
    talk.say(envelope)
    assert [one.code for one in said(talk.dialogue)] == [550, 503]
    talk.login = replace(talk.login, account=replace(talk.login.account, senders=()))
    talk.say(envelope)
    assert [one.code for one in said(talk.dialogue)] == [250, 250]


def test_a_dot_that_protects_a_line_hides_no_field() -> None:
    talk = Conversation(CHECKED)
    talk.say(ENVELOPE + b"DATA\r\n.From: evil@y.example\r\n\r\nx\r\n.\r\n")
    assert talk.last_reply().text[0].startswith("evil@y.example in From is not allowed")
    talk = Conversation(REWRITTEN)
    talk.say(ENVELOPE + b"DATA\r\n.From: evil@y\r\n..A: b\r\n.C: d\r\n\r\n..x\r\n.\r\n")
    assert talk.content == b"From: own@x.example\r\n.A: b\r\nC: d\r\n\r\n.x\r\n"


@WAYS
def test_bare_line_ends_hide_no_field(way: Callable[[bytes], bytes]) -> None:
    talk = Conversation(CHECKED)
    talk.say(ENVELOPE + way(b"From: own@x.example\nfrom: evil@y\n\nx\n\r\n"))
    assert talk.last_reply().text[0].startswith("The message has several From fields")
    talk.say(ENVELOPE + way(b"To: t\r\nFrom: evil\r\r\n <evil@y>\n\nx\n\r\n"))
    assert talk.last_reply().text[0].startswith("evil@y in From is not allowed")


# The limit of the header.


@pytest.mark.parametrize("way", [by_data, by_bdat])
@pytest.mark.parametrize("buffer_bytes", [1000, 1_000_000])
@pytest.mark.parametrize(("more", "code"), [(0, 250), (1, 550)])
def test_a_header_has_256_kib_at_most(
    way: Callable[[bytes], bytes], buffer_bytes: int, more: int, code: int
) -> None:
    start = b"From: own@x.example\r\n"
    header = start + b"X: ".ljust(MAX_HEADER_BYTES - len(start) - 2 + more, b"x") + b"\r\n"
    for body in (b"\r\n", b"\r\n" + b"y\r\n" * 100_000, b""):
        talk = Conversation(CHECKED, buffer_bytes=buffer_bytes)
        octets = way(header + body)
        talk.say(ENVELOPE, *(octets[at : at + 9000] for at in range(0, len(octets), 9000)))
        answer = talk.last_reply()
        assert answer.code == code
        if code == 550:
            assert answer == replies.HEADER_TOO_LARGE
            assert talk.parts == 0
        else:
            assert talk.content == header + body


@pytest.mark.parametrize("first_line", [b"x" * 300, b"no header", b" From: evil@y"])
def test_a_long_text_without_a_header_gets_one(first_line: bytes) -> None:
    text = first_line + b"\r\n" + b"words and words\r\n" * 30_000
    talk = Conversation(REWRITTEN, buffer_bytes=1000)
    octets = by_data(text)
    talk.say(ENVELOPE, *(octets[at : at + 9000] for at in range(0, len(octets), 9000)))
    assert talk.last_reply() == replies.OK
    assert talk.content == b"From: own@x.example\r\n\r\n" + text
    assert talk.parts > 50


def test_a_header_that_never_ends_is_not_held_for_long() -> None:
    talk = Conversation(CHECKED, buffer_bytes=1000)
    talk.say(ENVELOPE + b"DATA\r\n")
    held = []
    for _ in range(100):
        talk.say(b"X: " + b"y" * 8000 + b"\r\n")
        assert talk.dialogue._collector is not None
        held.append(talk.dialogue._collector.held_bytes)
    assert max(held) < MAX_HEADER_BYTES + 10_000
    assert held[-1] == 0
    talk.say(b"\r\n.\r\n")
    assert talk.last_reply() == replies.HEADER_TOO_LARGE


# Whatever the pieces.

_rules = st.sampled_from([CHECKED, REWRITTEN, ANSWERED, NAMED])
_bodies = st.lists(st.sampled_from([b"x", b".", b"From: evil@y", b"", b"y" * 90])).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


def cut(octets: bytes, draw: Callable[[int, int], int]) -> Iterable[bytes]:
    while octets:
        size = draw(1, min(len(octets), 60))
        yield octets[:size]
        octets = octets[size:]


@given(blocks, _bodies, _rules, st.sampled_from([by_data, by_bdat, by_bdat_in_chunks]), st.data())
def test_the_header_is_checked_and_the_rest_goes_on(
    block: bytes,
    body: bytes,
    rules: SenderRules,
    way: Callable[[bytes], bytes],
    data: st.DataObject,
) -> None:
    verifies, buffer_bytes = data.draw(st.booleans()), data.draw(st.sampled_from([0, 70, 10_000]))
    talk = Conversation(rules, verifies=verifies, buffer_bytes=buffer_bytes)
    content = block + b"\r\n" + body
    octets = ENVELOPE + way(content)
    talk.say(*cut(octets, lambda low, high: data.draw(st.integers(low, high))))
    answer = talk.last_reply()
    expected = checked_or_refused(block, rules)
    if isinstance(expected, bytes):
        assert answer == replies.OK
        assert talk.content == expected + b"\r\n" + body
    else:
        assert answer in (expected, replies.BAD_SEQUENCE)  # the latter: to the next chunks
        refused = talk.events[-1]
        assert isinstance(refused, MessageRefused)
        assert refused.reply == expected
        assert talk.parts == 0


def checked_or_refused(block: bytes, rules: SenderRules) -> bytes | Reply:
    try:
        return checked_header(block, rules)
    except SenderRefused as refused:
        return refused.reply


# What costs nothing.


def calls(rules: SenderRules | None) -> tuple[int, set[str]]:
    """Return how many functions are called for one message, and of which of our modules."""
    talk = Conversation(rules, buffer_bytes=1_000_000)
    octets = ENVELOPE + by_data(b"From: own@x.example\r\n\r\n" + b"x\r\n" * 100)
    talk.say(octets)
    found: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            found.append(frame.f_globals["__name__"])

    talk.dialogue.feed(octets)
    sys.setprofile(note)
    try:
        while talk.dialogue.state is not State.WAITING:
            talk.dialogue.next_event()
    finally:
        sys.setprofile(None)
    return len(found), {name.rpartition(".")[2] for name in found if "xoauth2_proxy" in name}


def test_a_message_without_rules_is_not_parsed() -> None:
    parts = {"header_fields", "mailbox_list", "sender_check", "sender_rules", "from_field"}
    _, modules = calls(SenderRules(("own@x.example",), FromRule()))
    assert modules & parts == parts - {"from_field"}
    _, modules = calls(None)
    assert modules & parts == set()
