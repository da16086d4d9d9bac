"""Maps errors to HTTP: one table for JSON and pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import (
    ConfigError,
    ProxyError,
    SignInRefused,
    TokenError,
    TokenStoreUnavailable,
    UpstreamError,
)
from xoauth2_proxy.mailboxes.interface import (
    CredentialExists,
    DefinedInFile,
    MailboxExists,
    NeedsAdminToken,
    NotEnabled,
    NotSupported,
    RefreshTooSoon,
    UnknownCredential,
    UnknownMailbox,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class HttpError:
    """The response to a failed request."""

    status: int
    text: str
    problems: Sequence[tuple[str, str]] = ()  # JSON path, what is wrong there
    retry_after_seconds: int = 0  # 0: unknown

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of the response."""
        seconds = self.retry_after_seconds
        return {"Retry-After": str(seconds)} if seconds else {}

    def to_json(self) -> dict[str, object]:
        """Return the JSON body of the response."""
        named = [{"path": path, "problem": problem} for path, problem in self.problems]
        return {"success": False, "error": self.text, "problems": named}


_MAX_PROBLEMS_IN_TEXT = 3  # `problems` has all of them

_STATUSES: dict[type[ProxyError], int] = {
    UnknownMailbox: 404,
    UnknownCredential: 404,
    MailboxExists: 409,
    CredentialExists: 409,
    NeedsAdminToken: 403,
    DefinedInFile: 409,
    NotEnabled: 403,
    NotSupported: 409,
    SignInRefused: 400,
    TokenStoreUnavailable: 503,
}


def http_error(error: ProxyError | OSError) -> HttpError:
    """Return the response to an error. A permanent token error is a state of the mailbox: 409."""
    if isinstance(error, ConfigError):
        return HttpError(400, _first(error.problems), tuple(error.problems))
    if isinstance(error, OSError):
        why = error.strerror or type(error).__name__
        return HttpError(500, f"a file cannot be read or written: {why}")
    if isinstance(error, RefreshTooSoon):
        return HttpError(429, str(error), retry_after_seconds=int(error.wait_seconds) + 1)
    status = _STATUSES.get(type(error))
    if status is None:
        is_far = error.is_transient or isinstance(error, UpstreamError)
        status = 502 if is_far else 409 if isinstance(error, TokenError) else 500
    return HttpError(status, str(error) or type(error).__name__)


def _first(problems: Sequence[tuple[str, str]]) -> str:
    told = [
        f"{path}: {problem}" if path else problem
        for path, problem in problems[:_MAX_PROBLEMS_IN_TEXT]
    ]
    more = len(problems) - _MAX_PROBLEMS_IN_TEXT
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")
