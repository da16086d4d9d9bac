"""The report for a machine: one JSON object, versioned, units in the names, null for "no value".

No NaN and no Infinity (RFC 8259 §6), whatever was measured. A file appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.result import NotReconciled, change_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.result import Result, Run

SCHEMA_VERSION = 1


def document(run: Run) -> dict[str, object]:
    """Return the document of one run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": run.started_at.isoformat(timespec="seconds"),
        "target": run.target,
        "config": _config(run),
        "partial": run.result.is_partial,
        "interrupted_by": run.result.interrupted_by or None,
        "results": _results(run.result),
        "errors": [
            {"code": error.failure.code, "text": error.failure.text, "count": error.count}
            for error in run.result.errors
        ],
        **_reconciliation(run),
        "environment": asdict(run.environment),
    }


def comparison_document(runs: Sequence[Run]) -> dict[str, object]:
    """Return the document of `--scenario compare`; with one run there is no comparison."""
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": runs[0].started_at.isoformat(timespec="seconds"),
        "scenario": "compare",
        "partial": len(runs) < 2 or any(run.result.is_partial for run in runs),
        "runs": [document(run) for run in runs],
        "comparison": _comparison(runs[0].result, runs[1].result) if len(runs) > 1 else None,
    }


def encode(document: Mapping[str, object]) -> str:
    """Return the JSON text, ended by a newline.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(document: Mapping[str, object], path: Path) -> None:
    """Write the document to `path`, replacing what is there.

    Raises:
        OSError: it could not be written; `path` is as it was.
    """
    octets = encode(document).encode("utf-8", "backslashreplace")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _config(run: Run) -> dict[str, object]:
    plan = run.plan
    return {
        "scenario": plan.scenario,
        "num_emails": plan.num_emails,
        "concurrent": plan.concurrent,
        "from_email": plan.mailboxes[0],
        "from_emails": list(plan.mailboxes),
        "to_email": plan.to_email,
        "size_bytes": plan.size_bytes,
        "mechanism": run.mechanism,
        "tls": run.tls,
    }


def _results(result: Result) -> dict[str, object]:
    latency = asdict(result.latency)
    del latency["count"]
    return {
        "planned": result.planned,
        "total_requests": result.attempted,
        "successful": result.succeeded,
        "failed": result.failed,
        "not_attempted": result.not_attempted,
        "success_rate": result.success_rate,
        "total_time_seconds": result.wall_seconds,
        "throughput_rps": result.throughput_per_second,
        "throughput_rpm": result.throughput_per_minute,
        "latency": latency,
        "phases": asdict(result.phases),
    }


def _reconciliation(run: Run) -> dict[str, object]:
    if isinstance(run.reconciliation, NotReconciled):
        reason = run.reconciliation.reason
        return {"reconciliation": None, "reconciliation_not_checked_because": reason}
    return {
        "reconciliation": asdict(run.reconciliation),
        "reconciliation_not_checked_because": None,
    }


def _comparison(before: Result, after: Result) -> dict[str, object]:
    figures = {
        "throughput_rps": (before.throughput_per_second, after.throughput_per_second),
        "avg_seconds": (before.latency.avg_seconds, after.latency.avg_seconds),
        "p95_seconds": (before.latency.p95_seconds, after.latency.p95_seconds),
    }
    return {
        name: {
            "baseline": first,
            "optimized": second,
            "change_percent": change_percent(first, second),
        }
        for name, (first, second) in figures.items()
    }
