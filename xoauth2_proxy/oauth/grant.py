"""What OAuth hands out and what it is asked with. RFC 6749 §1.3–1.5.

Two clocks, two types: tokens in use are measured by a clock that never jumps, what is kept beyond
the process by dates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.oauth_client import OAuthClient

Monotonic = NewType("Monotonic", float)  # seconds of `time.monotonic`; not a date
EpochSeconds = NewType("EpochSeconds", float)  # seconds of `time.time`; 0 for never

_LIFETIME_SECONDS = 3600.0  # RFC 6749 §5.1 lets an endpoint leave it out; this is the usual one
_LAST_SECONDS = 60.0  # too short for a login upstream that Microsoft may hold back


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A key to one mailbox for a short time."""

    value: str = field(repr=False)
    refresh_at: Monotonic  # from here on a new one is fetched while this one is still given out
    stale_at: Monotonic  # from here on it is given out only if no new one can be had
    expires_at: Monotonic

    @classmethod
    def issued(
        cls, value: str, now: Monotonic, lifetime_seconds: float, window_seconds: float = 600.0
    ) -> AccessToken:
        """Return a token that ends `lifetime_seconds` from `now`.

        It is renewed `window_seconds` before its end; a short-lived one when a quarter of its life
        is left.
        """
        window_seconds = max(0.0, min(window_seconds, lifetime_seconds / 4))
        return cls.ending(value, Monotonic(now + lifetime_seconds), window_seconds)

    @classmethod
    def ending(cls, value: str, expires_at: Monotonic, window_seconds: float) -> AccessToken:
        """Return a token that ends at `expires_at` and is renewed `window_seconds` before."""
        last_seconds = min(_LAST_SECONDS, window_seconds / 2)
        return cls(
            value,
            refresh_at=Monotonic(expires_at - window_seconds),
            stale_at=Monotonic(expires_at - last_seconds),
            expires_at=expires_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right to a mailbox, as a refresher presents it."""

    mailbox: str  # the address that tokens are for
    client: OAuthClient
    refresh_token: str = field(default="", repr=False)  # the newest; "": there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a token endpoint answered. RFC 6749 §5.1."""

    access_token: str = field(repr=False)
    lifetime_seconds: float = _LIFETIME_SECONDS
    refresh_token: str = field(default="", repr=False)  # a new one; "": the old one stays
    refresh_token_lifetime_seconds: float = 0.0  # 0: the endpoint said nothing
    id_token: str = field(default="", repr=False)  # OpenID Connect, when a person signed in
    scope: str = ""
