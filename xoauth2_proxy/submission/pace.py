"""Tells clients that keep on sending from those that stall or drip. Pure arithmetic.

A client has a credit of time. Time spends it, and each octet earns some back, up to the whole: who
sends at `LEAST_BYTES_PER_SECOND` or more keeps it, and who stops has spent it after
`CREDIT_SECONDS`. So a burst is no licence to stall for long afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

LEAST_BYTES_PER_SECOND = 4096
# Less than messages wait for a connection by default (30 s), so that those that wait for one that
# is held in vain still get it.
CREDIT_SECONDS = 20.0
# A client that was slower than this so far would hold a connection of its mailbox for long.
STREAMING_BYTES_PER_SECOND = 16_384
_FULL_SOCKET_BYTES = 32_768  # what the kernel takes at least
SLOW_SECONDS = 600.0  # in which a client that was cut off tries again
TRUSTED_SECONDS = 86_400.0  # in which a device sends once again
_MAX_REMEMBERED = 4096


def due_at_first(now: float) -> float:
    """Return when the credit of a client that begins now will be spent."""
    return now + CREDIT_SECONDS


def due_after(due: float, octets: int, now: float) -> float:
    """Return when the credit will be spent, now that these octets have arrived."""
    return min(now + CREDIT_SECONDS, due + octets / LEAST_BYTES_PER_SECOND)


def due_with_waiting(due: float, octets: int, now: float) -> float:
    """Return when the credit will be spent of a client that is not read, and has sent so much.

    A client that has filled its socket's buffer cannot send more.
    """
    return due_at_first(now) if octets >= _FULL_SOCKET_BYTES else due_after(due, octets, now)


def spent_seconds(due: float, now: float) -> float:
    """Return how much of its credit a client has spent; more than the whole: it is too slow."""
    return CREDIT_SECONDS - (due - now)


def is_fast_enough(octets: int, seconds: float) -> bool:
    """Whether a client that sent so much in this time may stream to its provider."""
    return octets >= seconds * STREAMING_BYTES_PER_SECOND


class RecentClients:
    """Remembers clients for a while, in bounded memory."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def note(self, client: Hashable, now: float) -> None:
        """Remember a client."""
        self._until[client] = now + self._seconds
        self._until.move_to_end(client)
        if len(self._until) > _MAX_REMEMBERED:
            self._until.popitem(last=False)

    def has(self, client: Hashable, now: float) -> bool:
        """Whether the client is remembered."""
        return bool(self._until) and self._until.get(client, now) > now
