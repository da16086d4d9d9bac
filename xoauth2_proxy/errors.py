"""Defines the relay's errors by who must act and whether a retry may succeed.

An error's text is for the log. The replies that clients get are in `xoauth2_proxy.replies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.protocol import Reply


class ProxyError(Exception):
    """The base class. `is_transient`: whether the same attempt may succeed later."""

    is_transient = False


# The operator's fault: the configuration.


class ConfigError(ProxyError):
    """The operator's configuration is invalid. `problems` pairs each JSON path with its fault."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for path, problem in problems))
        self.problems = problems


# The client's fault: its credentials.


class CredentialsRejected(ProxyError):
    """The client sent a wrong login, password or token. A retry does not help."""

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason  # a value of `clients.interface.Refused`; "": login or password


class GuessingSlowed(CredentialsRejected):
    """Too many logins failed at this address or login: this one was not looked at."""

    is_transient = True

    def __init__(self, message: str = "too many logins have failed") -> None:
        super().__init__(message, reason="guessing_slowed")


class CredentialUnusable(CredentialsRejected):
    """Login and password are right, but of no use here and now. The subclasses say why."""


class CredentialDisabled(CredentialUnusable):
    """Login and password are right, but the operator has disabled the credential."""


class CredentialExpired(CredentialUnusable):
    """Login and password are right, but the credential's time is over."""


class CredentialNotFromHere(CredentialUnusable):
    """Login and password are right, but may not be used from the client's address."""


# Access tokens: the user, the operator or the provider must act.


class TokenError(ProxyError):
    """No access token can be obtained. The subclasses say who must act."""

    def __init__(self, message: str = "", *, oauth_error: str = "") -> None:
        super().__init__(message)
        self.oauth_error = oauth_error  # the endpoint's `error` (RFC 6749 §5.2), or ""


class GrantRevoked(TokenError):
    """The grant has ended (`invalid_grant`, RFC 6749 §5.2): the user must sign in again."""


class TokenEndpointRefused(TokenError):
    """The endpoint rejected the request, e.g. `invalid_client`: the operator must fix the setup."""


class OwnTokenRequired(TokenEndpointRefused):
    """The mailbox has no OAuth client: only clients that bring an access token can use it."""


class TokenEndpointUnavailable(TokenError):
    """The token endpoint is unreachable or failing. A retry may succeed."""

    is_transient = True

    def __init__(
        self, message: str, retry_after_seconds: float = 0.0, *, oauth_error: str = ""
    ) -> None:
        super().__init__(message, oauth_error=oauth_error)
        self.retry_after_seconds = retry_after_seconds  # 0: the endpoint gave no time


class TokenStoreUnavailable(TokenError):
    """The store of grants cannot be read or written. A retry may succeed."""

    is_transient = True


# A sign-in: the user must act.


class SignInRefused(ProxyError):
    """A sign-in failed. The text tells the user why, and what to do."""


# The provider's mail server.


class UpstreamError(ProxyError):
    """The provider's SMTP server did not accept the message. A retry may succeed."""

    is_transient = True


class UpstreamUnavailable(UpstreamError):
    """No connection to the provider: it was refused, timed out or closed."""


class UpstreamNotFound(UpstreamUnavailable):
    """The upstream's host name does not resolve."""


class UpstreamInsecure(UpstreamUnavailable):
    """The provider offers no STARTTLS, or the handshake or certificate check failed."""


class UpstreamClosedEarly(UpstreamUnavailable):
    """A working connection was lost, or MAIL was answered 421, before any content was sent.

    Nothing can have been delivered, so the transaction may be retried at once.
    """

    def __init__(self, message: str = "", reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply  # the 421, if the provider sent one


class UpstreamRejected(UpstreamError):
    """The provider refused with `reply`, which goes to the client."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply

    @property
    def is_transient(self) -> bool:  # type: ignore[override]
        """Whether the provider's reply is a 4yz."""
        return self.reply.is_transient


class ExtensionMissing(UpstreamError):
    """The message needs an extension the provider lacks. Nothing was sent; clients get `reply`."""

    is_transient = False

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class UpstreamAuthRejected(UpstreamRejected):
    """The provider refused the access token at AUTH."""


class UpstreamDropped(UpstreamError):
    """The connection was lost while content was being sent. Nothing was delivered."""


class OutcomeUnknown(UpstreamError):
    """The connection was lost after the last octet, before the reply. A retry may deliver twice."""


# The relay's limits.


class Overloaded(ProxyError):
    """A limit of the relay was reached, e.g. too many waiting messages. A retry may succeed."""

    is_transient = True
