"""When the next message of a mailbox may go: a smoothed rate with a small burst. Pure arithmetic.

The generic cell rate algorithm: one number, the time at which the allowance is whole again, says
everything. Providers count messages a minute and delay or refuse what is more.
"""

from __future__ import annotations

from dataclasses import dataclass

_BURST_SECONDS = 10.0  # how much of the rate may go at once after a pause: 5 of 30 a minute


@dataclass(slots=True)
class RateLimit:
    """The allowance of one mailbox."""

    whole_at: float = 0.0  # monotonic seconds at which a full burst is allowed again

    def reserve(self, now: float, per_minute: float, patience_seconds: float) -> float | None:
        """Take the next turn and return in how many seconds it is; 0 is now.

        None, and nothing is taken, when it is further off than `patience_seconds`. A rate of 0
        means no limit.
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
