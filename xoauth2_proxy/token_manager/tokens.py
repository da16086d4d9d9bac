"""The access token that a program gets, which no text shows by accident."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.token_info import TOKEN_TYPE

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import AccessToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token. `str` and `repr` leave its value out."""

    name: str  # the mailbox, or the name given to `add_provider`
    access_token: str = field(repr=False)
    token_type: str = TOKEN_TYPE
    scope: str = ""  # as the endpoint said; "": it did not, which means the one asked for
    expires_at: datetime  # UTC

    @property
    def authorization(self) -> str:
        """The value of an HTTP `Authorization` header. RFC 6750 §2.1."""
        return f"{self.token_type} {self.access_token}"

    @property
    def remaining_seconds(self) -> float:
        """The seconds until it expires, by this machine's clock; 0 if it has."""
        return max(0.0, (self.expires_at - datetime.now(UTC)).total_seconds())

    def is_expired(self, buffer_seconds: float = 0.0) -> bool:
        """Whether it has expired, or will within `buffer_seconds`."""
        return self.remaining_seconds <= buffer_seconds


def token_of(name: str, token: AccessToken) -> Token:
    """Return the token as programs get it."""
    left_seconds = token.expires_at - time.monotonic()
    expires_at = datetime.fromtimestamp(time.time() + left_seconds, UTC)
    return Token(name=name, access_token=token.value, scope=token.scope, expires_at=expires_at)
