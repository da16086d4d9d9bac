"""Access tokens, grants and token responses. RFC 6749 §1.3–1.5.

Two clocks have two types: tokens in use are timed by a clock that never jumps, stored grants by
dates.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.oauth_client import OAuthClient

Monotonic = NewType("Monotonic", float)  # seconds of `time.monotonic`; not a date
EpochSeconds = NewType("EpochSeconds", float)  # seconds of `time.time`; 0 for never

USUAL_LIFETIME_SECONDS = 3600.0  # for responses without `expires_in`, which RFC 6749 §5.1 allows
_LAST_SECONDS = 60.0  # Microsoft may delay a login for this long


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token for one mailbox, and when to replace it."""

    value: str = field(repr=False)
    refresh_at: Monotonic  # from then on a new one is fetched, and this one is still used
    stale_at: Monotonic  # from then on it is used only if there is no new one
    expires_at: Monotonic
    scope: str = ""  # as the endpoint said; "": it did not

    @classmethod
    def with_lifetime(
        cls,
        value: str,
        now: Monotonic,
        lifetime_seconds: float,
        window_seconds: float = 600.0,
        scope: str = "",
    ) -> AccessToken:
        """Return a token that ends `lifetime_seconds` from `now`.

        It is refreshed `window_seconds` before its end, or when a quarter of its life is left.
        """
        window_seconds = max(0.0, min(window_seconds, lifetime_seconds / 4))
        return cls.with_expiry(value, Monotonic(now + lifetime_seconds), window_seconds, scope)

    @classmethod
    def with_expiry(
        cls, value: str, expires_at: Monotonic, window_seconds: float, scope: str = ""
    ) -> AccessToken:
        """Return a token that ends at `expires_at` and is refreshed `window_seconds` before."""
        last_seconds = min(_LAST_SECONDS, window_seconds / 2)
        return cls(
            value,
            refresh_at=Monotonic(expires_at - window_seconds),
            stale_at=Monotonic(expires_at - last_seconds),
            expires_at=expires_at,
            scope=scope,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a refresher presents for a mailbox's access token."""

    mailbox: str  # the address that tokens are for
    client: OAuthClient
    refresh_token: str = field(default="", repr=False)  # the newest; "": none


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """A token endpoint's response. RFC 6749 §5.1."""

    access_token: str = field(repr=False)
    lifetime_seconds: float = USUAL_LIFETIME_SECONDS
    refresh_token: str = field(default="", repr=False)  # a new one; "": the old one stays valid
    refresh_token_lifetime_seconds: float = 0.0  # 0: not stated
    id_token: str = field(default="", repr=False)  # OpenID Connect, when a person signed in
    scope: str = ""


Issued = TokenResponse  # the name in plug-ins written before this one


def unverified_claims(access_token: str) -> dict[str, Any] | None:
    """Return a JWT's claims (RFC 7519) without checking its signature; None: it is not a JWT."""
    parts = access_token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None
