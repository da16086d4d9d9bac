"""Says why a client is turned away: for each reply, failed login and failed TLS handshake."""

from __future__ import annotations

from ssl import SSLError
from typing import TYPE_CHECKING

from xoauth2_proxy import errors, replies
from xoauth2_proxy.clients.interface import Refused

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.protocol import Reply

REASONS: dict[Reply, Refused] = {
    replies.AUTH_NEEDS_TLS: Refused.AUTH_NEEDS_TLS,
    replies.AUTH_REQUIRED: Refused.AUTH_REQUIRED,
    replies.STARTTLS_FIRST: Refused.AUTH_NEEDS_TLS,
    replies.NETWORK_NOT_ALLOWED: Refused.NETWORK_NOT_ALLOWED,
    replies.AUTH_MECHANISM_UNKNOWN: Refused.MECHANISM_UNKNOWN,
    replies.AUTH_LINE_TOO_LONG: Refused.AUTH_MALFORMED,
    replies.AUTH_MALFORMED: Refused.AUTH_MALFORMED,
    replies.AUTH_CANCELLED: Refused.AUTH_CANCELLED,
    replies.ALREADY_AUTHENTICATED: Refused.BAD_COMMANDS,
    replies.BAD_SEQUENCE: Refused.BAD_COMMANDS,
    replies.HELLO_FIRST: Refused.BAD_COMMANDS,
    replies.COMMAND_UNKNOWN: Refused.BAD_COMMANDS,
    replies.COMMAND_NOT_IMPLEMENTED: Refused.BAD_COMMANDS,
    replies.COMMAND_TOO_LONG: Refused.BAD_COMMANDS,
    replies.COMMAND_MALFORMED: Refused.BAD_COMMANDS,
    replies.ARGUMENT_MALFORMED: Refused.BAD_COMMANDS,
    replies.TOO_MANY_BAD_COMMANDS: Refused.BAD_COMMANDS,
    replies.PARAMETER_UNKNOWN: Refused.PARAMETER_UNKNOWN,
    replies.TLS_NOT_AVAILABLE: Refused.TLS_NOT_OFFERED,
    replies.TLS_UNASKED: Refused.TLS_ON_PLAIN_PORT,
    replies.OCTETS_AFTER_STARTTLS: Refused.TLS_FAILED,
    replies.SENDER_CHOOSES_NONE: Refused.SENDER_NOT_ALLOWED,
    replies.SENDER_MALFORMED: Refused.SENDER_MALFORMED,
    replies.RECIPIENT_MALFORMED: Refused.RECIPIENT_MALFORMED,
    replies.TOO_MANY_RECIPIENTS: Refused.TOO_MANY_RECIPIENTS,
    replies.NO_VALID_RECIPIENTS: Refused.BAD_COMMANDS,
    replies.TOO_LARGE: Refused.TOO_LARGE,
    replies.BARE_LINE_ENDS: Refused.LINE_ENDS,
    replies.HEADER_TOO_LARGE: Refused.CONTENT_MALFORMED,
    replies.BARE_LINE_ENDS_AND_MORE: Refused.LINE_ENDS,
    replies.NUL_IN_CONTENT: Refused.NUL_IN_CONTENT,
    replies.NO_END_OF_DATA: Refused.NO_END_OF_DATA,
    replies.NEEDS_SMTPUTF8: Refused.SMTPUTF8_MISSING,
    replies.GUESSING_SLOWED: Refused.GUESSING_SLOWED,
    replies.LOG_IN_AGAIN: Refused.LOGIN_ENDED,
    replies.TOO_MANY_CONNECTIONS: Refused.TOO_MANY_CONNECTIONS,
    replies.TOO_MANY_FROM_ADDRESS: Refused.TOO_MANY_FOR_ADDRESS,
    replies.DISPLACED: Refused.TOO_MANY_CONNECTIONS,
    replies.TOO_MANY_COMMANDS: Refused.TOO_MANY_COMMANDS,
    replies.NO_ROOM: Refused.OUT_OF_MEMORY,
    replies.ROOM_NEEDED: Refused.OUT_OF_MEMORY,
    replies.MESSAGE_TOO_LATE: Refused.TOO_SLOW,
    replies.TOO_SLOW: Refused.TOO_SLOW,
    replies.IDLE_TOO_LONG: Refused.IDLE,
    replies.LOGIN_TOO_LATE: Refused.LOGIN_TOO_LATE,
    replies.INTERNAL_ERROR: Refused.INTERNAL_ERROR,
}


def reason_of(reply: Reply) -> Refused | None:
    """Return why a client that gets this reply is turned away.

    None: the reply is positive, comes from the provider, or whoever sends it notes the reason.
    """
    return REASONS.get(reply)


# OpenSSL's reasons. An alert is the client's: it has refused the certificate.
_TOO_OLD = frozenset({"UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION"})
_NOT_TRUSTED = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    }
)
_NO_TLS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"})


def handshake_failure(error: OSError) -> tuple[Refused, str]:
    """Return why a TLS handshake failed, and in words what is known beyond that."""
    if isinstance(error, (TimeoutError, ConnectionAbortedError)):  # the latter is the event loop's
        return Refused.TLS_FAILED, "it did not finish the handshake in time"
    reason = (error.reason or "") if isinstance(error, SSLError) else ""
    if reason in _TOO_OLD:
        return Refused.TLS_TOO_OLD, ""
    if reason in _NOT_TRUSTED:
        return Refused.TLS_NOT_TRUSTED, ""
    if reason in _NO_TLS:
        return Refused.TLS_FAILED, "what it sent is not TLS"
    if not reason:
        return Refused.TLS_FAILED, "it closed the connection during the handshake"
    return Refused.TLS_FAILED, f"OpenSSL says {reason.replace('_', ' ').lower()}"


def login_failure(error: errors.ProxyError, *, is_known: bool) -> Refused:
    """Return why AUTH failed; `is_known` tells whether the login exists."""
    if isinstance(error, errors.CredentialsRejected):
        if error.reason:
            return Refused(error.reason)
        return Refused.PASSWORD_WRONG if is_known else Refused.LOGIN_UNKNOWN
    if isinstance(error, errors.UpstreamAuthRejected):
        return Refused.LOGIN_UNAVAILABLE if error.is_transient else Refused.TOKEN_REFUSED
    if isinstance(error, errors.GrantRevoked):
        return Refused.SIGN_IN_NEEDED
    if isinstance(error, errors.OwnTokenRequired):
        return Refused.OWN_TOKEN_REQUIRED
    return Refused.LOGIN_UNAVAILABLE
