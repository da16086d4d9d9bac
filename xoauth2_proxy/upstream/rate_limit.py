"""Calculates when the next message may be sent: a steady rate with a small burst.

This is the generic cell rate algorithm: its only state is the time at which the full burst is
available again. Providers count messages per minute, and delay or refuse more. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

_BURST_SECONDS = 10.0  # this much of the rate may go at once after a pause: 5 of 30 per minute


@dataclass(slots=True)
class RateLimit:
    """The rate limit of one sender: here, of a mailbox."""

    whole_at: float = 0.0  # monotonic seconds at which a full burst is allowed again

    def reserve(self, now: float, per_minute: float, patience_seconds: float) -> float | None:
        """Reserve the next turn and return the seconds until it; 0 is now.

        None, and nothing reserved, if that exceeds `patience_seconds`. A rate of 0 means no
        limit.
        """
        if not per_minute:
            return 0.0
        interval = 60.0 / per_minute
        whole_at = max(self.whole_at, now)
        delay = max(0.0, whole_at + interval - max(interval, _BURST_SECONDS) - now)
        if delay > patience_seconds:
            return None
        self.whole_at = whole_at + interval
        return delay
