"""Divides the file descriptors that a process may open between its clients and everything else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESERVE = 64  # for the admin server, the sandbox, the store, files and programs
LAST = 8  # so few descriptors are left when clients are turned away whatever their number
_UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True)
class Division:
    """How many clients each listener may have in this process."""

    places: tuple[int, ...]
    limit: int  # of open files
    needed: int  # of open files, for all the clients that the configuration allows

    def warning(self) -> str:
        """Return what to tell the operator; "" if there is room for all clients."""
        if self.needed <= self.limit:
            return ""
        return (
            f"max_connections needs up to {self.needed} open files, and this process may open "
            f"{self.limit}: it takes {sum(self.places)} clients at one time; raise the limit "
            f"(ulimit -n {self.needed}, or LimitNOFILE={self.needed} of a systemd unit), or lower "
            "max_connections"
        )


def divide(wanted: Sequence[int], upstream: int, limit: int, open_now: int) -> Division:
    """Divide `limit` descriptors, of which `open_now` are in use.

    `wanted` are the listeners' limits, `upstream` is how many connections all mailboxes may have.
    """
    clients = sum(wanted)
    upstream = min(upstream, clients)  # each client needs one at most
    needed = open_now + _RESERVE + clients + upstream
    if needed <= limit:
        return Division(tuple(wanted), limit, needed)
    # With few descriptors, half of them are for clients: each may need one upstream.
    left = max(0, limit - open_now)
    available = max(left - _RESERVE - upstream, left // 2)
    places = (max(1, min(one, available * one // clients)) for one in wanted)
    return Division(tuple(places), limit, needed)


def open_file_limit() -> int:
    """Return how many descriptors this process may open."""
    try:
        import resource
    except ImportError:  # not a Unix
        return _UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


def open_files() -> int:
    """Return how many descriptors are in use; a guess where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return _RESERVE
