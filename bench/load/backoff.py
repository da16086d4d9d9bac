"""How long a connection that could not be opened waits before it takes up the next message. Pure.

A closed load would fail thousands of messages a second at a server that refuses, all of them before
it could come back.
"""

from __future__ import annotations

_FIRST_SECONDS = 0.02
_MOST_SECONDS = 0.2
# In a run by count, in a row: what a restart may take. Beyond it a server is gone, and each message
# that is left costs another wait until it is counted as failed.
_IN_ALL_SECONDS = 10.0


class BackOff:
    """The pauses of one connection: each twice the one before, until it can be opened."""

    def __init__(self, *, is_endless: bool) -> None:
        self._is_endless = is_endless  # something else bounds the run, its time
        self._next_seconds = _FIRST_SECONDS
        self._waited_seconds = 0.0

    def pause_seconds(self) -> float:
        """Return how long to wait after one more failure; 0 when waiting has not helped."""
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
