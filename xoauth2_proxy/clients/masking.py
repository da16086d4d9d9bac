"""Hides what a client typed as its login: people sometimes type a password there."""

from __future__ import annotations


def masked(login: str) -> str:
    """Return a text that tells how long `login` is, and nothing else of it."""
    count = len(login)
    return f"{'•' * min(count, 8)} ({count} character{'' if count == 1 else 's'})"
