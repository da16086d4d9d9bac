"""The run's load on the provider: the sandbox's counters and the proxy's token requests.

Both are read before and after the run, and subtracted, since they may include earlier runs. Peaks
cannot be subtracted, so the sandbox is asked to reset them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measurement.result import ProviderFigures
from bench.targets.http_client import FetchFailed, fetch, fetch_object

if TYPE_CHECKING:
    from collections.abc import Iterable

_REFRESHES = re.compile(
    r"^xoauth2_proxy_token_refreshes_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE | re.ASCII
)
_COUNTED = (
    "connections_opened",
    "auth_accepted",
    "auth_refused",
    "transactions_accepted",
    "transactions_refused",
    "turns",
)


@dataclass(frozen=True, slots=True)
class ProviderCounters:
    """The counters at one moment."""

    stats: dict[str, object]
    token_requests: int | None  # None: unknown


async def begin_peaks(sandbox_url: str) -> None:
    """Reset the peaks for this run; a sandbox that cannot do so keeps its own."""
    with suppress(FetchFailed):
        await fetch(f"{sandbox_url}/stats/peaks", method="DELETE")


async def read(sandbox_url: str, admin_url: str = "") -> ProviderCounters | None:
    """Return the current counters; None without a sandbox or a usable answer."""
    if not sandbox_url:
        return None
    try:
        return ProviderCounters(
            await fetch_object(f"{sandbox_url}/stats"), await _token_requests(admin_url)
        )
    except FetchFailed:
        return None


def difference(
    before: ProviderCounters | None, after: ProviderCounters | None, mailboxes: Iterable[str]
) -> ProviderFigures | None:
    """Return the difference; None if either is missing or invalid."""
    if before is None or after is None:
        return None
    counts = {key: _difference(before.stats.get(key), after.stats.get(key)) for key in _COUNTED}
    peaks = after.stats.get("peak_by_mailbox")
    if None in counts.values() or not isinstance(peaks, dict):
        return None
    found = [peaks.get(mailbox.lower(), 0) for mailbox in mailboxes]
    return ProviderFigures(
        peak_connections_per_mailbox=max((n for n in found if isinstance(n, int)), default=0),
        token_requests=_difference(before.token_requests, after.token_requests),
        **{key: count for key, count in counts.items() if count is not None},
    )


async def _token_requests(admin_url: str) -> int | None:
    if not admin_url:
        return None
    try:
        text = (await fetch(f"{admin_url}/metrics")).decode("utf-8", "replace")
        return sum(int(float(count)) for count in _REFRESHES.findall(text))
    except (FetchFailed, ValueError, OverflowError):
        return None


def _difference(before: object, after: object) -> int | None:
    if not isinstance(before, int) or not isinstance(after, int):
        return None
    return max(0, after - before)  # less, if the server was restarted meanwhile
