"""CRAM-MD5 where a listener offers it: for passwords known in clear, and no others (RFC 2195)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import smtplib
from dataclasses import replace
from typing import TYPE_CHECKING

import argon2
import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.accounts import Account, Accounts
from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.accounts.local_password import LocalPassword, digest_of_key
from xoauth2_proxy.errors import CredentialsRejected
from xoauth2_proxy.smtp.protocol import Reply, ReplyParser
from xoauth2_proxy.smtp.sasl import DEFAULT_MECHANISMS, ChallengeLogin
from xoauth2_proxy.submission.dialogue import ClientDialogue
from xoauth2_proxy.submission.events import LoginAttempt
from xoauth2_proxy.submission.policy import SessionPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.submission.events import Event

# RFC 2195 §2: the challenge, and the answer of tim, whose password is tanstaaftanstaaf.
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
ANSWER = "b913a602c7eda7a495b4e6e7334d3890"
PASSWORD = "tanstaaftanstaaf"
POLICY = SessionPolicy(
    hostname="relay.example",
    max_message_bytes=1000,
    max_recipients=3,
    buffer_bytes=100,
    idle_seconds=300.0,
    tls_context=None,
    may_auth_in_clear=True,
)


def account(**passwords: LocalPassword) -> Account:
    credentials = [
        Credential(name=name, login=name, password=one) for name, one in passwords.items()
    ]
    return replace(mailbox("tim@example.com"), credentials=tuple(credentials))


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    made = Accounts(
        [
            account(
                tim=LocalPassword(clear_text=PASSWORD),
                long=LocalPassword(clear_text="p" * 100),
                hashed=LocalPassword(argon2_hash=cheap.hash(PASSWORD)),
                keyed=LocalPassword(key_digest=digest_of_key(PASSWORD)),
            )
        ]
    )
    yield made
    made.close()


def test_the_answer_of_the_rfc_logs_in(accounts: Accounts) -> None:
    login = accounts.authenticate_answer("Tim", CHALLENGE, bytes.fromhex(ANSWER))
    assert login.credential is not None
    assert login.credential.name == "tim"


def test_a_password_longer_than_a_block_is_hashed_first(accounts: Accounts) -> None:
    # As RFC 2104 §2 says; one client did not (msmtp issue 121).
    hashed = hashlib.md5(b"p" * 100).digest()
    digest = hmac.digest(hashed, CHALLENGE, "md5")
    assert accounts.authenticate_answer("long", CHALLENGE, digest).credential


@pytest.mark.parametrize("login", ["hashed", "keyed", "unknown", "", "tim@example.org"])
def test_a_password_that_is_not_known_in_clear_cannot_answer(
    accounts: Accounts, login: str
) -> None:
    with pytest.raises(CredentialsRejected):
        accounts.authenticate_answer(login, CHALLENGE, bytes.fromhex(ANSWER))


def test_the_answer_to_another_challenge_is_wrong(accounts: Accounts) -> None:
    with pytest.raises(CredentialsRejected):
        accounts.authenticate_answer("tim", CHALLENGE + b" ", bytes.fromhex(ANSWER))
    # An unknown login is checked with a key that nobody has, not with an empty one.
    empty = hmac.digest(b"", CHALLENGE, "md5")
    with pytest.raises(CredentialsRejected):
        accounts.authenticate_answer("unknown", CHALLENGE, empty)


class Conversation:
    def __init__(self, *mechanisms: str) -> None:
        policy = replace(POLICY, mechanisms=mechanisms or DEFAULT_MECHANISMS)
        self.dialogue = ClientDialogue(policy, lambda login: login)

    def says(self, line: str) -> tuple[list[Reply], Event | None]:
        self.dialogue.feed(line.encode() + b"\r\n")
        event = self.dialogue.next_event()
        return ReplyParser().feed(self.dialogue.take()), event


def test_it_is_not_offered_unless_the_listener_lists_it() -> None:
    client = Conversation()
    (hello,), _ = client.says("EHLO c")
    assert "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER" in hello.text
    assert client.says("AUTH CRAM-MD5")[0] == [replies.AUTH_MECHANISM_UNKNOWN]


def test_only_what_a_listener_lists_is_offered_and_accepted() -> None:
    client = Conversation("CRAM-MD5", "PLAIN")
    (hello,), _ = client.says("EHLO c")
    assert "AUTH CRAM-MD5 PLAIN" in hello.text
    assert client.says("AUTH LOGIN")[0] == [replies.AUTH_MECHANISM_UNKNOWN]


@pytest.mark.parametrize("response", ["=", base64.b64encode(f"tim {ANSWER}".encode()).decode()])
def test_an_initial_response_is_refused_since_the_server_speaks_first(response: str) -> None:
    client = Conversation("CRAM-MD5")
    client.says("EHLO c")
    assert client.says(f"AUTH CRAM-MD5 {response}")[0] == [replies.AUTH_MALFORMED]


def test_smtplib_answers_our_challenge(accounts: Accounts) -> None:
    client = Conversation("CRAM-MD5")
    client.says("EHLO c")
    (challenge,), _ = client.says("AUTH CRAM-MD5")
    assert challenge.code == 334
    theirs = smtplib.SMTP()
    theirs.user, theirs.password = "tim", PASSWORD
    answer = theirs.auth_cram_md5(base64.b64decode(challenge.text[0]))
    _, event = client.says(base64.b64encode(str(answer).encode()).decode())
    assert isinstance(event, LoginAttempt)
    found = event.credentials
    assert isinstance(found, ChallengeLogin)
    login = accounts.authenticate_answer(found.authcid, found.challenge, found.digest)
    assert login.account.email == "tim@example.com"
