"""The form in which each of our servers reports its health: proxy, sandbox and benchmark."""

from __future__ import annotations

import time

from xoauth2_proxy import __version__


def health_document(service: str, status: str, started_at: float) -> dict[str, object]:
    """Return what `GET /health` begins with; `started_at` is by the monotonic clock."""
    return {
        "status": status,
        "service": service,
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - started_at, 3),
    }
