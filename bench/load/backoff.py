"""The pause after a connection could not be opened, before its next message. Pure arithmetic.

Without it, a closed load would fail thousands of messages a second at a server that refuses, and
would end before the server could recover.
"""

from __future__ import annotations

_FIRST_SECONDS = 0.02
_MOST_SECONDS = 0.2
# The total of consecutive waits in a run by count, enough for a restart. After that the server is
# gone, and each remaining message would cost another wait before it failed.
_IN_ALL_SECONDS = 10.0


class BackOff:
    """The pauses of one connection, doubled each time until it can be opened."""

    def __init__(self, *, is_endless: bool) -> None:
        self._is_endless = is_endless  # the run is limited by time instead
        self._next_seconds = _FIRST_SECONDS
        self._waited_seconds = 0.0

    def pause_seconds(self) -> float:
        """Return the wait after another failure; 0 once waiting has not helped."""
        if not self._is_endless and self._waited_seconds >= _IN_ALL_SECONDS:
            return 0.0
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, _MOST_SECONDS)
        self._waited_seconds += seconds
        return seconds

    def reset(self) -> None:
        """Note that the connection is open."""
        self._next_seconds = _FIRST_SECONDS
        self._waited_seconds = 0.0
