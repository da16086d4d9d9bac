"""From errors to HTTP: one table for programs and pages."""

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
from xoauth2_proxy.mailboxes import (
    AlreadyThere,
    NotPossible,
    TooSoon,
    UnknownMailbox,
    WrittenInFile,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Refusal:
    """What somebody who asked is told."""

    status: int
    text: str
    problems: Sequence[tuple[str, str]] = ()  # JSON path, what is wrong there
    retry_after_seconds: int = 0  # 0: nobody can tell

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that tell it too."""
        seconds = self.retry_after_seconds
        return {"Retry-After": str(seconds)} if seconds else {}

    def to_json(self) -> dict[str, object]:
        """Return the body for a program."""
        named = [{"path": path, "problem": problem} for path, problem in self.problems]
        return {"success": False, "error": self.text, "problems": named}


_TOLD = 3  # problems in the text itself; all of them are beside it

_STATUSES: dict[type[ProxyError], int] = {
    UnknownMailbox: 404,
    AlreadyThere: 409,
    WrittenInFile: 409,
    NotPossible: 409,
    SignInRefused: 400,
    TokenStoreUnavailable: 503,
}


def refusal(error: ProxyError | OSError) -> Refusal:
    """Return what is told of an error; a token's permanent one is the mailbox's state, so 409."""
    if isinstance(error, ConfigError):
        return Refusal(400, _first(error.problems), tuple(error.problems))
    if isinstance(error, OSError):
        why = error.strerror or type(error).__name__
        return Refusal(500, f"a file cannot be read or written: {why}")
    if isinstance(error, TooSoon):
        return Refusal(429, str(error), retry_after_seconds=int(error.wait_seconds) + 1)
    status = _STATUSES.get(type(error))
    if status is None:
        is_far = error.is_transient or isinstance(error, UpstreamError)
        status = 502 if is_far else 409 if isinstance(error, TokenError) else 500
    return Refusal(status, str(error) or type(error).__name__)


def _first(problems: Sequence[tuple[str, str]]) -> str:
    told = [f"{path}: {problem}" if path else problem for path, problem in problems[:_TOLD]]
    more = len(problems) - _TOLD
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")
