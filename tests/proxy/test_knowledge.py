"""Providers' words: every row is reached by its own words, and no words do harm."""

from __future__ import annotations

import shlex
import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.diagnostics import Advice, Explanations, Retry, explain
from xoauth2_proxy.diagnostics.advice import MAILBOX as PLACE
from xoauth2_proxy.diagnostics.refusal_table import TABLE
from xoauth2_proxy.smtp.protocol import ReplyParser

if TYPE_CHECKING:
    from collections.abc import Iterator

MAILBOX = "alice@example.com"


def names() -> Iterator[str]:
    for number, row in enumerate(TABLE):
        yield f"{number} {row.example[:40]}"


@pytest.mark.parametrize("row", TABLE, ids=names())
def test_each_row_explains_its_own_example(row: Advice) -> None:
    assert explain(row.example, row.provider) is row
    if not row.is_for_provider_alone:
        assert explain(row.example) is row
        assert explain(row.example, "a name of the operator's own") is row


@pytest.mark.parametrize("row", TABLE, ids=names())
def test_each_row_says_what_a_person_needs(row: Advice) -> None:
    assert row.cause.endswith(".")
    assert row.cause[0].isupper()
    assert row.remedy
    assert not row.remedy.endswith(".")
    assert row.source
    assert "{" not in row.remedy_for(MAILBOX)


def test_the_other_vendors_rows_are_left_out() -> None:
    for row in TABLE:
        other = {"gmail": "outlook", "outlook": "gmail"}.get(row.provider)
        if other is not None:
            assert explain(row.example, other) is not row


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
    ("text", "provider", "cause", "retry"),
    [
        # A number that nobody knows yet: the error beside it decides.
        ("invalid_grant: AADSTS999999: Something new.", "outlook", "no longer valid", "never"),
        ("invalid_client: AADSTS999999: Something new.", "outlook", "client id", "never"),
        # A number that begins with another one.
        ("AADSTS500011: The resource principal was not found.", "outlook", "permission", "never"),
        ("invalid_grant: Bad Request", "gmail", "The sign-in is no longer valid", "never"),
        ("invalid_grant", "", "another client's", "never"),
        ("432 4.3.2 Concurrent connections limit exceeded", "outlook", "three", "later"),
        ("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", "", "three", "later"),
        ("550 5.7.60 SMTP; Client does not have permissions to send as", "", "From", "never"),
        ("535 5.7.1 no", "dovecot", "refused the access token", "after a fresh token"),
        ("550 5.4.5 Daily SMTP relay limit exceeded for user.", "gmail", "24 hours", "tomorrow"),
    ],
)
def test_what_providers_say_is_understood(text: str, provider: str, cause: str, retry: str) -> None:
    advice = explain(text, provider)
    assert advice is not None
    assert cause in advice.cause
    assert advice.retry == Retry(retry)


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
    st.lists(st.sampled_from([word for row in TABLE for word in row.example.split()]), max_size=40),
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
