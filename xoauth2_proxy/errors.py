"""Every error the relay can raise, by two questions: whose fault is it, and may one try again?

The text of an error is for the log. What a client is told comes from `xoauth2_proxy.replies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.protocol import Reply


class ProxyError(Exception):
    """The root. `is_transient` says whether the same attempt may succeed later."""

    is_transient = False


class ConfigError(ProxyError):
    """The configuration cannot be used; `problems` pairs each JSON path with what is wrong."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for path, problem in problems))
        self.problems = problems


class CredentialsRejected(ProxyError):
    """The client's login, password or token is wrong."""


class TokenError(ProxyError):
    """No access token can be had."""

    def __init__(self, message: str = "", *, oauth_error: str = "") -> None:
        super().__init__(message)
        self.oauth_error = oauth_error  # the endpoint's word (RFC 6749 §5.2); "": it said none


class GrantRevoked(TokenError):
    """`invalid_grant` (RFC 6749 §5.2): a person must sign the mailbox in again."""


class TokenEndpointRefused(TokenError):
    """`invalid_client`, `invalid_scope` and the like: the operator must mend the set-up."""


class TokenEndpointUnavailable(TokenError):
    """The token endpoint cannot be reached or is in trouble."""

    is_transient = True

    def __init__(
        self, message: str, retry_after_seconds: float = 0.0, *, oauth_error: str = ""
    ) -> None:
        super().__init__(message, oauth_error=oauth_error)
        self.retry_after_seconds = retry_after_seconds  # 0: the endpoint named no time


class TokenStoreUnavailable(TokenError):
    """The place where grants are kept cannot be read or written."""

    is_transient = True


class SignInRefused(ProxyError):
    """A sign-in came to nothing; the text tells the person who tried why, and what to do."""


class UpstreamError(ProxyError):
    """The provider's SMTP server did not take the message."""

    is_transient = True


class UpstreamUnavailable(UpstreamError):
    """No usable connection: refused, timed out, closed."""


class UpstreamNotFound(UpstreamUnavailable):
    """The upstream's host name does not resolve."""


class UpstreamInsecure(UpstreamUnavailable):
    """STARTTLS is missing, the handshake failed or the certificate is not the host's."""


class UpstreamClosedEarly(UpstreamUnavailable):
    """A connection that worked before was lost, or answered MAIL with 421, before any content left.

    Nothing can have been delivered, so the transaction may be tried again at once.
    """

    def __init__(self, message: str = "", reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply  # the 421, if the provider said so much


class UpstreamRejected(UpstreamError):
    """The provider said no; its `reply` goes to the client."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply

    @property
    def is_transient(self) -> bool:  # type: ignore[override]
        """Whether the provider's reply is a 4yz."""
        return self.reply.is_transient


class ExtensionMissing(UpstreamError):
    """The provider lacks what the message needs; nothing was sent. `reply` is for the client."""

    is_transient = False

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class UpstreamAuthRejected(UpstreamRejected):
    """The provider refused the access token at AUTH."""


class UpstreamDropped(UpstreamError):
    """The connection was lost after content left, but before the octets that end the message."""


class OutcomeUnknown(UpstreamError):
    """The connection was lost after the last octet and before the reply: perhaps delivered."""


class Overloaded(ProxyError):
    """A limit of ours was reached: too many waiters, or no connection free in time."""

    is_transient = True
