"""How many worker processes there may be. The command line asks, so nothing else is imported."""

from __future__ import annotations

import os

MAX_WORKERS = 64  # each is a whole relay, of some 60 MB


def number_of_processors() -> int:
    """Return how many processors this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return min(len(usable(0)) if usable is not None else os.cpu_count() or 1, MAX_WORKERS)
