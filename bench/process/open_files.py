"""Raises the process's limit of open files as far as the system allows."""

from __future__ import annotations

from contextlib import suppress


def raise_open_file_limit() -> int:
    """Raise the limit to the maximum; return the new limit, 0 if unknown."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 31 if soft == resource.RLIM_INFINITY else soft
