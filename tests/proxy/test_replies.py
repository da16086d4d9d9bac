"""The table of replies: its codes, a row for every error, and what passes from a provider."""

from __future__ import annotations

import inspect

import pytest

from xoauth2_proxy import errors, replies
from xoauth2_proxy.smtp.protocol import Reply, ReplyParser, reply

_OURS = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


def subclasses(kind: type[errors.ProxyError]) -> list[type[errors.ProxyError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


# ConfigError ends the start, SignInRefused a sign-in; the root is raised as its subclasses only.
_NEVER_MEETS_A_CLIENT = {errors.ProxyError, errors.ConfigError, errors.SignInRefused}
_ERRORS = [
    kind
    for kind in subclasses(errors.ProxyError)
    if kind not in _NEVER_MEETS_A_CLIENT and kind.__module__ == errors.__name__
]
# A login that was accepted has no wrong credentials at its transactions.
_ONLY_AT_AUTH = {one for one in _ERRORS if issubclass(one, errors.CredentialsRejected)}
_ABSTRACT = {errors.UpstreamError}


def raised(kind: type[errors.ProxyError], refusal: Reply | None = None) -> errors.ProxyError:
    if issubclass(kind, errors.UpstreamRejected | errors.ExtensionMissing):
        return kind(refusal or reply(550, "7.1", "No"))
    return kind("the cause, with ya29.secret")


# The table itself.


@pytest.mark.parametrize("name", _OURS)
def test_enhanced_code_has_the_class_of_its_code(name: str) -> None:
    one = _OURS[name]
    if one.code // 100 == 3:  # RFC 2034 §4: only 2yz, 4yz and 5yz have one
        assert one.enhanced == ""
        return
    kind, subject, detail = one.enhanced.split(".")
    assert kind == str(one.code)[0]
    assert subject.isdigit()
    assert detail.isdigit()


@pytest.mark.parametrize("name", _OURS)
def test_own_replies_survive_the_wire(name: str) -> None:
    assert ReplyParser().feed(_OURS[name].octets) == [_OURS[name]]


@pytest.mark.parametrize(
    ("ours", "code", "enhanced"),
    [
        # RFC 4954 §4 and §6, RFC 5321 §4.2, RFC 5248; in the order of a session.
        (replies.CREDENTIALS_INVALID, 535, "5.7.8"),
        (replies.AUTH_UNAVAILABLE, 454, "4.7.0"),
        (replies.SIGN_IN_AGAIN, 535, "5.7.8"),
        (replies.OWN_TOKEN_REQUIRED, 534, "5.7.9"),
        (replies.UPSTREAM_AUTH_REFUSED, 550, "5.7.8"),
        (replies.GRANT_ENDED, 550, "5.7.8"),
        (replies.TOKEN_UNAVAILABLE, 451, "4.7.0"),
        (replies.AUTH_NEEDS_TLS, 538, "5.7.11"),
        (replies.AUTH_REQUIRED, 530, "5.7.0"),
        (replies.ALREADY_AUTHENTICATED, 503, "5.5.1"),
        (replies.AUTH_MECHANISM_UNKNOWN, 504, "5.5.4"),
        (replies.AUTH_LINE_TOO_LONG, 500, "5.5.6"),
        (replies.AUTH_MALFORMED, 501, "5.5.2"),
        (replies.AUTH_CANCELLED, 501, "5.7.0"),
        (replies.TOO_MANY_AUTH_FAILURES, 421, "4.7.0"),
        (replies.UPSTREAM_UNREACHABLE, 451, "4.4.1"),
        (replies.UPSTREAM_NOT_FOUND, 451, "4.4.3"),
        (replies.UPSTREAM_INSECURE, 451, "4.7.5"),
        (replies.UPSTREAM_LOST, 451, "4.4.2"),
        (replies.UPSTREAM_CONFUSED, 451, "4.3.0"),
        (replies.UPSTREAM_BUSY, 451, "4.3.2"),
        (replies.TOO_LARGE, 552, "5.3.4"),
        (replies.TOO_MANY_RECIPIENTS, 452, "4.5.3"),
        (replies.TOO_MANY_CONNECTIONS, 421, "4.3.2"),
        (replies.RECIPIENT_MALFORMED, 553, "5.1.3"),
        (replies.SENDER_MALFORMED, 553, "5.1.7"),
        (replies.SHUTTING_DOWN, 421, "4.3.2"),
        (replies.LOG_IN_AGAIN, 421, "4.7.0"),
        (replies.IDLE_TOO_LONG, 421, "4.4.2"),
        (replies.LOGIN_TOO_LATE, 421, "4.4.2"),
        (replies.COMMAND_TOO_LONG, 500, "5.5.2"),
        (replies.BAD_SEQUENCE, 503, "5.5.1"),
        (replies.COMMAND_UNKNOWN, 500, "5.5.2"),
        (replies.COMMAND_NOT_IMPLEMENTED, 502, "5.5.1"),
        (replies.TOO_MANY_BAD_COMMANDS, 421, "4.7.0"),
        (replies.PARAMETER_UNKNOWN, 555, "5.5.4"),
        (replies.ARGUMENT_MALFORMED, 501, "5.5.4"),
        (replies.SMTPUTF8_UNSUPPORTED, 553, "5.6.7"),
        (replies.EIGHT_BIT_UNSUPPORTED, 554, "5.6.3"),
        (replies.TLS_UNASKED, 421, "4.7.0"),
        (replies.OCTETS_AFTER_STARTTLS, 554, "5.5.0"),
        (replies.COMMAND_MALFORMED, 500, "5.5.2"),
        (replies.BARE_LINE_ENDS, 550, "5.6.0"),
        (replies.NO_VALID_RECIPIENTS, 554, "5.5.1"),
        (replies.INTERNAL_ERROR, 451, "4.3.0"),
    ],
)
def test_code_and_enhanced_code_of_each_situation(ours: Reply, code: int, enhanced: str) -> None:
    assert (ours.code, ours.enhanced) == (code, enhanced)


# A row for every error.


@pytest.mark.parametrize("kind", _ERRORS)
def test_every_error_has_a_row_for_auth(kind: type[errors.ProxyError]) -> None:
    answer = replies.at_auth(raised(kind))
    assert answer is not replies.INTERNAL_ERROR
    assert answer.code in {421, 454, 534, 535}


@pytest.mark.parametrize("kind", [one for one in _ERRORS if one not in _ONLY_AT_AUTH | _ABSTRACT])
def test_every_error_has_a_row_for_the_transaction(kind: type[errors.ProxyError]) -> None:
    answer = replies.at_transaction(raised(kind))
    assert answer is not replies.INTERNAL_ERROR
    assert answer.code // 100 in {4, 5}


@pytest.mark.parametrize("kind", _ERRORS)
def test_no_cause_reaches_a_client(kind: type[errors.ProxyError]) -> None:
    for answer in (replies.at_auth(raised(kind)), replies.at_transaction(raised(kind))):
        assert b"secret" not in answer.octets


@pytest.mark.parametrize("kind", [one for one in _ERRORS if one not in _ONLY_AT_AUTH])
def test_transient_errors_are_told_as_transient(kind: type[errors.ProxyError]) -> None:
    error = raised(kind, reply(450, "2.1", "Later"))
    if error.is_transient:
        assert replies.at_auth(error).is_transient
        assert replies.at_transaction(error).is_transient


def test_an_error_without_a_row_is_an_internal_error() -> None:
    class Unheard(errors.ProxyError):
        pass

    assert replies.at_auth(Unheard()) is replies.INTERNAL_ERROR
    assert replies.at_transaction(Unheard()) is replies.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (errors.CredentialsRejected(), replies.CREDENTIALS_INVALID),
        (errors.GrantRevoked(), replies.SIGN_IN_AGAIN),
        (errors.OwnTokenRequired(), replies.OWN_TOKEN_REQUIRED),
        (errors.TokenEndpointRefused(), replies.AUTH_UNAVAILABLE),
        (errors.TokenEndpointUnavailable(""), replies.AUTH_UNAVAILABLE),
        (errors.UpstreamNotFound(), replies.AUTH_UNAVAILABLE),
        (errors.UpstreamRejected(reply(421, "7.0")), replies.AUTH_UNAVAILABLE),
        (errors.UpstreamAuthRejected(reply(535, "7.8")), replies.CREDENTIALS_INVALID),
        (errors.UpstreamAuthRejected(reply(432, "3.2")), replies.AUTH_UNAVAILABLE),
        (errors.Overloaded(), replies.AUTH_UNAVAILABLE),
    ],
)
def test_at_auth(error: errors.ProxyError, answer: Reply) -> None:
    assert replies.at_auth(error) is answer


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (errors.GrantRevoked(), replies.GRANT_ENDED),
        (errors.TokenEndpointRefused(), replies.TOKEN_UNAVAILABLE),
        (errors.TokenEndpointUnavailable(""), replies.TOKEN_UNAVAILABLE),
        (errors.UpstreamUnavailable(), replies.UPSTREAM_UNREACHABLE),
        (errors.UpstreamNotFound(), replies.UPSTREAM_NOT_FOUND),
        (errors.UpstreamInsecure(), replies.UPSTREAM_INSECURE),
        (errors.UpstreamClosedEarly(), replies.UPSTREAM_LOST),
        (errors.UpstreamDropped(), replies.UPSTREAM_LOST),
        (errors.OutcomeUnknown(), replies.UPSTREAM_LOST),
        (errors.UpstreamAuthRejected(reply(454, "7.0")), replies.TOKEN_UNAVAILABLE),
        (errors.Overloaded(), replies.UPSTREAM_BUSY),
    ],
)
def test_at_transaction(error: errors.ProxyError, answer: Reply) -> None:
    assert replies.at_transaction(error) is answer


def test_a_refused_login_is_told_with_the_providers_words() -> None:
    error = errors.UpstreamAuthRejected(
        reply(535, "7.139", "Authentication unsuccessful", "SmtpClientAuthentication is disabled")
    )
    assert replies.at_transaction(error) == Reply(
        550,
        "5.7.8",
        (
            "The provider refused the relay's login: 535 5.7.139 Authentication unsuccessful "
            "SmtpClientAuthentication is disabled",
        ),
    )


@pytest.mark.parametrize("code", [500, 502, 503, 504, 530, 538, 555])
def test_auth_refused_for_the_relays_own_session_does_not_bounce_mail(code: int) -> None:
    assert replies.at_transaction(errors.UpstreamAuthRejected(reply(code, ""))).is_transient


def test_a_greeting_that_refuses_reaches_the_client_in_its_own_words() -> None:
    error = errors.UpstreamRejected(reply(450, "7.1", "Try later"))
    assert replies.at_transaction(error) == reply(450, "7.1", "Try later")


# What passes from the provider.


@pytest.mark.parametrize(
    ("upstream", "code", "enhanced"),
    [
        (reply(250, "0.0", "queued as 1"), 250, "2.0.0"),
        (reply(450, "2.1", "mailbox busy"), 450, "4.2.1"),
        (reply(452, "3.1", "full"), 452, "4.3.1"),
        (reply(421, "7.0", "go away"), 451, "4.7.0"),
        (reply(432, "3.2", "too many connections"), 451, "4.3.2"),
        (reply(550, "5.4.5"[2:], "daily limit"), 550, "5.4.5"),
        (Reply(554, "", ("no",)), 554, "5.0.0"),
        (Reply(451, "", ("later",)), 451, "4.0.0"),
        (Reply(421, "", ("bye",)), 451, "4.0.0"),
        (Reply(250, "", ("ok",)), 250, "2.0.0"),
    ],
)
def test_provider_is_heard_in_its_own_words(upstream: Reply, code: int, enhanced: str) -> None:
    assert replies.for_client(upstream) == Reply(code, enhanced, upstream.text)


@pytest.mark.parametrize("code", [500, 502, 503, 504, 530, 538, 555, 334, 354])
def test_codes_about_the_relays_session_are_the_relays_trouble(code: int) -> None:
    assert replies.for_client(reply(code, "", "words")) is replies.UPSTREAM_CONFUSED
    assert replies.is_about_session(reply(code, ""))


@pytest.mark.parametrize("code", [250, 450, 501, 535, 550, 552, 554])
def test_other_codes_are_about_the_message(code: int) -> None:
    assert not replies.is_about_session(reply(code, ""))


@pytest.mark.parametrize("evil", ["\r\n250 ok", "\n", "\r", "\0", "\x1b[2J", "\x7f"])
def test_text_of_the_provider_cannot_carry_a_second_reply(evil: str) -> None:
    octets = replies.for_client(Reply(550, "5.7.1", (f"no{evil}", "more"))).octets
    assert octets.count(b"\n") == octets.count(b"\r") == 2
    assert not set(octets) & ({*range(32), 127} - {10, 13})
    assert [one.code for one in ReplyParser().feed(octets)] == [550]


def test_every_row_of_the_tables_names_an_error_class() -> None:
    for table in (replies._AT_AUTH, replies._AT_TRANSACTION):
        assert all(inspect.isclass(kind) for kind, _ in table)
        for number, (kind, _) in enumerate(table):
            hidden = [above for above, _ in table[:number] if issubclass(kind, above)]
            assert not hidden, f"{kind} is never reached behind {hidden}"
