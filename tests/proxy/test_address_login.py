"""Clients that send without AUTH: their address may be what tells who they are."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules
from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.smtp.protocol import Reply, ReplyParser
from xoauth2_proxy.submission.address_login import choose_login
from xoauth2_proxy.submission.dialogue import ClientDialogue
from xoauth2_proxy.submission.events import Event, LoginAttempt, MessageComplete
from xoauth2_proxy.submission.policy import SessionPolicy

POLICY = SessionPolicy(
    hostname="relay.example",
    max_message_bytes=1000,
    max_recipients=3,
    buffer_bytes=100,
    idle_seconds=300.0,
    tls_context=None,
    may_auth_in_clear=False,  # no password is sent, so none can be read on the way
)
ONE, OTHER = "one@example.com", "other@example.com"
CONTENT = b"RCPT TO:<b@y>\r\nDATA\r\nhello\r\n.\r\n"


def login(email: str, name: str = "copier", *senders: str) -> Login:
    networks = (ipaddress.ip_network("10.0.0.0/8"),)
    credential = Credential(name=name, networks=networks, senders=senders)
    return Login(replace(mailbox(email), credentials=(credential,)), credential)


@pytest.mark.parametrize(
    ("logins", "sender", "chosen"),
    [
        ([login(ONE)], "anyone@else.example", 0),
        ([login(ONE)], "", 0),
        ([login(ONE), login(OTHER)], "Other@Example.com", 1),
        ([login(ONE), login(OTHER)], "anyone@else.example", None),
        ([login(ONE), login(OTHER)], "", None),
        ([login(ONE), login(OTHER, "fax", "*@else.example")], "anyone@else.example", 1),
        ([login(ONE, "fax", "*"), login(OTHER)], "anyone@else.example", 0),
        ([login(ONE, "fax", "*"), login(OTHER)], OTHER, 1),
        ([login(ONE, "fax", "*"), login(OTHER, "fax", "*")], "anyone@else.example", None),
        ([login(ONE, "first"), login(ONE, "second")], "anyone@else.example", 0),
        ([login(ONE, "first"), login(ONE, "second", "a@x")], "a@x", 1),
    ],
)
def test_the_sender_chooses_among_several(
    logins: list[Login], sender: str, chosen: int | None
) -> None:
    expected = None if chosen is None else logins[chosen]
    assert choose_login(logins, sender) is expected


@pytest.mark.parametrize(
    ("pattern", "sender", "matches"),
    [
        ("*", "a@x", True),
        ("*", "", True),
        ("*@x.example", "A@X.Example", True),
        ("*@x.example", "a@sub.x.example", False),
        ("*@x.example", "x.example", False),
        ("a@x", "A@x", True),
        ("a@x", "b@x", False),
    ],
)
def test_senders_are_matched(pattern: str, sender: str, matches: bool) -> None:
    assert SenderRules((pattern,), FromRule()).allows(sender) is matches


class Conversation:
    """A dialogue with a client of 10.0.0.1."""

    def __init__(self, *logins: Login) -> None:
        self.logins = list(logins)
        self.client = ConnectedClient("10.0.0.1")
        self.dialogue = ClientDialogue(
            POLICY, lambda login: login, client=self.client, without_password=self._find
        )

    def _find(self, address: str) -> list[Login]:
        assert address == "10.0.0.1"
        return self.logins

    def says(self, octets: bytes) -> tuple[list[Reply], Event | None]:
        self.dialogue.feed(octets)
        event = self.dialogue.next_event()
        return ReplyParser().feed(self.dialogue.take()), event


def test_a_client_whose_address_suffices_sends_without_auth() -> None:
    one = Conversation(login(ONE))
    said, event = one.says(b"EHLO c\r\nMAIL FROM:<a@x>\r\n" + CONTENT)
    assert said[1:] == [replies.SENDER_OK, replies.RECIPIENT_OK, replies.SEND_CONTENT]
    assert isinstance(event, MessageComplete)
    assert event.message.login == login(ONE)
    assert (one.client.account, one.client.credential) == (ONE, "copier")
    assert one.dialogue.is_logged_in


def test_every_other_client_is_asked_for_auth() -> None:
    one = Conversation()
    said, _ = one.says(b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n")
    assert said[1:] == [replies.AUTH_REQUIRED] * 3
    assert one.client.reason is Refused.AUTH_REQUIRED
    assert not one.dialogue.is_logged_in


def test_each_message_has_the_mailbox_of_its_own_sender() -> None:
    one = Conversation(login(ONE), login(OTHER))
    one.says(b"EHLO c\r\n")
    for sender in (ONE, OTHER):
        _, event = one.says(f"MAIL FROM:<{sender}>\r\n".encode() + CONTENT)
        assert isinstance(event, MessageComplete)
        assert event.message.login.account.email == sender
        one.dialogue.finish(replies.OK)
        one.dialogue.take()
    said, _ = one.says(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nMAIL FROM:<one@example.com>\r\n")
    assert said == [replies.SENDER_CHOOSES_NONE, replies.AUTH_REQUIRED, replies.SENDER_OK]


def test_a_revoked_address_sends_nothing_more() -> None:
    one = Conversation(login(ONE))
    one.says(b"EHLO c\r\nMAIL FROM:<a@x>\r\nRSET\r\n")
    one.logins.clear()
    said, _ = one.says(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n")
    assert said == [replies.AUTH_REQUIRED] * 2


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"MAIL FROM:<a@x\r\n", replies.SENDER_MALFORMED),
        (b"MAIL FROM:<a@x> SIZE=99999\r\n", replies.TOO_LARGE),
    ],
)
def test_a_bad_mail_begins_nothing(line: bytes, answer: Reply) -> None:
    one = Conversation(login(ONE))
    said, _ = one.says(b"EHLO c\r\n" + line + b"RCPT TO:<b@y>\r\n")
    assert said[1:] == [answer, replies.AUTH_REQUIRED]
    assert not one.dialogue.is_logged_in


def test_a_second_mail_within_a_transaction_is_refused() -> None:
    one = Conversation(login(ONE))
    said, _ = one.says(b"EHLO c\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\n" + CONTENT)
    assert said[1:4] == [replies.SENDER_OK, replies.BAD_SEQUENCE, replies.RECIPIENT_OK]


def test_such_a_client_may_still_log_in() -> None:
    one = Conversation(login(ONE))
    one.dialogue._policy = replace(POLICY, may_auth_in_clear=True)
    one.says(b"EHLO c\r\nMAIL FROM:<a@x>\r\nRSET\r\n")
    _, event = one.says(b"AUTH PLAIN AGEAYg==\r\n")
    assert isinstance(event, LoginAttempt)
    one.dialogue.logged_in(Login(mailbox(OTHER)))
    said, event = one.says(b"MAIL FROM:<a@x>\r\n" + CONTENT)
    assert isinstance(event, MessageComplete)
    assert event.message.login.account.email == OTHER
    assert replies.AUTHENTICATED in said
