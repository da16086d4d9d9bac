"""AUTH: tokens by XOAUTH2 and OAUTHBEARER, passwords refused as providers refuse them.

RFC 4954; who may come in is the provider's to say, and how often the limits'.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.dialects import encode_reply
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.smtp import sasl
from xoauth2_proxy.sandbox.smtp.fault_injection import run_step
from xoauth2_proxy.smtp.protocol import reply

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.dialects import Dialect
    from xoauth2_proxy.sandbox.smtp.session_state import SessionState

_MAX_FAILURES = 5

_EHLO_FIRST = reply(503, "5.1", "EHLO first").encode()
_NEEDS_TLS = reply(538, "7.11", "Encryption required").encode()
_AGAIN = reply(503, "5.1", "Already authenticated").encode()
_IN_TRANSACTION = reply(503, "5.1", "AUTH not allowed in a transaction").encode()
_UNKNOWN = reply(502, "5.1", "Unrecognized command").encode()
_CANCELLED = reply(501, "7.0", "Authentication cancelled").encode()
_NOT_BASE64 = reply(501, "5.2", "Cannot decode response").encode()
_TOO_MANY_FAILURES = reply(421, "7.0", "Too many authentication failures").encode()
_USERNAME = b"334 VXNlcm5hbWU6\r\n"
_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"

_READERS = {"XOAUTH2": sasl.read_xoauth2, "OAUTHBEARER": sasl.read_oauthbearer}


def may_authenticate(session: SessionState) -> bool:
    """Return whether AUTH is offered on this connection as it is."""
    behaviour = session.provider.behaviour
    return session.is_encrypted or behaviour.auth_without_tls or behaviour.tls is TlsMode.NONE


def auth(session: SessionState, argument: str) -> None:
    """AUTH: begin an exchange, or end it if the initial response is all there is to it."""
    mechanism, _, initial_response = argument.partition(" ")
    mechanism = mechanism.upper()
    session.claimed = ""
    refusal, why = _refusal(session, mechanism)
    if refusal:
        session.refuse(refusal, why)
        return
    session.mechanism = mechanism
    if session.provider.dialect.takes_password(mechanism):
        _ask_for_password(session, initial_response)
    elif initial_response:
        octets = b"" if initial_response == "=" else initial_response.encode()
        _take_credentials(session, octets)
    else:
        session.say(b"334 \r\n")
        session.expects = _take_credentials


def _refusal(session: SessionState, mechanism: str) -> tuple[bytes, str]:
    """Return the reply to an AUTH that cannot begin, and why it cannot; b"" if it can."""
    dialect = session.provider.dialect
    is_offered = mechanism in dialect.mechanisms
    is_known = dialect.offers(mechanism) or dialect.takes_password(mechanism)
    checks = (
        (not session.is_greeted, _EHLO_FIRST, "AUTH before EHLO"),
        (not may_authenticate(session), _NEEDS_TLS, "AUTH before STARTTLS"),
        (session.is_authenticated, _AGAIN, "the session has logged in already"),
        (session.transaction is not None, _IN_TRANSACTION, "AUTH behind MAIL"),
        ("AUTH" not in session.provider.extensions, _UNKNOWN, "AUTH is withheld"),
        (
            not is_known,
            encode_reply(dialect.no_mechanism(is_offered=is_offered)),
            f"no token logs in by that mechanism; by {_mechanisms(dialect)} it does",
        ),
    )
    return next(((refusal, why) for applies, refusal, why in checks if applies), (b"", ""))


def _mechanisms(dialect: Dialect) -> str:
    return " or ".join(name for name in dialect.mechanisms if dialect.offers(name))


def _ask_for_password(session: SessionState, initial_response: str) -> None:
    """Take a name and a password, which are never good here."""
    if session.mechanism == "PLAIN":
        if initial_response:
            _take_password(session, initial_response.encode())
            return
        session.say(b"334 \r\n")
    elif initial_response:
        session.say(_PASSWORD)
    else:
        session.say(_USERNAME)
        session.expects = _take_username
        return
    session.expects = _take_password


def _take_username(session: SessionState, line: bytes) -> None:
    if line == b"*":
        session.say(_CANCELLED)
    else:
        session.say(_PASSWORD)
        session.expects = _take_password


def _take_password(session: SessionState, line: bytes) -> None:
    if line == b"*":
        session.say(_CANCELLED)
        return
    session.why = f"{session.mechanism} with a password; no password is good here, tokens are"
    _fail(session, session.provider.dialect.basic_refused)


def _take_credentials(session: SessionState, line: bytes) -> None:
    if line == b"*":
        session.say(_CANCELLED)
        return
    try:
        octets = sasl.decode_base64(line)
    except sasl.BadCredentials as error:
        session.refuse(_NOT_BASE64, f"no {session.mechanism} response: {error}")
        return
    try:
        credentials = _READERS[session.mechanism](octets)
    except sasl.BadCredentials as error:
        session.why = f"no {session.mechanism} response: {error}"
        _challenge(session, "400")
        return
    session.mailbox = session.claimed = credentials.mailbox
    judge = partial(_judge, token=credentials.token)
    run_step(session, Step.AUTH, credentials.mailbox, judge)
    if not session.is_authenticated:
        session.mailbox = ""


def _judge(session: SessionState, mailbox: str, *, token: str) -> None:
    provider = session.provider
    limits = provider.limits
    if limits is not None and (refusal := limits.refuse_login(mailbox)):
        session.why = limits.met
        _say_refusal(session, encode_reply(refusal))
    elif session.presumed:
        _challenge(session, "401")
    elif provider.verifier.objection(mailbox, token):
        session.why = provider.verifier.explain_refusal(mailbox, token)
        _challenge(session, "401")
    elif limits is not None and (refusal := limits.enter(mailbox, session)):
        session.why = limits.met
        _say_refusal(session, encode_reply(refusal))
        session.close()
    else:
        session.is_authenticated = True
        provider.counters.auth_accepted += 1
        provider.counters.mailbox_opened(mailbox)
        session.say(encode_reply(provider.dialect.accepted))


def _challenge(session: SessionState, status: str) -> None:
    dialect = session.provider.dialect
    if dialect.is_challenging:
        session.say(sasl.challenge(session.mechanism, status, dialect.schemes))
        session.expects = _refuse
    else:
        _fail(session, dialect.refused)


def _refuse(session: SessionState, _: bytes) -> None:
    # Whatever the line is, it ends the exchange (RFC 7628 §3.2.3).
    _fail(session, session.provider.dialect.refused)


def _fail(session: SessionState, refusal: str) -> None:
    mark = len(session.replies)
    session.auth_failures += 1
    if session.auth_failures < _MAX_FAILURES:
        _say_refusal(session, encode_reply(refusal))
    else:
        session.why += f"; {_MAX_FAILURES} logins have failed, so it closes"
        _say_refusal(session, _TOO_MANY_FAILURES)
        session.close()
    if session.provider.behaviour.refusal_seconds:
        session.hold(mark, session.provider.behaviour.refusal_seconds)


def _say_refusal(session: SessionState, octets: bytes) -> None:
    session.provider.counters.auth_refused += 1
    session.say(octets)
