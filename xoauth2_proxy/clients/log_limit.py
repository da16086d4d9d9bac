"""Limits how many log lines clients of one address, and all together, may cause.

Guessing must not fill the disk: 10,000 wrong passwords are a few lines and a count.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD_SECONDS = 60.0
LINES_OF_ONE = 10  # a period, for an address or an IPv6 network of one subscriber
LINES_OF_ALL = 600  # a period
_MAX_ADDRESSES = 1000
_SUBSCRIBER_PREFIX = 64  # bits; one subscriber has a whole IPv6 network (RFC 6177)


class LogLimit:
    """Counts the lines of the present period, by address, and those that were left out."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()  # lines asked for in this period
        self._all = 0  # lines allowed in this period
        self._of_others = 0  # left out, of addresses that are not kept

    def allows(self, address: str) -> bool:
        """Whether one more line about this address may be written; counts it."""
        key = network_of(address)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > _MAX_ADDRESSES:
            _, dropped = self._counts.popitem(last=False)
            self._of_others += max(0, dropped - LINES_OF_ONE)
        if count > LINES_OF_ONE:
            return False
        if self._all >= LINES_OF_ALL:
            self._of_others += 1
            return False
        self._all += 1
        return True

    def end_period(self) -> Iterator[tuple[str, int]]:
        """Begin the next period; yield the addresses and the lines left out, "" for all others."""
        counts, others = self._counts, self._of_others
        self._counts, self._all, self._of_others = OrderedDict(), 0, 0
        for address, count in counts.items():
            if count > LINES_OF_ONE:
                yield address, count - LINES_OF_ONE
        if others:
            yield "", others


def network_of(address: str) -> str:
    """Return what one subscriber has: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, _SUBSCRIBER_PREFIX), strict=False))
