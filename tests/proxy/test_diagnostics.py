"""Providers' words: every row is reached by its own words, and no words do harm."""

from __future__ import annotations

import shlex
import string
from typing import TYPE_CHECKING, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.diagnostics import Advice, Explanations, explain, refusal_table
from xoauth2_proxy.diagnostics.advice import MAILBOX as PLACE
from xoauth2_proxy.diagnostics.advice import normalised
from xoauth2_proxy.smtp.protocol import ReplyParser

if TYPE_CHECKING:
    from collections.abc import Iterator

MAILBOX = "alice@example.com"
TABLE = refusal_table()


# What a provider says, as it comes: one text for each row, in the table's order.
EXAMPLES = (
    "invalid_grant: AADSTS700082: The refresh token has expired due to inactivity.",
    "invalid_grant: AADSTS700084: The refresh token was issued to a single page app (SPA).",
    "invalid_grant: AADSTS70043: The refresh token has expired or is invalid due to sign-in "
    "frequency checks by conditional access.",
    "invalid_grant: AADSTS50173: The provided grant has expired due to it being revoked.",
    "interaction_required: AADSTS50076: Due to a configuration change made by your "
    "administrator, you must use multi-factor authentication.",
    "invalid_grant: AADSTS53003: Access has been blocked by Conditional Access policies.",
    "invalid_grant: AADSTS50105: The signed in user is not assigned to a role for the application.",
    "invalid_grant: AADSTS50034: The user account does not exist in the directory.",
    "invalid_grant: AADSTS50057: The user account is disabled.",
    "invalid_grant: AADSTS50055: The password is expired.",
    "invalid_grant: AADSTS50053: The account is locked because the user tried to sign in too "
    "many times.",
    "invalid_grant: AADSTS65001: The user or administrator has not consented to use the "
    "application.",
    "invalid_client: AADSTS7000222: The provided client secret keys are expired.",
    "invalid_client: AADSTS7000215: Invalid client secret is provided.",
    "invalid_client: AADSTS700027: Client assertion failed signature validation.",
    "unauthorized_client: AADSTS700016: Application with identifier was not found in the "
    "directory.",
    "invalid_request: AADSTS50194: Application is not configured as a multi-tenant application.",
    "invalid_client: AADSTS7000218: The request body must contain the following parameter: "
    "'client_assertion' or 'client_secret'.",
    "invalid_client: AADSTS700025: Client is public so neither 'client_assertion' nor "
    "'client_secret' should be presented.",
    "invalid_scope: AADSTS70011: The provided value for the input parameter 'scope' is not valid.",
    "invalid_request: AADSTS90002: Tenant 'exmaple.com' not found.",
    "invalid_request: AADSTS900144: The request body must contain the following parameter: "
    "'scope'.",
    "invalid_grant: AADSTS54005: OAuth2 Authorization code was already redeemed.",
    "temporarily_unavailable: AADSTS90033: A transient error has occurred. Please try again.",
    "invalid_grant: reauth related error (invalid_rapt)",
    "admin_policy_enforced: This account is restricted by your administrator.",
    "org_internal: This client is restricted to users within its organization.",
    "deleted_client: The OAuth client was deleted.",
    "unauthorized_client: Client is unauthorized to retrieve access tokens using this "
    "method, or client not authorized for any of the scopes requested.",
    "invalid_grant: Invalid email or User ID",
    "invalid_grant: Invalid JWT: Token must be a short-lived token (60 minutes) and in "
    "a reasonable timeframe. Check your iat and exp values in the JWT claim.",
    "invalid_grant: Invalid JWT Signature.",
    "invalid_grant: Token has been expired or revoked.",
    "invalid_grant: Bad Request",
    "interaction_required: The request requires user interaction.",
    "invalid_grant: The refresh token is invalid or expired.",
    "invalid_client: The OAuth client was not found.",
    "unauthorized_client: The client is not authorized to use this grant type.",
    "invalid_scope: Unknown scope.",
    "unsupported_grant_type: Grant type not supported.",
    "temporarily_unavailable: Try again.",
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for "
    "the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.",
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for "
    "the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.",
    "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
    "535 5.7.139 Authentication unsuccessful, user is locked by your organization's "
    "security defaults policy. Contact your administrator.",
    "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to "
    "be authenticated successfully. Contact your administrator.",
    "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
    "535 5.7.139 Authentication unsuccessful",
    "535 5.7.3 Authentication unsuccessful [DB8PR04CA0014.eurprd04.prod.outlook.com]",
    "550 5.7.30 Basic authentication is not supported for Client Submission.",
    "554 5.2.252 SendAsDenied; alice@example.com not allowed to send as "
    "bob@example.com; STOREDRV.Submission.Exception:SendAsDeniedException."
    "MapiExceptionSendAsDenied",
    "530 5.7.57 Client not authenticated to send mail.",
    "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
    "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; "
    "Failed to process message due to a permanent exception",
    "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException",
    "501 5.5.127 Token will expire soon",
    "501 5.5.124 Invalid XOAUTH2 auth data - User address provided is not valid",
    "430 4.2.0 STOREDRV; mailbox logon failure; Failed to process message due to a "
    "transient exception; MapiExceptionLogonFailed",
    "550 5.1.8 Access denied, bad outbound sender",
    "451 4.7.0 Temporary server error. Please try again later. PRX4",
    "534 5.7.14 Please log in via your web browser and then try again. - gsmtp",
    "534 5.7.9 Application-specific password required. - gsmtp",
    "535 5.7.8 Username and Password not accepted. For more information, go to "
    "https://support.google.com/mail/?p=BadCredentials - gsmtp",
    "454 4.7.0 Too many login attempts, please try again later. - gsmtp",
    "454 4.7.0 Cannot authenticate due to temporary system problem. Try again later. - gsmtp",
    "421 4.7.28 Our system has detected an unusual rate of unsolicited mail. - gsmtp",
    "421 4.7.0 Try again later, closing connection. - gsmtp",
    "550 5.4.5 Daily user sending limit exceeded. - gsmtp",
    "550 5.7.1 Daily SMTP relay sending limit exceeded for customer. - gsmtp",
    "555 5.5.2 Syntax error, cannot decode response. - gsmtp",
    "552 5.7.0 This message was blocked because its content presents a potential "
    "security issue. - gsmtp",
    "535 5.7.0 (#AUTH005) Too many bad auth attempts.",
    "454 4.7.0 The provider offers no XOAUTH2",
    "552 5.3.4 Your message exceeded Google's message size limits.",
    "452 4.5.3 Your message has too many recipients.",
    "535 5.7.8 Authentication credentials invalid",
    "454 4.7.0 Temporary authentication failure",
)


def names() -> Iterator[str]:
    for number, example in enumerate(EXAMPLES):
        yield f"{number} {example[:40]}"


@pytest.mark.parametrize(("row", "example"), [*zip(TABLE, EXAMPLES, strict=True)], ids=names())
def test_each_row_explains_its_own_example(row: Advice, example: str) -> None:
    assert explain(example, row.provider) is row
    if not row.is_for_provider_alone:
        assert explain(example) is row
        assert explain(example, "a name of the operator's own") is row


@pytest.mark.parametrize("row", TABLE, ids=names())
def test_each_row_says_what_a_person_needs(row: Advice) -> None:
    assert row.cause.endswith(".")
    assert row.cause[0].isupper()
    assert row.remedy
    assert not row.remedy.endswith(".")
    assert row.source
    assert "{" not in row.remedy_for(MAILBOX)


@pytest.mark.parametrize("row", TABLE, ids=names())
def test_each_row_is_written_as_the_table_says(row: Advice) -> None:
    kinds = get_type_hints(Advice)
    assert all(isinstance(word, str) for word in row.says)
    for name in kinds.keys() - {"says"}:
        assert type(getattr(row, name)) is kinds[name], name
    assert row.provider in {"", "gmail", "outlook", "yahoo"}
    parts = (*row.says, *filter(None, [row.mark]))
    phrases = [phrase for part in parts for phrase in part.split(" | ")]
    assert phrases
    for phrase in phrases:  # a phrase in any other form would never occur
        assert normalised(phrase) == f" {phrase.removeprefix('^')} "
    texts = (*row.says, row.cause, row.remedy, row.source)
    assert all(text == " ".join(text.split()) for text in texts)  # line ends are for the file


def test_the_other_vendors_rows_are_left_out() -> None:
    for row, example in zip(TABLE, EXAMPLES, strict=True):
        other = {"gmail": "outlook", "outlook": "gmail"}.get(row.provider)
        if other is not None:
            assert explain(example, other) is not row


@pytest.mark.parametrize(
    "text",
    [
        "535 5.7.3 Not today",
        "550 5.7.30 No",
        "530 5.7.57 Log in",
        "550 5.1.8 Bad sender's system address",
        "534 5.7.14 Trust relationship required",
        "534 5.7.9 Authentication mechanism is too weak",
        "550 5.4.5 Mail system congestion",
        "555 5.5.2 Syntax error",
        "552 5.7.0 Refused by our policy",
        "421 4.7.0 Try again later",
        "550 5.2.2 Mailbox full",
    ],
)
@pytest.mark.parametrize("provider", ["oidc", "command", "my-provider", ""])
def test_a_code_that_every_server_may_use_is_not_explained_by_a_vendors_console(
    text: str, provider: str
) -> None:
    advice = explain(text, provider)
    assert advice is None or not advice.provider


def test_the_mailbox_stands_in_a_command_so_that_a_shell_takes_it_as_one_word() -> None:
    odd = '"a b;$(id)"@example.com'
    commands = [one for one in TABLE if one.remedy.endswith(f" login {PLACE}")]
    assert commands
    for row in commands:
        assert row.remedy_for(odd).endswith(f" login {shlex.quote(odd)}")


def test_the_mailbox_stands_in_the_command_to_type() -> None:
    advice = explain(
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
        "Mailbox. Visit https://aka.ms/smtp_auth_disabled",
        "outlook",
    )
    assert advice is not None
    assert (
        "Set-CASMailbox alice@example.com -SmtpClientAuthenticationDisabled $false"
        in advice.remedy_for(MAILBOX)
    )


@pytest.mark.parametrize(
    ("text", "provider", "cause"),
    [
        # A number that nobody knows yet: the error beside it decides.
        ("invalid_grant: AADSTS999999: Something new.", "outlook", "no longer valid"),
        ("invalid_client: AADSTS999999: Something new.", "outlook", "client id"),
        # A number that begins with another one.
        ("AADSTS500011: The resource principal was not found.", "outlook", "permission"),
        ("invalid_grant: Bad Request", "gmail", "The sign-in is no longer valid"),
        ("invalid_grant", "", "another client's"),
        ("invalid_grant: Token has been expired or revoked.", "oidc", "another client's"),
        ("invalid_grant: Invalid JWT Signature.", "my-provider", "another client's"),
        ("432 4.3.2 Concurrent connections limit exceeded", "outlook", "three"),
        ("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", "", "three"),
        ("550 5.7.60 SMTP; Client does not have permissions to send as", "", "From"),
        ("535 5.7.1 no", "dovecot", "refused the access token"),
        ("550 5.4.5 Daily SMTP relay limit exceeded for user.", "gmail", "24 hours"),
        # The code is enough where the provider is known.
        ("535 5.7.3 no", "outlook", "Exchange Online refused the token"),
        ("552 5.7.0 no", "gmail", "such an attachment"),
    ],
)
def test_what_providers_say_is_understood(text: str, provider: str, cause: str) -> None:
    advice = explain(text, provider)
    assert advice is not None
    assert cause in advice.cause


@pytest.mark.parametrize(
    "text",
    [
        "",
        "250 2.0.0 OK",
        "550 5.1.1 No such user 535",
        "smtp.example.com:587: timed out",
        "454x 4.7.0",
        "AADSTS7000",
        "not_invalid_grants",
    ],
)
def test_words_nobody_knows_are_left_alone(text: str) -> None:
    assert explain(text) is None


def test_a_reply_of_several_lines_is_understood() -> None:
    wire = (
        b"535-5.7.8 Username and Password not accepted.\r\n535-5.7.8 For more information, go\r\n"
        b"535 5.7.8  to https://support.google.com/mail/?p=BadCredentials x-20020.1 - gsmtp\r\n"
    )
    advice = explain(str(ReplyParser().feed(wire)[0]), "gmail")
    assert advice is not None
    assert "https://mail.google.com/" in advice.cause


@given(st.text(), st.sampled_from(["", "gmail", "outlook", "own"]))
def test_any_text_is_safe(text: str, provider: str) -> None:
    advice = explain(text, provider)
    assert advice is None or advice in TABLE


@given(
    st.lists(
        st.sampled_from([word for example in EXAMPLES for word in example.split()]), max_size=40
    ),
    st.sampled_from(["-", " ", "\r\n", "\0", ":"]),
)
def test_any_mixture_of_known_words_is_safe(words: list[str], between: str) -> None:
    explain(between.join(words))


@pytest.mark.parametrize("piece", ["1.", "1", "a", "#", "535 ", "\u0130", ".", "5.7.139 "])
def test_long_texts_cost_no_more_than_short_ones(piece: str) -> None:
    # Only the beginning is looked at, so nothing here may take noticeable time.
    explain(piece * 5_000_000)


# Once an hour.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_row_is_told_once_an_hour_for_a_mailbox() -> None:
    clock = Clock()
    told = Explanations(clock)
    first = told.fields("535 5.7.3 no", "outlook", MAILBOX)
    assert first["remedy"] == f"look at the token's claims: xoauth2-proxy doctor {MAILBOX}"
    assert "Exchange Online refused the token" in first["cause"]
    clock.now = 1800.0
    assert told.fields("535 5.7.3 no", "outlook", MAILBOX) == {}
    assert told.fields("535 5.7.3 no", "outlook", "bob@example.com")
    assert told.fields("550 5.1.8 bad outbound sender", "outlook", MAILBOX)
    clock.now = 3500.0
    assert told.fields("535 5.7.3 no", "outlook", MAILBOX) == {}
    clock.now = 3601.0
    assert told.fields("535 5.7.3 no", "outlook", MAILBOX) == first


def test_what_was_told_is_forgotten_when_too_much_was() -> None:
    told = Explanations(Clock())
    for number in range(10_001):
        assert told.fields("535", "", f"{number}@example.com")
    assert told.fields("535", "", "10000@example.com") == {}
    assert told.fields("535", "", "5000@example.com") == {}
    assert told.fields("535", "", "0@example.com")


def test_unknown_words_add_nothing_to_a_log_line() -> None:
    assert Explanations().fields(string.printable, "outlook", MAILBOX) == {}
