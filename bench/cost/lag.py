"""How late the proxy's event loop is, from the histogram it shows at /metrics."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from bench.cost.figures import Lag

_BUCKET = re.compile(
    r'^\w*event_loop_lag_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE
)
_REQUEST_SECONDS = 10.0


async def read(metrics_url: str) -> Lag:
    """Return the samples so far by bucket, empty when there is no such histogram."""
    if not metrics_url:
        return {}
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    with suppress(aiohttp.ClientError, OSError):
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(metrics_url) as response,
        ):
            return parse(await response.text())
    return {}


def parse(text: str) -> Lag:
    """Return the samples by bucket from the text of /metrics, whose buckets are cumulative."""
    # Several processes may each have their own series; their buckets have the same bounds.
    cumulative: Lag = {}
    for bound, count in _BUCKET.findall(text):
        cumulative[float(bound)] = cumulative.get(float(bound), 0) + int(float(count))
    lag, below = {}, 0
    for bound in sorted(cumulative):
        lag[bound], below = cumulative[bound] - below, cumulative[bound]
    return lag


def difference(after: Lag, before: Lag) -> Lag:
    """Return the samples taken in between."""
    return {bound: count - before.get(bound, 0) for bound, count in after.items()}


def add(total: Lag, more: Lag) -> None:
    """Add samples to a total."""
    for bound, count in more.items():
        total[bound] = total.get(bound, 0) + count
