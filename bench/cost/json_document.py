"""The JSON report of a cost run, with the figures of each repeat and their medians."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.cost.figures import ratio
from bench.cost.workloads import RELAYS, RelayName
from bench.process import environment
from bench.reconciliation.loop_lag import p99_ms
from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from bench.cost.figures import CostResults, RelayRow, WorkloadResult
    from bench.cost.goals import Goal
    from bench.cost.workloads import CostPlan
    from bench.reconciliation.loop_lag import LoopLag


def document(
    plan: CostPlan,
    results: CostResults,
    goals: Sequence[Goal],
    started_at: datetime,
    seconds: float,
) -> dict[str, object]:
    """Return the document of the results."""
    return {
        "schema_version": 1,
        "kind": "cost",
        "timestamp": started_at.isoformat(timespec="seconds"),
        "seconds": seconds,
        "config": {
            "quick": plan.is_quick,
            "pipelined": plan.is_pipelined,
            "rtt_ms": plan.rtt_seconds * 1000,
            "repeat": plan.repeat,
            "relays": {name.value: RELAYS[name] for name in plan.relays},
        },
        "environment": environment.describe(("aiosmtpd", "aiosmtplib", "uvloop"))
        | {"bench_version": __version__},
        "workloads": [_workload(one) for one in results.measured],
        "event_loop_lag": _lag(results.lag),
        "reach": [asdict(goal) | {"verdict": goal.verdict.value} for goal in goals],
    }


def _workload(one: WorkloadResult) -> dict[str, object]:
    return {
        **asdict(one.workload),
        "relays": [row.relay.value for row in one.rows],
        "results": [_row(one, row) for row in one.rows],
    }


def _row(one: WorkloadResult, row: RelayRow) -> dict[str, object]:
    cpu = row.medians.cpu_us_per_message
    splice, naive = one.median(RelayName.SPLICE), one.median(RelayName.NAIVE)
    return {
        "relay": row.relay.value,
        "error": row.error or None,
        "skipped": row.skipped or None,
        "medians": asdict(row.medians),
        "cpu_ratio_to_splice": ratio(cpu, splice.cpu_us_per_message),
        "cpu_ratio_to_naive": ratio(cpu, naive.cpu_us_per_message),
        "event_loop_lag": _lag(row.lag),
        "repeats": [asdict(figures) for figures in row.repeats],
    }


def _lag(lag: LoopLag) -> dict[str, object] | None:
    if not lag:
        return None
    samples = {f"{bound:g}": count for bound, count in sorted(lag.items())}
    return {"p99_ms_at_most": p99_ms(lag), "samples_by_bound_seconds": samples}
