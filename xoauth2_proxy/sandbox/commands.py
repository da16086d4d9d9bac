"""What each SMTP command means to the sandbox provider, as one table.

RFC 5321 §4.1.1; AUTH is RFC 4954, STARTTLS RFC 3207, SIZE RFC 1870, SMTPUTF8 RFC 6531.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from xoauth2_proxy.accounts import TlsMode
from xoauth2_proxy.sandbox import bearer, delivery
from xoauth2_proxy.sandbox.delivery import Transaction
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.intake import Intake
from xoauth2_proxy.sandbox.office import MAX_RECIPIENTS
from xoauth2_proxy.smtp import (
    BadParameter,
    BadPath,
    Envelope,
    parse_parameters,
    parse_path,
    reply,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.sandbox.session import Session

_MAX_AUTH_FAILURES = 5

_HOST = "sandbox.invalid"
_HELLO = reply(250, "", _HOST).encode()
_NO_NAME = reply(501, "5.4", "EHLO needs a name").encode()
_GO_TLS = reply(220, "0.0", "Ready to start TLS").encode()
_NO_TLS = reply(502, "5.1", "STARTTLS is not available").encode()
_ARGUMENT = reply(501, "5.4", "No argument allowed").encode()
_EHLO_FIRST = reply(503, "5.1", "EHLO first").encode()
_TLS_FIRST = reply(530, "7.0", "Must issue a STARTTLS command first").encode()
_AUTH_NEEDS_TLS = reply(538, "7.11", "Encryption required").encode()
_AUTH_AGAIN = reply(503, "5.1", "Already authenticated").encode()
_AUTH_IN_TRANSACTION = reply(503, "5.1", "AUTH not allowed in a transaction").encode()
_NO_MECHANISM = reply(504, "5.4", "Unrecognized authentication type").encode()
_CANCELLED = reply(501, "7.0", "Authentication cancelled").encode()
_NOT_BASE64 = reply(501, "5.2", "Cannot decode response").encode()
_ACCEPTED = reply(235, "7.0", "Accepted").encode()
_REFUSED = reply(535, "7.8", "Username and Password not accepted").encode()
_TOO_MANY_FAILURES = reply(421, "7.0", "Too many authentication failures").encode()
_AUTH_REQUIRED = reply(530, "7.0", "Authentication Required").encode()
_NESTED = reply(503, "5.1", "A transaction is under way").encode()
_BAD_SENDER = reply(553, "1.7", "Not a valid reverse-path").encode()
_BAD_RECIPIENT = reply(553, "1.3", "Not a valid forward-path").encode()
_BAD_PARAMETER = reply(501, "5.4", "Bad parameter").encode()
_UNKNOWN_PARAMETER = reply(555, "5.4", "Parameter not implemented").encode()
_TOO_LARGE = reply(552, "3.4", "Message exceeds the fixed maximum size").encode()
_NEEDS_UTF8 = reply(553, "6.7", "SMTPUTF8 was not declared").encode()
_SENDER_OK = reply(250, "1.0", "OK").encode()
_MAIL_FIRST = reply(503, "5.1", "MAIL first").encode()
_TOO_MANY = reply(452, "5.3", "Too many recipients").encode()
_RECIPIENT_OK = reply(250, "1.5", "OK").encode()
_RESET = reply(250, "0.0", "OK").encode()
_CANNOT_VERIFY = reply(252, "5.2", "Send some mail and see").encode()
_HELP = reply(214, "0.0", "https://datatracker.ietf.org/doc/html/rfc5321").encode()
_BYE = reply(221, "0.0", "Closing connection").encode()
_UNKNOWN = reply(502, "5.1", "Unrecognized command").encode()

_path = lru_cache(maxsize=1024)(parse_path)  # the same few paths come again and again

_READERS = {"XOAUTH2": bearer.read_xoauth2, "OAUTHBEARER": bearer.read_oauthbearer}


class Command(NamedTuple):
    """A verb's meaning."""

    run: Callable[[Session, str], None]
    step: Step | None = None  # where faults are placed
    must_wait: bool = False  # may only be the last of a group (RFC 2920 §3.1)


def _ehlo(session: Session, argument: str) -> None:
    if not argument:
        session.say(_NO_NAME)
        return
    _begin(session)
    offered = dict(session.office.extensions)
    if session.is_encrypted or session.office.settings.tls is not TlsMode.STARTTLS:
        offered.pop("STARTTLS", None)
    if not _may_authenticate(session):
        offered.pop("AUTH", None)
    words = (f"{word} {value}".rstrip() for word, value in offered.items())
    session.say(reply(250, "", f"{_HOST} at your service", *words).encode())


def _helo(session: Session, argument: str) -> None:
    if not argument:
        session.say(_NO_NAME)
        return
    _begin(session)
    session.say(_HELLO)


def _begin(session: Session) -> None:
    session.is_greeted = True
    session.end_transaction()


def _starttls(session: Session, argument: str) -> None:
    if argument:
        session.say(_ARGUMENT)
    elif (
        session.is_encrypted
        or session.office.settings.tls is not TlsMode.STARTTLS
        or "STARTTLS" not in session.office.extensions
    ):
        session.say(_NO_TLS)
    else:
        session.say(_GO_TLS)
        session.upgrade()


def _may_authenticate(session: Session) -> bool:
    settings = session.office.settings
    return session.is_encrypted or settings.auth_without_tls or settings.tls is TlsMode.NONE


def _auth(session: Session, argument: str) -> None:
    mechanism, _, initial_response = argument.partition(" ")
    mechanism = mechanism.upper()
    refusal = _auth_refusal(session, mechanism)
    if refusal:
        session.say(refusal)
        return
    session.mechanism = mechanism
    if initial_response:
        octets = b"" if initial_response == "=" else initial_response.encode()
        _take_credentials(session, octets)
    else:
        session.say(b"334 \r\n")
        session.expects = _take_credentials


def _auth_refusal(session: Session, mechanism: str) -> bytes:
    checks = (
        (not session.is_greeted, _EHLO_FIRST),
        (not _may_authenticate(session), _AUTH_NEEDS_TLS),
        (session.is_authenticated, _AUTH_AGAIN),
        (session.transaction is not None, _AUTH_IN_TRANSACTION),
        ("AUTH" not in session.office.extensions, _UNKNOWN),
        (mechanism not in _READERS, _NO_MECHANISM),
    )
    return next((refusal for applies, refusal in checks if applies), b"")


def _take_credentials(session: Session, line: bytes) -> None:
    if line == b"*":
        session.say(_CANCELLED)
        return
    try:
        octets = bearer.decode_base64(line)
    except bearer.BadCredentials:
        session.say(_NOT_BASE64)
        return
    try:
        credentials = _READERS[session.mechanism](octets)
    except bearer.BadCredentials:
        _challenge(session, "400")
        return
    session.mailbox = credentials.mailbox
    session.step(Step.AUTH, credentials.mailbox, partial(_judge, token=credentials.token))
    if not session.is_authenticated:
        session.mailbox = ""


def _judge(session: Session, mailbox: str, *, token: str) -> None:
    if session.office.admits(mailbox, token):
        session.is_authenticated = True
        session.office.counters.mailbox_opened(mailbox)
        session.say(_ACCEPTED)
    else:
        _challenge(session, "401")


def _challenge(session: Session, status: str) -> None:
    session.say(bearer.challenge(session.mechanism, status))
    session.expects = _refuse_authentication


def _refuse_authentication(session: Session, _: bytes) -> None:
    # Whatever the line is, it ends the exchange (RFC 7628 §3.2.3).
    session.auth_failures += 1
    if session.auth_failures < _MAX_AUTH_FAILURES:
        session.say(_REFUSED)
    else:
        session.say(_TOO_MANY_FAILURES)
        session.close()


def _mail(session: Session, argument: str) -> None:
    refusal = _mail_refusal(session)
    if refusal:
        session.say(refusal)
        return
    try:
        reverse_path, rest = _path(argument, "FROM:")
        envelope = Envelope(reverse_path)
        parameters = parse_parameters(rest) if rest else {}
    except BadPath:
        session.say(_BAD_SENDER)
        return
    except BadParameter:
        session.say(_BAD_PARAMETER)
        return
    for keyword, value in parameters.items():
        refusal = _apply(session, envelope, keyword, value)
        if refusal:
            session.say(refusal)
            return
    if not (envelope.smtputf8 or reverse_path.isascii()):
        session.say(_NEEDS_UTF8)
        return
    intake = Intake(session.office.received, session.office.settings.max_message_bytes)
    session.transaction = Transaction(envelope, intake)
    session.say(_SENDER_OK)


def _mail_refusal(session: Session) -> bytes:
    if session.is_authenticated:
        return _NESTED if session.transaction is not None else b""
    if not session.is_greeted:
        return _EHLO_FIRST
    return _AUTH_REQUIRED if _may_authenticate(session) else _TLS_FIRST


def _apply(session: Session, envelope: Envelope, keyword: str, value: str) -> bytes:
    """Return the refusal of a parameter of MAIL, or put it into the envelope and return b""."""
    check = _MAIL_PARAMETERS.get(keyword)
    if check is None or check[0] not in session.office.extensions:
        return _UNKNOWN_PARAMETER
    return check[1](session, envelope, value)


def _size(session: Session, envelope: Envelope, value: str) -> bytes:
    if not (value.isascii() and value.isdigit() and len(value) <= 20):  # RFC 1870 §4
        return _BAD_PARAMETER
    envelope.size_bytes = int(value)
    limit = session.office.settings.max_message_bytes
    return _TOO_LARGE if envelope.size_bytes > limit else b""


def _body(_: Session, envelope: Envelope, value: str) -> bytes:
    envelope.body_8bit = value.upper() == "8BITMIME"
    return b"" if value.upper() in ("7BIT", "8BITMIME") else _BAD_PARAMETER


def _smtputf8(_: Session, envelope: Envelope, value: str) -> bytes:
    envelope.smtputf8 = True
    return _BAD_PARAMETER if value else b""


def _auth_parameter(_session: Session, _envelope: Envelope, value: str) -> bytes:
    return b"" if value else _BAD_PARAMETER  # RFC 4954 §5: accepted, never trusted


_MAIL_PARAMETERS = {  # keyword: the extension that allows it, and its meaning
    "SIZE": ("SIZE", _size),
    "BODY": ("8BITMIME", _body),
    "SMTPUTF8": ("SMTPUTF8", _smtputf8),
    "AUTH": ("AUTH", _auth_parameter),
}


def _rcpt(session: Session, argument: str) -> None:
    transaction = session.transaction
    if transaction is None:
        session.say(_MAIL_FIRST)
        return
    transaction.recipients_tried += 1
    try:
        forward_path, rest = _path(argument, "TO:")
    except BadPath:
        forward_path, rest = "", ""
    if not forward_path:
        session.say(_BAD_RECIPIENT)
    elif rest:
        session.say(_UNKNOWN_PARAMETER)
    elif not (transaction.envelope.smtputf8 or forward_path.isascii()):
        session.say(_NEEDS_UTF8)
    elif len(transaction.envelope.forward_paths) >= MAX_RECIPIENTS:
        session.say(_TOO_MANY)
    elif transaction.via:
        session.say(_NESTED)
    else:
        transaction.envelope.forward_paths.append(forward_path)
        session.say(_RECIPIENT_OK)


def _rset(session: Session, argument: str) -> None:
    if argument:
        session.say(_ARGUMENT)
    else:
        session.end_transaction()
        session.say(_RESET)


def _quit(session: Session, argument: str) -> None:
    if argument:
        session.say(_ARGUMENT)
    else:
        session.say(_BYE)
        session.close()


def _answer(octets: bytes) -> Command:
    return Command(lambda session, _: session.say(octets))


COMMANDS = {
    b"EHLO": Command(_ehlo, Step.EHLO, must_wait=True),
    b"HELO": Command(_helo, Step.EHLO, must_wait=True),
    b"STARTTLS": Command(_starttls, Step.STARTTLS, must_wait=True),
    b"AUTH": Command(_auth, must_wait=True),  # its step is where the credentials are complete
    b"MAIL": Command(_mail, Step.MAIL),
    b"RCPT": Command(_rcpt, Step.RCPT),
    b"DATA": Command(delivery.data, Step.DATA, must_wait=True),
    b"BDAT": Command(delivery.bdat),  # places its step itself
    b"RSET": Command(_rset, Step.RSET),
    b"NOOP": _answer(_RESET),
    b"VRFY": _answer(_CANNOT_VERIFY),
    b"HELP": _answer(_HELP),
    b"QUIT": Command(_quit, Step.QUIT),
}
UNKNOWN = _answer(_UNKNOWN)
