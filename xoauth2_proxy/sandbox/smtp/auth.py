"""AUTH (RFC 4954): accepts tokens by XOAUTH2 and OAUTHBEARER; refuses passwords as providers do."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.smtp.fault_injection import run_step

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.smtp.session_state import SessionState

_SCOPE = "https://mail.google.com/"

_MAX_FAILURES = 5
_CANCELLED = "501 5.7.0 Authentication cancelled"
_CONTINUE = "334 "
_USERNAME = "334 VXNlcm5hbWU6"
_PASSWORD = "334 UGFzc3dvcmQ6"  # noqa: S105 - the word, in base64


class BadCredentials(ValueError):
    """The octets are not credentials of the mechanism; the text says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The claimed mailbox, and the access token that must prove it."""

    mailbox: str
    token: str = field(repr=False)


def read_xoauth2(octets: bytes) -> Credentials:
    """Return the credentials of `user=… ^A auth=Bearer … ^A ^A`."""
    fields = _fields(octets)
    return _credentials(fields.get("user", ""), fields)


def read_oauthbearer(octets: bytes) -> Credentials:
    """Return the credentials of `n,a=…,^A … auth=Bearer … ^A ^A` (RFC 7628 §3.1)."""
    header, _, rest = octets.partition(b"\x01")
    words = header.decode("utf-8", "replace").split(",")
    if len(words) != 3 or words[0] not in ("n", "y") or words[2]:
        raise BadCredentials("it does not begin with n,a=MAILBOX,")
    authzid = words[1].removeprefix("a=").replace("=2C", ",").replace("=3D", "=")
    return _credentials(authzid, _fields(rest))


def _fields(octets: bytes) -> dict[str, str]:
    text = octets.rstrip(b"\r\n").decode("utf-8", "replace")
    if not text.endswith("\x01\x01"):
        raise BadCredentials("it does not end with two ^A (0x01)")
    pairs = (word.partition("=") for word in text.split("\x01") if word)
    return {key: value for key, _, value in pairs}


def _credentials(mailbox: str, fields: dict[str, str]) -> Credentials:
    scheme, _, token = fields.get("auth", "").partition(" ")
    if not mailbox:
        raise BadCredentials("it names no mailbox: user= in XOAUTH2, a= in OAUTHBEARER")
    if scheme.lower() != "bearer" or not token:
        raise BadCredentials("it has no auth=Bearer with a token")
    return Credentials(mailbox.lower(), token.strip())


_READERS = {"XOAUTH2": read_xoauth2, "OAUTHBEARER": read_oauthbearer}


def may_authenticate(session: SessionState) -> bool:
    """Return whether AUTH is offered on this connection in its present state."""
    behaviour = session.provider.behaviour
    return session.is_encrypted or behaviour.auth_without_tls or behaviour.tls is TlsMode.NONE


def auth(session: SessionState, argument: str) -> str:
    """AUTH: begin an exchange, or complete it with the initial response."""
    mechanism, _, initial_response = argument.partition(" ")
    mechanism = mechanism.upper()
    session.claimed = ""
    if refusal := _refusal(session, mechanism):
        return refusal
    session.mechanism = mechanism
    if session.provider.dialect.takes_password(mechanism):
        return _ask_for_password(session, initial_response.encode())
    if initial_response:
        octets = b"" if initial_response == "=" else initial_response.encode()
        return _take_credentials(session, octets)
    session.expects = _take_credentials
    return _CONTINUE


def _refusal(session: SessionState, mechanism: str) -> str:
    """Return the reply to an AUTH that cannot begin; "" if it can."""
    dialect = session.provider.dialect
    if not session.is_greeted:
        why, refusal = "AUTH before EHLO", "503 5.5.1 EHLO first"
    elif not may_authenticate(session):
        why, refusal = "AUTH before STARTTLS", "538 5.7.11 Encryption required"
    elif session.is_authenticated:
        why, refusal = "the session has logged in already", "503 5.5.1 Already authenticated"
    elif session.transaction is not None:
        why, refusal = "AUTH after MAIL", "503 5.5.1 AUTH not allowed in a transaction"
    elif "AUTH" not in session.provider.extensions:
        why, refusal = "AUTH is withheld", "502 5.5.1 Unrecognized command"
    elif dialect.offers(mechanism) or dialect.takes_password(mechanism):
        return ""
    else:
        good = " or ".join(name for name in dialect.mechanisms if dialect.offers(name))
        why = f"that mechanism takes no token; use {good}"
        refusal = dialect.no_mechanism(is_offered=mechanism in dialect.mechanisms)
    session.why = why
    return refusal


def _ask_for_password(session: SessionState, initial_response: bytes) -> str:
    """Ask for a name and a password, which the sandbox never accepts (RFC 4616; AUTH LOGIN)."""
    if session.mechanism == "PLAIN" and initial_response:
        return _take_password(session, initial_response)
    session.expects = _take_password
    if session.mechanism == "PLAIN":
        return _CONTINUE
    if initial_response:
        return _PASSWORD
    session.expects = _take_username
    return _USERNAME


def _take_username(session: SessionState, line: bytes) -> str:
    if line == b"*":
        return _CANCELLED
    session.expects = _take_password
    return _PASSWORD


def _take_password(session: SessionState, line: bytes) -> str:
    if line == b"*":
        return _CANCELLED
    session.why = f"{session.mechanism} with a password; no password is good here, tokens are"
    return _fail(session, session.provider.dialect.basic_refused)


def _take_credentials(session: SessionState, line: bytes) -> str:
    if line == b"*":
        return _CANCELLED
    why = f"no {session.mechanism} response: "
    try:
        octets = base64.b64decode(line, validate=True)  # RFC 4954 §4
    except binascii.Error:
        session.why = f"{why}it is not base64"
        return "501 5.5.2 Cannot decode response"
    try:
        credentials = _READERS[session.mechanism](octets)
    except BadCredentials as error:
        session.why = f"{why}{error}"
        return _challenge(session, "400")
    session.mailbox = session.claimed = credentials.mailbox
    log_in = partial(_log_in, token=credentials.token)
    run_step(session, Step.AUTH, credentials.mailbox, log_in)
    if not session.is_authenticated:
        session.mailbox = ""
    return ""


def _log_in(session: SessionState, mailbox: str, *, token: str) -> str:
    provider, limits = session.provider, session.provider.limits
    if limits is not None and (refusal := limits.refuse_login(mailbox)):
        session.why = limits.met
        provider.counters.auth_refused += 1
        return refusal
    if session.refuses_token:
        return _challenge(session, "401")
    if provider.verifier.objection(mailbox, token):
        session.why = provider.verifier.explain_refusal(mailbox, token)
        return _challenge(session, "401")
    if limits is not None and (refusal := limits.enter(mailbox, session)):
        session.why = limits.met
        provider.counters.auth_refused += 1
        session.close()
        return refusal
    session.is_authenticated = True
    provider.counters.auth_accepted += 1
    provider.counters.mailbox_opened(mailbox)
    return provider.dialect.accepted


def _challenge(session: SessionState, status: str) -> str:
    dialect = session.provider.dialect
    if not dialect.is_challenging:
        return _fail(session, dialect.refused)
    # Whatever the client answers, it ends the exchange (RFC 7628 §3.2.3).
    session.expects = lambda session, _: _fail(session, dialect.refused)
    error = {"status": status, "schemes": dialect.schemes, "scope": _SCOPE}
    if session.mechanism == "OAUTHBEARER":  # RFC 7628 §3.2.2
        word = "invalid_token" if status == "401" else "invalid_request"
        error = {"status": word, "scope": _SCOPE}
    text = json.dumps(error, separators=(",", ":"))
    return f"334 {base64.b64encode(text.encode()).decode()}"


def _fail(session: SessionState, refusal: str) -> str:
    session.provider.counters.auth_refused += 1
    session.auth_failures += 1
    if session.auth_failures >= _MAX_FAILURES:
        session.why += f"; {_MAX_FAILURES} logins have failed, so it closes"
        refusal = "421 4.7.0 Too many authentication failures"
        session.close()
    provider = session.provider
    session.say_late(provider.dialect.encode(refusal), provider.behaviour.refusal_seconds)
    return ""
