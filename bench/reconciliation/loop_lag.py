"""The lag of the proxy's event loop, from its histogram at /metrics."""

from __future__ import annotations

import re
from collections import Counter
from typing import TypeAlias

from bench.targets.http_client import FetchFailed, fetch

LoopLag: TypeAlias = Counter[float]  # samples by the upper bound of their bucket in seconds
_BUCKET = re.compile(
    r'^\w*event_loop_lag_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE
)


async def read(metrics_url: str) -> LoopLag:
    """Return the samples so far by bucket; empty if there is no such histogram."""
    if not metrics_url:
        return Counter()
    try:
        return parse((await fetch(metrics_url)).decode("utf-8", "replace"))
    except FetchFailed:
        return Counter()


def parse(text: str) -> LoopLag:
    """Return the samples by bucket from the text of /metrics, which has cumulative buckets."""
    # Several processes may each have a series; their buckets have the same limits.
    lag: LoopLag = Counter()
    for bound, count in _BUCKET.findall(text):
        lag[float(bound)] += int(float(count))
    below = 0
    for bound in sorted(lag):
        lag[bound], below = lag[bound] - below, lag[bound]
    return lag


def p99_ms(lag: LoopLag) -> float | None:
    """Return an upper limit of the 99th percentile, in milliseconds; None without samples.

    It is a bucket's upper limit, so the value may be lower; beyond the last bucket it is higher.
    """
    total, seen = lag.total(), 0
    finite = [bound for bound in sorted(lag) if bound != float("inf")]
    for bound in finite:
        seen += lag[bound]
        if total and seen >= 0.99 * total:
            return bound * 1000
    return finite[-1] * 1000 if total and finite else None
