"""The limit of open files, raised as far as the system lets a process raise its own."""

from __future__ import annotations

from contextlib import suppress


def raise_open_file_limit() -> int:
    """Allow as many open files as may be; return how many that are, 0 when it cannot be said."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 31 if soft == resource.RLIM_INFINITY else soft
