"""Reproducible random numbers: functions of a seed, a name and the number of the arrival.

No state is kept. Two runs with the same seed meet the same faults
at the same arrivals, whatever else happens between them.
"""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

_LARGEST = float(1 << 64)
_Z99 = NormalDist().inv_cdf(0.99)
MAX_DELAY_SECONDS = 600.0  # RFC 5321 §4.5.3.2.6: no client waits longer for the final reply


def share(seed: int, name: str, number: int) -> float:
    """Return the `number`-th value of the sequence `name`: uniform, 0 < value < 1."""
    octets = hashlib.blake2b(f"{seed}/{name}/{number}".encode(), digest_size=8).digest()
    return (int.from_bytes(octets) + 0.5) / _LARGEST if octets != b"\xff" * 8 else 1 - 2**-53


class Delays:
    """A sequence of delays: constant, or log-normal with this median and 99th percentile."""

    __slots__ = ("_median", "_number", "_seed", "_sigma")

    def __init__(self, seed: int, p50_seconds: float, p99_seconds: float = 0.0) -> None:
        self._seed = seed
        self._number = 0
        self._median = p50_seconds
        self._sigma = math.log(p99_seconds / p50_seconds) / _Z99 if p99_seconds else 0.0

    def next(self) -> float:
        """Return the next delay, in seconds."""
        if not self._sigma:
            return self._median
        self._number += 1
        z = NormalDist().inv_cdf(share(self._seed, "accept", self._number))
        return min(self._median * math.exp(self._sigma * z), MAX_DELAY_SECONDS)
