"""What OAuth hands out: access tokens, with the clock they are measured by. RFC 6749 §1.4."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

Monotonic = NewType("Monotonic", float)  # seconds of `time.monotonic`; not a date


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A key to one mailbox for a short time."""

    value: str = field(repr=False)
    expires_at: Monotonic
    refresh_at: Monotonic  # from here on a new one is fetched before this one is used again

    @classmethod
    def issued(cls, value: str, now: Monotonic, lifetime_seconds: float) -> AccessToken:
        """Return a token issued at `now`, to be renewed 5 minutes before its end.

        Short-lived tokens are renewed when a tenth of their life is left.
        """
        margin_seconds = min(300.0, lifetime_seconds / 10)
        expires_at = Monotonic(now + lifetime_seconds)
        return cls(value, expires_at, Monotonic(expires_at - margin_seconds))
