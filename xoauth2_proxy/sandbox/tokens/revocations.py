"""Revoked tokens: single ones, each until it expires, or all that were issued until a moment."""

from __future__ import annotations

import heapq

MAX_REVOKED = 100_000  # that have not expired; some 25 MB


class TooManyRevoked(ValueError):
    """No further token can be revoked: all that were revoked have to be remembered."""

    def __init__(self) -> None:
        super().__init__(
            f"{MAX_REVOKED} tokens are revoked that have not expired; "
            "wait for the first to expire, or revoke all that were minted until now"
        )


class Revocations:
    """Remembers every revoked token that could still be good. Times: seconds since the epoch."""

    __slots__ = ("_ends", "_ids", "_valid_from")

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._ends: list[tuple[float, str]] = []  # a heap: the next to expire is first
        self._valid_from = 0.0  # older tokens are revoked

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, token_id: str, expires_at: float, now: float) -> None:
        """Remember a token until it expires.

        Raises:
            TooManyRevoked: there are 100,000 that have not expired.
        """
        while self._ends and self._ends[0][0] <= now:
            self._ids.discard(heapq.heappop(self._ends)[1])
        if token_id in self._ids:
            return
        if len(self._ids) >= MAX_REVOKED:
            raise TooManyRevoked
        self._ids.add(token_id)
        heapq.heappush(self._ends, (expires_at, token_id))

    def add_all(self, now: float) -> None:
        """Revoke every token that was issued until now."""
        self._valid_from = now
        self._ids.clear()
        self._ends.clear()

    def has(self, token_id: str, issued_at: float) -> bool:
        """Return whether a token with these claims was revoked."""
        return issued_at <= self._valid_from or token_id in self._ids
