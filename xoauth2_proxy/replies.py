"""Holds every reply that the relay itself sends, and maps each error to one.

The texts are fixed, so no part of an exception's text, a token or a login reaches a client.
Replies of the provider pass through `for_client`. RFC 5321 §4.2, RFC 3463, RFC 4954 §6.
"""

from __future__ import annotations

from xoauth2_proxy import errors
from xoauth2_proxy.smtp.protocol import Reply, reply

# Success.
OK = reply(250, "0.0", "OK")
RESET = reply(250, "0.0", "Reset")
SENDER_OK = reply(250, "1.0", "Sender OK")
RECIPIENT_OK = reply(250, "1.5", "Recipient OK")
CHUNK_OK = reply(250, "0.0", "Chunk received")
GOODBYE = reply(221, "0.0", "Goodbye")
CANNOT_VERIFY = reply(252, "5.2", "Cannot verify the address, but will try to deliver")
HELP = reply(214, "0.0", "See RFC 5321; AUTH first, then MAIL, RCPT and DATA or BDAT")
AUTHENTICATED = reply(235, "7.0", "Authentication successful")
START_TLS = reply(220, "0.0", "Ready to start TLS")
SEND_CONTENT = reply(354, "", "End data with <CR><LF>.<CR><LF>")

# Authentication.
CREDENTIALS_INVALID = reply(535, "7.8", "Authentication credentials invalid")
CREDENTIAL_DISABLED = reply(535, "7.8", "This login is disabled at the relay")
CREDENTIAL_EXPIRED = reply(535, "7.8", "This login has expired at the relay")
CREDENTIAL_NOT_FROM_HERE = reply(535, "7.8", "This login may not be used from your address")
SIGN_IN_AGAIN = reply(535, "7.8", "The mailbox must be signed in at the relay")
# RFC 4954 §6: the mechanism is too weak for this user. 535 would make a person type the password,
# which is right, again and again; 454 would make the client come back forever.
OWN_TOKEN_REQUIRED = reply(
    534, "7.9", "This mailbox needs XOAUTH2 or OAUTHBEARER; a password cannot work"
)
AUTH_UNAVAILABLE = reply(454, "7.0", "Temporary authentication failure")
AUTH_NEEDS_TLS = reply(538, "7.11", "Encryption required; use STARTTLS first")
AUTH_REQUIRED = reply(530, "7.0", "Authentication required")
STARTTLS_FIRST = reply(530, "7.0", "Must issue a STARTTLS command first")
AUTH_MECHANISM_UNKNOWN = reply(504, "5.4", "Unrecognized authentication mechanism")
AUTH_LINE_TOO_LONG = reply(500, "5.6", "Authentication exchange line is too long")
AUTH_MALFORMED = reply(501, "5.2", "Malformed authentication data")
AUTH_CANCELLED = reply(501, "7.0", "Authentication cancelled")
ALREADY_AUTHENTICATED = reply(503, "5.1", "Already authenticated")
GUESSING_SLOWED = reply(421, "7.0", "Too many failed logins; try again later")
TOO_MANY_AUTH_FAILURES = reply(421, "7.0", "Too many authentication failures")

# Sequence and syntax of commands.
BAD_SEQUENCE = reply(503, "5.1", "Bad sequence of commands")
HELLO_FIRST = reply(503, "5.1", "Send EHLO first")
COMMAND_UNKNOWN = reply(500, "5.2", "Command not recognized")
COMMAND_NOT_IMPLEMENTED = reply(502, "5.1", "Command not implemented")
COMMAND_TOO_LONG = reply(500, "5.2", "Command line too long")
COMMAND_MALFORMED = reply(500, "5.2", "Command line must end with CRLF and hold no control octets")
ARGUMENT_MALFORMED = reply(501, "5.4", "Syntax error in parameters")
PARAMETER_UNKNOWN = reply(555, "5.4", "MAIL or RCPT parameter not recognized")
TOO_MANY_BAD_COMMANDS = reply(421, "7.0", "Too many unrecognized commands")
TLS_NOT_AVAILABLE = reply(502, "5.1", "STARTTLS is not available")
TLS_UNASKED = reply(421, "7.0", "This port does not begin with TLS")
OCTETS_AFTER_STARTTLS = reply(554, "5.0", "Octets after STARTTLS")

# Envelope and content.
SENDER_CHOOSES_NONE = reply(
    550, "7.1", "Several mailboxes may be used from your address; the sender must be one of them"
)
SENDER_MALFORMED = reply(553, "1.7", "Malformed sender address")
RECIPIENT_MALFORMED = reply(553, "1.3", "Malformed recipient address")
TOO_MANY_RECIPIENTS = reply(452, "5.3", "Too many recipients")
NO_VALID_RECIPIENTS = reply(554, "5.1", "No valid recipients")
TOO_LARGE = reply(552, "3.4", "Message size exceeds the limit")
HEADER_TOO_LARGE = reply(550, "6.0", "Message header exceeds 256 KiB")
BARE_LINE_ENDS = reply(550, "6.0", "Message contains a bare CR or LF")
# Closes the session: what waits behind such a message may be a smuggled one.
BARE_LINE_ENDS_AND_MORE = reply(521, "5.2", "Message contains a bare CR or LF; closing")
NUL_IN_CONTENT = reply(550, "6.0", "Message contains a NUL octet")
NO_END_OF_DATA = reply(421, "4.2", "No end of data; a message ends with <CR><LF>.<CR><LF>")
NEEDS_SMTPUTF8 = reply(553, "6.7", "An address that is not ASCII needs SMTPUTF8")
SMTPUTF8_UNSUPPORTED = reply(553, "6.7", "The provider does not support SMTPUTF8")
DSN_UNSUPPORTED = reply(555, "5.4", "The provider does not support RET, ENVID, NOTIFY, ORCPT")
EIGHT_BIT_UNSUPPORTED = reply(554, "6.3", "The provider does not support 8BITMIME")

# The provider: connection, AUTH and tokens.
UPSTREAM_UNREACHABLE = reply(451, "4.1", "The provider cannot be reached")
UPSTREAM_NOT_FOUND = reply(451, "4.3", "The provider's host name does not resolve")
UPSTREAM_INSECURE = reply(451, "7.5", "No secure connection to the provider")
UPSTREAM_LOST = reply(451, "4.2", "Connection to the provider lost")
UPSTREAM_CONFUSED = reply(451, "3.0", "The provider did not accept the relay's session")
UPSTREAM_AUTH_REFUSED = reply(550, "7.8", "The provider refused the relay's login")
GRANT_ENDED = reply(550, "7.8", "The mailbox must be signed in at the relay")
TOKEN_UNAVAILABLE = reply(451, "7.0", "Temporary authentication failure")
UPSTREAM_BUSY = reply(451, "3.2", "Too many messages at once for this mailbox; try again")

# The relay's own state.
LOG_IN_AGAIN = reply(421, "7.0", "The mailbox's settings have changed; log in again")
SHUTTING_DOWN = reply(421, "3.2", "Service shutting down; try again")
NETWORK_NOT_ALLOWED = reply(554, "7.1", "Your address may not connect to this port")
TOO_MANY_CONNECTIONS = reply(421, "3.2", "Too many connections; try again later")
TOO_MANY_FROM_ADDRESS = reply(421, "7.0", "Too many connections from your address")
DISPLACED = reply(421, "3.2", "Too many connections; log in sooner")
IDLE_TOO_LONG = reply(421, "4.2", "Idle for too long")
LOGIN_TOO_LATE = reply(421, "4.2", "No login in time")
MESSAGE_TOO_LATE = reply(421, "4.2", "The message took too long")
TOO_SLOW = reply(421, "4.2", "The message arrived too slowly; try again")
NO_ROOM = reply(452, "3.1", "Too little memory at the moment; try again")
ROOM_NEEDED = reply(421, "3.1", "Too little memory at the moment; try again")
TOO_MANY_COMMANDS = reply(421, "7.0", "Too many commands without a message")
INTERNAL_ERROR = reply(451, "3.0", "Internal error; try again later")


def too_many_a_minute(credential: str, limit: float) -> Reply:
    """Return the reply to MAIL beyond the messages a minute of a credential."""
    allowed = _counted(limit, "message")
    return reply(451, "7.1", f"{_named(credential)} may send {allowed} a minute; wait")


def too_many_a_day(credential: str, limit: int) -> Reply:
    """Return the reply to MAIL beyond the messages a day of a credential."""
    allowed = _counted(limit, "message")
    return reply(452, "7.1", f"{_named(credential)} may send {allowed} in 24 hours")


def too_many_sessions(credential: str, limit: int) -> Reply:
    """Return the reply that ends a session beyond those that a credential may have."""
    allowed = _counted(limit, "connection")
    return reply(421, "7.0", f"{_named(credential)} may have {allowed} at one time")


def _counted(number: float, noun: str) -> str:
    digits = f"{number:.0f}" if number == int(number) else f"{number:g}"  # no 1e+06
    return f"{digits} {noun}{'s'[: number != 1]}"


def _named(credential: str) -> str:
    return f"The login {credential}" if credential.isascii() else "This login"


# Replies to AUTH when the relay cannot obtain a token or log in upstream.
_AT_AUTH: tuple[tuple[type[errors.ProxyError], Reply], ...] = (
    (errors.GuessingSlowed, GUESSING_SLOWED),
    (errors.CredentialDisabled, CREDENTIAL_DISABLED),
    (errors.CredentialExpired, CREDENTIAL_EXPIRED),
    (errors.CredentialNotFromHere, CREDENTIAL_NOT_FROM_HERE),
    (errors.CredentialsRejected, CREDENTIALS_INVALID),
    (errors.GrantRevoked, SIGN_IN_AGAIN),
    (errors.OwnTokenRequired, OWN_TOKEN_REQUIRED),
    # The operator can fix this, so mail must wait rather than bounce.
    (errors.TokenEndpointRefused, AUTH_UNAVAILABLE),
    (errors.TokenError, AUTH_UNAVAILABLE),
    (errors.UpstreamError, AUTH_UNAVAILABLE),
    (errors.Overloaded, AUTH_UNAVAILABLE),
)

# Final replies to a transaction.
_AT_TRANSACTION: tuple[tuple[type[errors.ProxyError], Reply], ...] = (
    (errors.GrantRevoked, GRANT_ENDED),
    (errors.TokenError, TOKEN_UNAVAILABLE),
    (errors.UpstreamNotFound, UPSTREAM_NOT_FOUND),
    (errors.UpstreamInsecure, UPSTREAM_INSECURE),
    (errors.UpstreamClosedEarly, UPSTREAM_LOST),
    (errors.UpstreamUnavailable, UPSTREAM_UNREACHABLE),
    (errors.UpstreamDropped, UPSTREAM_LOST),
    (errors.OutcomeUnknown, UPSTREAM_LOST),
    (errors.Overloaded, UPSTREAM_BUSY),
)

# Codes that concern a connection or a login, which clients would take for theirs.
_FOR_CONNECTIONS = frozenset({421, 432})
# Codes that concern the relay's session with the provider, not the client's message.
_ABOUT_OUR_SESSION = frozenset({500, 502, 503, 504, 530, 538, 555})


def at_auth(error: errors.ProxyError) -> Reply:
    """Return the reply to an AUTH that failed with `error`."""
    if isinstance(error, errors.UpstreamAuthRejected) and _is_final(error.reply):
        return CREDENTIALS_INVALID
    return _first_match(error, _AT_AUTH)


def at_transaction(error: errors.ProxyError) -> Reply:
    """Return the final reply to a transaction that failed with `error`."""
    if isinstance(error, errors.UpstreamAuthRejected):
        return _login_refused(error.reply) if _is_final(error.reply) else TOKEN_UNAVAILABLE
    if isinstance(error, errors.ExtensionMissing):
        return error.reply
    if isinstance(error, errors.UpstreamRejected):
        return for_client(error.reply)
    if isinstance(error, errors.UpstreamClosedEarly) and error.reply is not None:
        return for_client(error.reply)
    return _first_match(error, _AT_TRANSACTION)


def _login_refused(upstream: Reply) -> Reply:
    """Return our reply with the provider's text, which users search for, behind it in one line.

    Many clients show only the first line of a reply, others only the last.
    """
    own = UPSTREAM_AUTH_REFUSED
    return Reply(own.code, own.enhanced, (f"{own.text[0]}: {upstream}",))


def sender_refused(fault: str, allowed: str) -> Reply:
    """Return the reply to a sender, in MAIL or in the header, that the login may not use."""
    return reply(550, "7.1", f"{fault}; this login may send as {allowed}")


def for_client(upstream: Reply) -> Reply:
    """Return the reply to pass to the client: the provider's text, with a code that suits it.

    421 would make the client hang up, and some clients take 432 as a password problem (RFC 4954
    §6), so both become 451. A code about the relay's own session becomes `UPSTREAM_CONFUSED`.
    """
    if is_about_session(upstream):
        return UPSTREAM_CONFUSED
    if upstream.enhanced and upstream.code not in _FOR_CONNECTIONS:
        return upstream
    code = 451 if upstream.code in _FOR_CONNECTIONS else upstream.code
    enhanced = upstream.enhanced or f"{code // 100}.0.0"
    return Reply(code, enhanced, upstream.text)


def is_about_session(upstream: Reply) -> bool:
    """Whether the reply concerns the relay's session with the provider, not a message."""
    return upstream.code in _ABOUT_OUR_SESSION or 300 <= upstream.code < 400


def _is_final(refusal: Reply) -> bool:
    """Whether AUTH was refused because of the token, which only a new grant can fix."""
    return not refusal.is_transient and not is_about_session(refusal)


def _first_match(
    error: errors.ProxyError, table: tuple[tuple[type[errors.ProxyError], Reply], ...]
) -> Reply:
    return next((found for kind, found in table if isinstance(error, kind)), INTERNAL_ERROR)
