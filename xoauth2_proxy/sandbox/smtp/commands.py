"""The SMTP commands: each returns its reply, and changes the session's state.

RFC 5321 §4.1.1; STARTTLS is RFC 3207, SIZE RFC 1870, SMTPUTF8 RFC 6531, DSN RFC 3461.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.dialects import HOST
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.smtp.auth import auth, may_authenticate
from xoauth2_proxy.sandbox.smtp.content_commands import bdat, data
from xoauth2_proxy.sandbox.smtp.session_state import ContentReceiver, Ending, Transaction
from xoauth2_proxy.smtp.protocol import (
    BadParameter,
    BadPath,
    Envelope,
    parse_parameters,
    parse_path,
)

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.smtp.session_state import Run, SessionState

_NO_NAME = "501 5.5.4 EHLO needs a name"
_ARGUMENT = "501 5.5.4 No argument allowed"
_NESTED = "503 5.5.1 A transaction is under way"
_BAD_RECIPIENT = "553 5.1.3 Not a valid forward-path"
_BAD_PARAMETER = "501 5.5.4 Bad parameter"
_UNKNOWN_PARAMETER = "555 5.5.4 Parameter not implemented"
_NEEDS_UTF8 = "553 5.6.7 SMTPUTF8 was not declared"
_RESET = "250 2.0.0 OK"

# RFC 3461 §4: printable ASCII without "+" and "=", which are written as "+2B" and "+3D".
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_NOTIFY = re.compile(r"(?i)NEVER|(SUCCESS|FAILURE|DELAY)(,(SUCCESS|FAILURE|DELAY))*")

_EXTENSION_OF = {  # the parameters of MAIL, and the extension that each belongs to
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "AUTH": "AUTH",
    "RET": "DSN",
    "ENVID": "DSN",
}

# The same few paths come again and again.
_path = lru_cache(maxsize=1024)(partial(parse_path, needs_brackets=True))


class SmtpCommand(NamedTuple):
    """A verb's meaning."""

    run: Run
    step: Step | None = None  # where faults are placed
    must_wait: bool = False  # may only be the last of a group (RFC 2920 §3.1)


def _ehlo(session: SessionState, argument: str) -> str:
    if not argument:
        return _NO_NAME
    session.is_greeted = True
    session.end_transaction()
    provider = session.provider
    if session.at == b"HELO":
        return f"250 {HOST}"
    offered = dict(provider.extensions)
    if session.is_encrypted or provider.behaviour.tls is not TlsMode.STARTTLS:
        offered.pop("STARTTLS", None)
    if not may_authenticate(session):
        offered.pop("AUTH", None)
    words = [f"{word} {value}".rstrip() for word, value in offered.items()]
    *lines, last = [provider.dialect.hello, *words]
    return "\n".join([*(f"250-{line}" for line in lines), f"250 {last}"])


def _starttls(session: SessionState, argument: str) -> str:
    if argument:
        return _ARGUMENT
    if session.is_encrypted or session.provider.behaviour.tls is not TlsMode.STARTTLS:
        return "502 5.5.1 STARTTLS is not available"
    if "STARTTLS" not in session.provider.extensions:
        return "502 5.5.1 STARTTLS is not available"
    session.end(Ending.UPGRADE)
    return "220 2.0.0 Ready to start TLS"


def _mail(session: SessionState, argument: str) -> str:
    if refusal := _mail_refusal(session):
        return refusal
    try:
        reverse_path, rest = _path(argument, "FROM:")
        envelope = Envelope(reverse_path)
        parameters = parse_parameters(rest) if rest else {}
    except BadPath:
        return "553 5.1.7 Not a valid reverse-path"
    except BadParameter:
        return _BAD_PARAMETER
    for keyword, value in parameters.items():
        if refusal := _apply(session, envelope, keyword, value):
            return refusal
    if not (envelope.smtputf8 or reverse_path.isascii()):
        return _NEEDS_UTF8
    provider = session.provider
    receiver = ContentReceiver(provider.received, provider.behaviour.max_message_bytes)
    session.transaction = transaction = Transaction(envelope, receiver)
    if parameters:
        transaction.is_binary = parameters.get("BODY", "").upper() == "BINARYMIME"
    return "250 2.1.0 OK"


def _mail_refusal(session: SessionState) -> str:
    if session.is_authenticated:
        return _NESTED if session.transaction is not None else ""
    session.why = "the client has not logged in"
    if not session.is_greeted:
        return "503 5.5.1 EHLO first"
    required = session.provider.dialect.auth_required
    return (
        required if may_authenticate(session) else "530 5.7.0 Must issue a STARTTLS command first"
    )


def _apply(session: SessionState, envelope: Envelope, keyword: str, value: str) -> str:
    """Return the refusal of a parameter of MAIL, or put it into the envelope and return ""."""
    extensions = session.provider.extensions
    if _EXTENSION_OF.get(keyword) not in extensions:
        return _UNKNOWN_PARAMETER
    word, is_good = value.upper(), True
    match keyword:
        case "SIZE":
            return _size(session, envelope, value)
        case "BODY":
            envelope.body_8bit = word == "8BITMIME"
            is_binary = word == "BINARYMIME" and word in extensions
            is_good = is_binary or word in ("7BIT", "8BITMIME")
        case "SMTPUTF8":
            envelope.smtputf8, is_good = True, not value
        case "AUTH":
            is_good = bool(value)  # RFC 4954 §5: accepted, never trusted
        case "RET":
            envelope.ret, is_good = word, word in ("FULL", "HDRS")
        case "ENVID":
            envelope.envid = value
            is_good = _XTEXT.fullmatch(value) is not None and len(value) <= 100
    return "" if is_good else _BAD_PARAMETER


def _size(session: SessionState, envelope: Envelope, value: str) -> str:
    if not (value.isascii() and value.isdigit() and len(value) <= 20):  # RFC 1870 §4
        return _BAD_PARAMETER
    envelope.size_bytes = int(value)
    behaviour = session.provider.behaviour
    if envelope.size_bytes <= behaviour.max_message_bytes:
        return ""
    session.why = f"{behaviour.describe_limit('max_message_bytes')}: SIZE={envelope.size_bytes}"
    return "552 5.3.4 Message exceeds the fixed maximum size"


def _rcpt(session: SessionState, argument: str) -> str:
    transaction = session.transaction
    if transaction is None:
        return "503 5.5.1 MAIL first"
    transaction.recipients_tried += 1
    try:
        forward_path, rest = _path(argument, "TO:")
    except BadPath:
        return _BAD_RECIPIENT
    refusal = _parameters_refusal(session, rest) if forward_path and rest else ""
    refusal = refusal or _recipient_refusal(session, transaction, forward_path)
    if not refusal:
        transaction.envelope.forward_paths.append(forward_path)
    return refusal or "250 2.1.5 OK"


def _recipient_refusal(session: SessionState, transaction: Transaction, path: str) -> str:
    envelope, provider = transaction.envelope, session.provider
    if not path:
        return _BAD_RECIPIENT
    if not (envelope.smtputf8 or path.isascii()):
        return _NEEDS_UTF8
    if len(envelope.forward_paths) >= provider.behaviour.max_recipients:
        provider.counters.refused_by_limit["max_recipients"] += 1
        session.why = provider.behaviour.describe_limit("max_recipients")
        return provider.dialect.too_many_recipients
    return _NESTED if transaction.via else ""


def _parameters_refusal(session: SessionState, rest: str) -> str:
    """Return the refusal of the parameters of RCPT, or "". RFC 3461 §4.1, §4.2."""
    if "DSN" not in session.provider.extensions:
        return _UNKNOWN_PARAMETER
    try:
        parameters = parse_parameters(rest)
    except BadParameter:
        return _BAD_PARAMETER
    for keyword, value in parameters.items():
        if keyword not in ("NOTIFY", "ORCPT"):
            return _UNKNOWN_PARAMETER
        kind, _, address = value.partition(";")
        if keyword == "NOTIFY":
            is_good = _NOTIFY.fullmatch(value) is not None
        else:
            is_good = bool(kind) and _XTEXT.fullmatch(address) is not None
        if not is_good:
            return _BAD_PARAMETER
    return ""


def _rset(session: SessionState, argument: str) -> str:
    if argument:
        return _ARGUMENT
    session.end_transaction()
    return _RESET


def _quit(session: SessionState, argument: str) -> str:
    if argument:
        return _ARGUMENT
    session.close()
    return "221 2.0.0 Closing connection"


COMMANDS = {
    b"EHLO": SmtpCommand(_ehlo, Step.EHLO, must_wait=True),
    b"HELO": SmtpCommand(_ehlo, Step.EHLO, must_wait=True),
    b"STARTTLS": SmtpCommand(_starttls, Step.STARTTLS, must_wait=True),
    b"AUTH": SmtpCommand(auth, must_wait=True),  # its step comes with the complete credentials
    b"MAIL": SmtpCommand(_mail, Step.MAIL),
    b"RCPT": SmtpCommand(_rcpt, Step.RCPT),
    b"DATA": SmtpCommand(data, Step.DATA, must_wait=True),
    b"BDAT": SmtpCommand(bdat),  # runs its step itself
    b"RSET": SmtpCommand(_rset, Step.RSET),
    b"NOOP": SmtpCommand(lambda session, _: _RESET),
    b"VRFY": SmtpCommand(lambda session, _: "252 2.5.2 Send some mail and see"),
    b"HELP": SmtpCommand(
        lambda session, _: "214 2.0.0 https://datatracker.ietf.org/doc/html/rfc5321"
    ),
    b"QUIT": SmtpCommand(_quit, Step.QUIT),
}
UNKNOWN = SmtpCommand(lambda session, _: "502 5.5.1 Unrecognized command")
TURNED_AWAY = SmtpCommand(
    lambda session, _: "503 5.5.1 Bad sequence of commands, only QUIT is left"
)
