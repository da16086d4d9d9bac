"""Bounds the number of worker processes and counts the usable processors."""

from __future__ import annotations

import os

MAX_WORKERS = 64  # each is a complete relay of about 60 MB


def number_of_processors() -> int:
    """Return the number of processors that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return min(len(usable(0)) if usable is not None else os.cpu_count() or 1, MAX_WORKERS)
