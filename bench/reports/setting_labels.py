"""The labels of a run's settings on a page, named after the options that set them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABELS = {
    "scenario": "--scenario",
    "model": "Load model",
    "num_emails": "--num-emails",
    "duration_seconds": "--duration (seconds)",
    "warmup_seconds": "--warmup (seconds)",
    "concurrent": "--concurrent",
    "arrival_rate_per_second": "--arrival-rate (a second)",
    "ramp_from_per_second": "--ramp-from (a second)",
    "ramp_seconds": "--ramp-seconds",
    "max_lateness_seconds": "--max-lateness (seconds)",
    "processes": "--processes",
    "connection": "--connection",
    "is_pipelined": "--pipelined",
    "sizes": "--sizes",
    "recipients_per_message": "--recipients",
    "idle_clients": "--idle-clients",
    "slow_bytes_per_second": "--slow (bytes a second)",
    "from_emails": "--from",
    "mailboxes": "Mailboxes in all",
    "to_email": "--to",
    "mechanism": "--mechanism",
    "tls": "--tls",
    "python": "Python",
    "platform": "Platform",
    "cpu_count": "CPU cores",
    "bench_version": "xoauth2-bench",
    "loop": "Event loop",
    "load_average": "Load average before the run",
    "clients": "Clients",
    "refused": "Could not log in",
    "lost": "Disconnected during the run",
}
_REPEATED = frozenset({"messages_per_connection", "size_bytes", "from_email"})  # in other rows


def labelled(values: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return the settings with their labels, without those shown in other rows."""
    return [
        (_LABELS.get(name, name.replace("_", " ").capitalize()), value)
        for name, value in values.items()
        if name not in _REPEATED
    ]
