"""Documents of runs: from the real tool, and self-consistent ones for what only reads them."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What became of a message: when it ended, and its latency in seconds or why it failed.
Outcome = tuple[float, float | str]


def distribution(values: Iterable[float]) -> dict[str, Any]:
    """Return the block of a distribution over these values."""
    ordered = sorted(values)
    names = ("min", "max", "avg", "p50", "p90", "p95", "p99", "p999")
    if not ordered:
        return {"count": 0, "rough": []} | {f"{name}_seconds": None for name in names}
    ranked = {
        f"{name}_seconds": ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]
        for name, share in zip(names[3:], (0.5, 0.9, 0.95, 0.99, 0.999), strict=True)
    }
    return {
        "count": len(ordered),
        "min_seconds": ordered[0],
        "max_seconds": ordered[-1],
        "avg_seconds": sum(ordered) / len(ordered),
        **ranked,
        "rough": [
            f"{name}_seconds"
            for name, beyond in (("p50", 500), ("p90", 100), ("p95", 50), ("p99", 10), ("p999", 1))
            if len(ordered) * beyond < 10_000
        ],
    }


def steady(count: int, latency_seconds: float, *, per_second: float = 100.0) -> list[Outcome]:
    """Return successes at an even pace, of latencies around one."""
    chance = random.Random(count)
    return [
        ((number + 1) / per_second, round(latency_seconds * chance.lognormvariate(0, 0.4), 6))
        for number in range(count)
    ]


def run_document(
    outcomes: Sequence[Outcome] = (),
    *,
    dropped_at: Sequence[float] = (),
    bin_seconds: float = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    """Return a document whose figures all follow from the outcomes; `changes` replace parts.

    A change is named by its path, with two underscores for a dot: `results__dropped=3`.
    """
    seconds = max([end for end, _ in outcomes] + list(dropped_at), default=0.0)
    latencies = [found for _, found in outcomes if not isinstance(found, str)]
    failures = Counter(found for _, found in outcomes if isinstance(found, str))
    failed = sum(failures.values())
    document: dict[str, Any] = {
        "schema_version": 2,
        "kind": "run",
        "timestamp": "2025-11-20T05:45:00+00:00",
        "target": "127.0.0.1:2525",
        "config": _config(len(outcomes) + len(dropped_at), is_open=bool(dropped_at)),
        "partial": False,
        "interrupted_by": None,
        "results": {
            "planned": len(outcomes) + len(dropped_at),
            "total_requests": len(outcomes),
            "successful": len(latencies),
            "failed": failed,
            "not_attempted": 0,
            "dropped": len(dropped_at),
            "late_starts": 0,
            "success_rate": len(latencies) / len(outcomes) if outcomes else None,
            "total_time_seconds": seconds,
            "throughput_rps": len(latencies) / seconds if seconds else None,
            "throughput_rpm": len(latencies) / seconds * 60 if seconds else None,
            "is_short": seconds < 2 or len(latencies) < 200,
            "latency": distribution(latencies),
            "service_time": distribution(latencies),
            "lateness": distribution([0.0] * len(outcomes) if dropped_at else []),
            "phases": {
                "connect": distribution([0.004, 0.006] if outcomes else []),
                "auth": distribution([0.002, 0.003] if outcomes else []),
                "transaction": distribution(latencies),
            },
            "histogram": [
                {"up_to_seconds": seconds, "count": count}
                for seconds, count in sorted(Counter(latencies).items())
            ],
            "timeline": {
                "bin_seconds": bin_seconds,
                "bins": _bins(outcomes, dropped_at, bin_seconds, seconds),
            },
        },
        "warmup": {"seconds": 0.0, "requests": 0, "failed": 0, "dropped": 0},
        "errors": [
            {"step": None, "code": code, "text": "because", "count": count}
            for code, count in failures.most_common()
        ],
        "reconciliation": {
            "acknowledged": len(latencies),
            "arrived": len(latencies),
            "lost": 0,
            "duplicated": 0,
            "corrupted": 0,
            "unexpected": 0,
        },
        "reconciliation_not_checked_because": None,
        "provider": {
            "connections_opened": 4,
            "peak_connections_per_mailbox": 2,
            "auth_accepted": 4,
            "auth_refused": 0,
            "transactions_accepted": len(latencies),
            "transactions_refused": failed,
            "turns": 5 * len(outcomes),
            "token_requests": 4,
        },
        "provider_settings": None,
        "idle_crowd": None,
        "generator": {
            "processes": 1,
            "cpu_seconds": 0.2,
            "cpu_share": 0.31,
            "loop_lag": {"p50_seconds": 0.0001, "p99_seconds": 0.002, "max_seconds": 0.004},
            "was_bottleneck": False,
            "reason": "",
            "advice": "",
        },
        "assertions": [],
        "environment": {
            "python": "3.11.2",
            "platform": "Linux",
            "cpu_count": 2,
            "bench_version": "0.1.0",
            "loop": "uvloop",
            "load_average": 0.4,
        },
    }
    for path, value in changes.items():
        *holders, name = path.split("__")
        block = document
        for holder in holders:
            block = block[holder]
        block[name] = value
    return document


def _config(planned: int, *, is_open: bool) -> dict[str, Any]:
    return {
        "scenario": "custom",
        "model": "open" if is_open else "closed",
        "num_emails": planned,
        "duration_seconds": None,
        "warmup_seconds": 0.0,
        "concurrent": 10,
        "arrival_rate_per_second": 100.0 if is_open else None,
        "ramp_from_per_second": None,
        "ramp_seconds": None,
        "max_lateness_seconds": 10.0 if is_open else None,
        "processes": 1,
        "connection": "kept",
        "messages_per_connection": None,
        "is_pipelined": False,
        "sizes": "4096",
        "size_bytes": 4096,
        "recipients_per_message": "1",
        "idle_clients": 0,
        "slow_bytes_per_second": None,
        "from_email": "test.account1@gmail.com",
        "from_emails": ["test.account1@gmail.com"],
        "mailboxes": 1,
        "to_email": "recipient@outlook.com",
        "mechanism": "xoauth2",
        "tls": "none",
    }


def _bins(
    outcomes: Sequence[Outcome], dropped_at: Sequence[float], width: float, seconds: float
) -> list[dict[str, Any]]:
    bins = []
    for number in range(math.ceil(seconds / width)):
        low, high = number * width, (number + 1) * width
        within = [found for end, found in outcomes if low < end <= high]
        latency = distribution(found for found in within if not isinstance(found, str))
        bins.append(
            {
                "start_seconds": low,
                "successful": latency["count"],
                "failed": len(within) - latency["count"],
                "dropped": sum(low < at <= high for at in dropped_at),
                "p50_seconds": latency["p50_seconds"],
                "p95_seconds": latency["p95_seconds"],
            }
        )
    return bins
