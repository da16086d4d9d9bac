"""Why clients are turned away: a reason for every refusal, and the one that says most."""

from __future__ import annotations

from ssl import SSLError

import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy import errors, replies
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.clients.masking import masked
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.submission.dialogue import ClientDialogue
from xoauth2_proxy.submission.events import LoginAttempt
from xoauth2_proxy.submission.policy import SessionPolicy
from xoauth2_proxy.submission.refusal_reasons import REASONS, handshake_failure, login_failure

POLICY = SessionPolicy(
    hostname="relay.example",
    max_message_bytes=100_000,
    max_recipients=2,
    buffer_bytes=50_000,
    idle_seconds=10.0,
    tls_context=None,
    may_auth_in_clear=True,
)
# Whoever sends these knows the reason, and notes it.
_NOTED_BY_THE_SENDER = {
    *("CREDENTIALS_INVALID", "SIGN_IN_AGAIN", "OWN_TOKEN_REQUIRED", "AUTH_UNAVAILABLE"),
    *("CREDENTIAL_DISABLED", "CREDENTIAL_EXPIRED", "CREDENTIAL_NOT_FROM_HERE"),
    "TOO_MANY_AUTH_FAILURES",  # the failures have their reasons
}
# The final replies of transactions have a line of their own; a stop turns nobody away.
_OF_TRANSACTIONS = {
    *("SMTPUTF8_UNSUPPORTED", "DSN_UNSUPPORTED", "EIGHT_BIT_UNSUPPORTED"),
    *(name for name in vars(replies) if name.startswith("UPSTREAM_")),
    *("GRANT_ENDED", "TOKEN_UNAVAILABLE", "SHUTTING_DOWN"),
}
AUTH = b"AUTH PLAIN AHNvbWVvbmVAZXhhbXBsZS5jb20Ac2VjcmV0\r\n"


class Heard:
    """Hears of clients, and keeps why they were turned away."""

    def __init__(self) -> None:
        self.reasons: list[Refused | None] = []
        self.finished_with: list[Reply] = []

    def turned_away(self, client: ConnectedClient) -> None:
        self.reasons.append(client.reason)

    def finished(self, client: ConnectedClient, sender: str, size_bytes: int, reply: Reply) -> None:
        self.finished_with.append(reply)


def spoken(client: ConnectedClient, octets: bytes, policy: SessionPolicy = POLICY) -> None:
    """Let a client that has the right password say `octets`, and close its side."""
    dialogue = ClientDialogue(policy, lambda login: login, client=client)
    dialogue.feed(octets)
    dialogue.feed_eof()
    while not dialogue.is_closed:
        event = dialogue.next_event()
        if isinstance(event, LoginAttempt):
            dialogue.logged_in(Login(mailbox("someone@example.com")))


@pytest.mark.parametrize(
    "name",
    [n for n, one in vars(replies).items() if isinstance(one, Reply) and one.code >= 400],
)
def test_every_refusal_has_a_reason(name: str) -> None:
    has_row = getattr(replies, name) in REASONS
    assert has_row != (name in _NOTED_BY_THE_SENDER | _OF_TRANSACTIONS)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"EHLO a\r\nAUTH CRAM-MD5\r\n", Refused.MECHANISM_UNKNOWN),
        (b"EHLO a\r\nMAIL FROM:<a@b>\r\n", Refused.AUTH_REQUIRED),
        (b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nQUIT\r\n", Refused.AUTH_REQUIRED),
        (b"EHLO a\r\nXYZ\r\n", Refused.BAD_COMMANDS),
        (b"EHLO a\r\nAUTH PLAIN *\r\n", Refused.AUTH_MALFORMED),
        (b"EHLO a\r\nAUTH LOGIN\r\n*\r\n", Refused.AUTH_CANCELLED),
        (b"EHLO a\r\nSTARTTLS\r\n", Refused.TLS_NOT_OFFERED),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Refused.TLS_ON_PLAIN_PORT),
        (b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a b>\r\n", Refused.SENDER_MALFORMED),
        (b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a@b> X=1\r\n", Refused.PARAMETER_UNKNOWN),
        (b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a@b> SIZE=100001\r\n", Refused.TOO_LARGE),
        (b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a@b>\r\nRCPT TO:<>\r\n", Refused.RECIPIENT_MALFORMED),
        (
            b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<a@b>\r\n" * 3,
            Refused.TOO_MANY_RECIPIENTS,
        ),
        (
            b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: a\r\n",
            Refused.CONTENT_BROKEN_OFF,
        ),
        # It got what it wanted in the end.
        (b"EHLO a\r\nXYZ\r\nMAIL FROM:<a@b>\r\n" + AUTH + b"QUIT\r\n", None),
        # What says most is kept.
        (b"EHLO a\r\nAUTH CRAM-MD5\r\nMAIL FROM:<a@b>\r\nXYZ\r\n", Refused.MECHANISM_UNKNOWN),
        (b"EHLO a\r\nXYZ\r\nMAIL FROM:<a@b>\r\n", Refused.AUTH_REQUIRED),
    ],
)
def test_reason_is_that_of_the_refusal_which_says_most(said: bytes, reason: Refused | None) -> None:
    client = ConnectedClient()
    spoken(client, said)
    assert client.reason is reason


def test_client_that_is_not_offered_auth_in_clear_is_told_by_its_reason() -> None:
    client = ConnectedClient()
    policy = SessionPolicy(
        hostname="relay.example",
        max_message_bytes=100_000,
        max_recipients=2,
        buffer_bytes=50_000,
        idle_seconds=10.0,
        tls_context=None,
        may_auth_in_clear=False,
    )
    spoken(client, b"EHLO printer\r\nAUTH LOGIN\r\n", policy)
    assert client.reason is Refused.AUTH_NEEDS_TLS
    assert client.greeting == "printer"


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r"])
def test_client_that_waits_after_a_mistaken_end_of_data_is_known_when_its_time_is_over(
    end: bytes,
) -> None:
    client = ConnectedClient()
    dialogue = ClientDialogue(POLICY, lambda login: login, client=client)
    dialogue.feed(b"EHLO a\r\n" + AUTH)
    assert isinstance(dialogue.next_event(), LoginAttempt)
    dialogue.logged_in(Login(mailbox("someone@example.com")))
    dialogue.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: a" + end)
    assert dialogue.next_event() is None
    dialogue.close(replies.IDLE_TOO_LONG)
    assert client.reason is Refused.NO_END_OF_DATA


def test_transaction_given_up_after_a_refusal_is_reported_at_once() -> None:
    heard = Heard()
    client = ConnectedClient(observer=heard)
    spoken(client, b"EHLO a\r\n" + AUTH + b"MAIL FROM:<a b>\r\nRSET\r\nQUIT\r\n")
    assert heard.reasons == [Refused.SENDER_MALFORMED]


def test_attempts_in_a_row_are_counted() -> None:
    client = ConnectedClient()
    spoken(client, b"EHLO a\r\n" + b"AUTH CRAM-MD5\r\n" * 3)
    assert client.attempts == 3


def test_accepted_message_forgives() -> None:
    heard = Heard()
    client = ConnectedClient(observer=heard)
    client.refuse(Refused.BAD_COMMANDS)
    client.finished("a@b", 10, replies.OK)
    client.report()
    assert heard.reasons == []
    assert (heard.finished_with, client.messages) == ([replies.OK], 1)


@pytest.mark.parametrize(
    ("openssl", "reason"),
    [
        ("UNSUPPORTED_PROTOCOL", Refused.TLS_TOO_OLD),
        ("TLSV1_ALERT_UNKNOWN_CA", Refused.TLS_NOT_TRUSTED),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", Refused.TLS_NOT_TRUSTED),
        ("HTTP_REQUEST", Refused.TLS_FAILED),
        ("NO_SHARED_CIPHER", Refused.TLS_FAILED),
        ("", Refused.TLS_FAILED),
    ],
)
def test_failed_handshake_has_a_reason(openssl: str, reason: Refused) -> None:
    error = SSLError(1, "no")
    error.reason = openssl
    assert handshake_failure(error)[0] is reason


@pytest.mark.parametrize(
    ("error", "is_known", "reason"),
    [
        (errors.CredentialsRejected("no"), True, Refused.PASSWORD_WRONG),
        (errors.CredentialsRejected("no"), False, Refused.LOGIN_UNKNOWN),
        (
            errors.CredentialsRejected("no", reason="credential_expired"),
            True,
            Refused.CREDENTIAL_EXPIRED,
        ),
        (errors.GrantRevoked("no"), True, Refused.SIGN_IN_NEEDED),
        (errors.OwnTokenRequired("no"), True, Refused.OWN_TOKEN_REQUIRED),
        (errors.TokenEndpointUnavailable("no"), True, Refused.LOGIN_UNAVAILABLE),
        (
            errors.UpstreamAuthRejected(Reply(535, "5.7.8", ("no",))),
            True,
            Refused.TOKEN_REFUSED,
        ),
    ],
)
def test_failed_login_has_a_reason(
    error: errors.ProxyError, is_known: bool, reason: Refused
) -> None:
    assert login_failure(error, is_known=is_known) is reason


def test_mask_tells_only_the_length() -> None:
    assert masked("hunter2") == "******* (7 characters)"
    assert masked("x" * 100) == "******** (100 characters)"
