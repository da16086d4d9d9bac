"""The report for a machine: everything measured, each repeat's figures beside the medians."""

from __future__ import annotations

import os
import platform
import ssl
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cost.figures import p99_ms, ratio
from bench.cost.plan import RelayName
from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from bench.cost.figures import Lag, Measured, Outcome, Row
    from bench.cost.goals import Target
    from bench.cost.plan import Plan

SCHEMA_VERSION = 1
_PACKAGES = ("aiosmtpd", "aiosmtplib", "uvloop")


def document(
    plan: Plan, outcome: Outcome, reach: Sequence[Target], started_at: datetime, seconds: float
) -> dict[str, object]:
    """Return the document of a sitting."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "cost",
        "timestamp": started_at.isoformat(timespec="seconds"),
        "seconds": seconds,
        "config": {
            "quick": plan.is_quick,
            "pipelined": plan.is_pipelined,
            "rtt_ms": plan.rtt_seconds * 1000,
            "repeat": plan.repeat,
            "relays": {name.value: name.meaning for name in plan.relays},
        },
        "environment": environment(),
        "workloads": [_workload(one) for one in outcome.measured],
        "event_loop_lag": _lag(outcome.lag),
        "reach": [asdict(target) | {"verdict": target.verdict.value} for target in reach],
    }


def environment() -> dict[str, object]:
    """Return what the figures were measured with; the load is what others had the machine do."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count() or 1,
        "load_average": list(os.getloadavg()),
        "openssl": ssl.OPENSSL_VERSION,
        "bench_version": __version__,
        **{name: _version(name) for name in _PACKAGES},
    }


def _workload(one: Measured) -> dict[str, object]:
    return {
        **asdict(one.workload),
        "relays": [row.relay.value for row in one.rows],
        "results": [_row(one, row) for row in one.rows],
    }


def _row(one: Measured, row: Row) -> dict[str, object]:
    medians = row.medians
    splice, naive = one.median(RelayName.SPLICE), one.median(RelayName.NAIVE)
    cpu = medians.cpu_us_per_message
    return {
        "relay": row.relay.value,
        "error": row.error or None,
        "skipped": row.skipped or None,
        "medians": asdict(medians),
        "cpu_ratio_to_splice": ratio(cpu, splice.cpu_us_per_message),
        "cpu_ratio_to_naive": ratio(cpu, naive.cpu_us_per_message),
        "event_loop_lag": _lag(row.lag),
        "repeats": [asdict(figures) for figures in row.repeats],
    }


def _lag(lag: Lag) -> dict[str, object] | None:
    if not lag:
        return None
    samples = {f"{bound:g}": count for bound, count in sorted(lag.items())}
    return {"p99_ms_at_most": p99_ms(lag), "samples_by_bound_seconds": samples}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
