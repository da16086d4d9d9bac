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
_CONTINUE = b"334 \r\n"
_USERNAME = b"334 VXNlcm5hbWU6\r\n"
_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"

_READERS = {"XOAUTH2": sasl.read_xoauth2, "OAUTHBEARER": sasl.read_oauthbearer}


def may_authenticate(session: SessionState) -> bool:
    """Return whether AUTH is offered on this connection as it is."""
    behaviour = session.provider.behaviour
    return session.is_encrypted or behaviour.auth_without_tls or behaviour.tls is TlsMode.NONE


def auth(session: SessionState, argument: str) -> bytes:
    """AUTH: begin an exchange, or end it if the initial response is all there is to it."""
    mechanism, _, initial_response = argument.partition(" ")
    mechanism = mechanism.upper()
    session.claimed = ""
    if refusal := _refusal(session, mechanism):
        return refusal
    session.mechanism = mechanism
    response = b"" if initial_response == "=" else initial_response.encode()
    if session.provider.dialect.takes_password(mechanism):
        return _ask_for_password(session, initial_response.encode())
    if initial_response:
        return _take_credentials(session, response)
    session.expects = _take_credentials
    return _CONTINUE


def _refusal(session: SessionState, mechanism: str) -> bytes:
    """Return the reply to an AUTH that cannot begin; b"" if it can."""
    dialect = session.provider.dialect
    if not session.is_greeted:
        refusal, session.why = _EHLO_FIRST, "AUTH before EHLO"
    elif not may_authenticate(session):
        refusal, session.why = _NEEDS_TLS, "AUTH before STARTTLS"
    elif session.is_authenticated:
        refusal, session.why = _AGAIN, "the session has logged in already"
    elif session.transaction is not None:
        refusal, session.why = _IN_TRANSACTION, "AUTH behind MAIL"
    elif "AUTH" not in session.provider.extensions:
        refusal, session.why = _UNKNOWN, "AUTH is withheld"
    elif dialect.offers(mechanism) or dialect.takes_password(mechanism):
        return b""
    else:
        good = " or ".join(name for name in dialect.mechanisms if dialect.offers(name))
        session.why = f"no token logs in by that mechanism; by {good} it does"
        is_offered = mechanism in dialect.mechanisms
        refusal = encode_reply(dialect.no_mechanism(is_offered=is_offered))
    return refusal


def _ask_for_password(session: SessionState, initial_response: bytes) -> bytes:
    """Ask for a name and a password, which are never good here (RFC 4616; AUTH LOGIN)."""
    if session.mechanism == "PLAIN" and initial_response:
        return _take_password(session, initial_response)
    session.expects = _take_password
    if session.mechanism == "PLAIN":
        return _CONTINUE
    if initial_response:
        return _PASSWORD
    session.expects = _take_username
    return _USERNAME


def _take_username(session: SessionState, line: bytes) -> bytes:
    if line == b"*":
        return _CANCELLED
    session.expects = _take_password
    return _PASSWORD


def _take_password(session: SessionState, line: bytes) -> bytes:
    if line == b"*":
        return _CANCELLED
    session.why = f"{session.mechanism} with a password; no password is good here, tokens are"
    return _fail(session, session.provider.dialect.basic_refused)


def _take_credentials(session: SessionState, line: bytes) -> bytes:
    if line == b"*":
        return _CANCELLED
    try:
        octets = sasl.decode_base64(line)
    except sasl.BadCredentials as error:
        session.why = f"no {session.mechanism} response: {error}"
        return _NOT_BASE64
    try:
        credentials = _READERS[session.mechanism](octets)
    except sasl.BadCredentials as error:
        session.why = f"no {session.mechanism} response: {error}"
        return _challenge(session, "400")
    session.mailbox = session.claimed = credentials.mailbox
    log_in = partial(_log_in, token=credentials.token)
    run_step(session, Step.AUTH, credentials.mailbox, log_in)
    if not session.is_authenticated:
        session.mailbox = ""
    return b""


def _log_in(session: SessionState, mailbox: str, *, token: str) -> bytes:
    provider, limits = session.provider, session.provider.limits
    if limits is not None and (refusal := limits.refuse_login(mailbox)):
        session.why = limits.met
        provider.counters.auth_refused += 1
        return encode_reply(refusal)
    if session.presumed:
        return _challenge(session, "401")
    if provider.verifier.objection(mailbox, token):
        session.why = provider.verifier.explain_refusal(mailbox, token)
        return _challenge(session, "401")
    if limits is not None and (refusal := limits.enter(mailbox, session)):
        session.why = limits.met
        provider.counters.auth_refused += 1
        session.close()
        return encode_reply(refusal)
    session.is_authenticated = True
    provider.counters.auth_accepted += 1
    provider.counters.mailbox_opened(mailbox)
    return encode_reply(provider.dialect.accepted)


def _challenge(session: SessionState, status: str) -> bytes:
    dialect = session.provider.dialect
    if not dialect.is_challenging:
        return _fail(session, dialect.refused)
    # Whatever the client answers, it ends the exchange (RFC 7628 §3.2.3).
    session.expects = lambda session, _: _fail(session, dialect.refused)
    return sasl.challenge(session.mechanism, status, dialect.schemes)


def _fail(session: SessionState, refusal: str) -> bytes:
    octets = encode_reply(refusal)
    session.provider.counters.auth_refused += 1
    session.auth_failures += 1
    if session.auth_failures >= _MAX_FAILURES:
        session.why += f"; {_MAX_FAILURES} logins have failed, so it closes"
        octets = _TOO_MANY_FAILURES
        session.close()
    seconds = session.provider.behaviour.refusal_seconds
    if not seconds:
        return octets
    mark = len(session.replies)
    session.say(octets)
    session.hold(mark, seconds)
    return b""
