"""The JSON report: one versioned object, units in the names, null for "no value".

Its schema is `bench/schema/run.schema.json`. It never contains NaN or Infinity (RFC 8259 §6). Files
are written atomically.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.analysis import sample_size
from bench.analysis.documents import SCHEMA_VERSION
from bench.measurement.result import NotReconciled
from bench.reports.atomic_write import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.measurement.result import Distribution, Result, Run, SignInFigures

# JSON strings may contain them; terminals and UTF-8 may not.
_ESCAPED = re.compile("[\x7f-\x9f\ud800-\udfff]")
_SHOWN_MAILBOXES = 10


def document(run: Run) -> dict[str, object]:
    """Return the document of a run, without assertions."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "run",
        "timestamp": run.started_at.isoformat(timespec="seconds"),
        "target": run.target,
        "config": _config(run),
        "partial": run.result.is_partial,
        "interrupted_by": run.result.interrupted_by or None,
        "results": _results(run.result),
        "warmup": asdict(run.result.warmup),
        "errors": [
            {
                "step": error.failure.step or None,
                "code": error.failure.code,
                "text": error.failure.text,
                "count": error.count,
            }
            for error in run.result.errors
        ],
        **_reconciliation(run),
        "provider": asdict(run.provider) if run.provider is not None else None,
        "provider_settings": run.provider_settings,
        "idle_crowd": asdict(run.idle_clients) if run.idle_clients is not None else None,
        "sign_in": _sign_in(run.sign_in),
        "generator": asdict(run.generator),
        "assertions": [],
        "environment": asdict(run.environment),
    }


def encode(document: Mapping[str, object]) -> str:
    """Return the JSON text with a final newline.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write(document: Mapping[str, object], path: Path) -> None:
    """Write the document to `path`, replacing an existing file.

    Raises:
        OSError: it could not be written; an existing file is unchanged.
    """
    write_atomically(encode(document).encode(), path)


def _config(run: Run) -> dict[str, object]:
    plan = run.plan
    pace, workload = plan.pace, plan.workload
    rate = pace.rate
    has_ramp = rate is not None and rate.ramp_seconds > 0
    return {
        "scenario": plan.scenario,
        "model": "closed" if rate is None else "open",
        "num_emails": pace.num_emails,
        "duration_seconds": pace.duration_seconds,
        "warmup_seconds": pace.warmup_seconds,
        "concurrent": plan.concurrent,
        "arrival_rate_per_second": rate.per_second if rate else None,
        "ramp_from_per_second": rate.ramp_from_per_second if rate and has_ramp else None,
        "ramp_seconds": rate.ramp_seconds if rate and has_ramp else None,
        "max_lateness_seconds": pace.max_lateness_seconds if rate else None,
        "processes": plan.processes,
        "connection": str(workload.reuse),
        "messages_per_connection": workload.reuse.messages,
        "is_pipelined": workload.is_pipelined,
        "sizes": "files" if workload.eml_dir else workload.sizes.text,
        "size_bytes": None if workload.eml_dir else workload.sizes.size_bytes,
        "recipients_per_message": str(workload.recipients),
        "idle_clients": workload.idle_clients,
        "slow_bytes_per_second": workload.slow_bytes_per_second,
        "from_email": plan.mailboxes[0],
        "from_emails": list(plan.mailboxes[:_SHOWN_MAILBOXES]),
        "mailboxes": len(plan.mailboxes),
        "to_email": plan.to_email,
        "mechanism": run.mechanism,
        "tls": run.tls,
    }


def _results(result: Result) -> dict[str, object]:
    return {
        "planned": result.planned,
        "total_requests": result.attempted,
        "successful": result.succeeded,
        "failed": result.failed,
        "not_attempted": result.not_attempted,
        "dropped": result.dropped,
        "late_starts": result.late_starts,
        "success_rate": result.success_rate,
        "total_time_seconds": result.wall_seconds,
        "throughput_rps": result.throughput_per_second,
        "throughput_rpm": result.throughput_per_minute,
        "is_short": sample_size.is_short(result.wall_seconds, result.succeeded),
        "latency": _distribution(result.latency),
        "service_time": _distribution(result.service_time),
        "lateness": _distribution(result.lateness),
        "phases": {
            "connect": _distribution(result.phases.connect),
            "auth": _distribution(result.phases.auth),
            "transaction": _distribution(result.phases.transaction),
        },
        "histogram": [asdict(bucket) for bucket in result.histogram],
        "timeline": {
            "bin_seconds": result.timeline.bin_seconds,
            "bins": [asdict(stretch) for stretch in result.timeline.bins],
        },
    }


def _distribution(distribution: Distribution) -> dict[str, object]:
    return asdict(distribution) | {"rough": sample_size.rough(distribution.count)}


def _sign_in(figures: SignInFigures | None) -> dict[str, object] | None:
    if figures is None:
        return None
    return asdict(figures) | {"duration": _distribution(figures.duration)}


def _reconciliation(run: Run) -> dict[str, object]:
    if isinstance(run.reconciliation, NotReconciled):
        reason = run.reconciliation.reason
        return {"reconciliation": None, "reconciliation_not_checked_because": reason}
    return {
        "reconciliation": asdict(run.reconciliation),
        "reconciliation_not_checked_because": None,
    }
