"""The report for a person: text of a fixed layout, coloured only where a terminal shows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.text import Text

from bench.result import NotReconciled, change_percent

if TYPE_CHECKING:
    from rich.console import Console

    from bench.result import Latency, Reconciliation, Result, Run

_RULE = "=" * 80
_SHOWN_MAILBOXES = 1


def render(run: Run) -> str:
    """Return the report of one run, lines ended by newlines."""
    result = run.result
    title = "LOAD TEST RESULTS (PARTIAL)" if result.is_partial else "LOAD TEST RESULTS"
    lines = [*_header(run), "", _RULE, title, _RULE]
    if result.is_partial:
        lines += [
            f"Stopped after {result.succeeded} successful sends ({result.interrupted_by})",
            "",
        ]
    lines += [
        *_counts(result),
        "",
        *_throughput(result),
        "",
        *_latency(result.latency),
        "",
        *_phases(result),
        "",
        *_errors(result),
        *_reconciliation(run.reconciliation),
    ]
    return "\n".join(lines) + "\n"


def render_comparison(baseline: Run, optimized: Run) -> str:
    """Return the table of `--scenario compare`, lines ended by newlines."""
    before, after = baseline.result, optimized.result
    rows = (
        (
            "Throughput (requests/sec)",
            before.throughput_per_second,
            after.throughput_per_second,
            2,
        ),
        ("Average latency (seconds)", before.latency.avg_seconds, after.latency.avg_seconds, 4),
        ("P95 latency (seconds)", before.latency.p95_seconds, after.latency.p95_seconds, 4),
    )
    lines = [
        _RULE,
        "COMPARISON",
        _RULE,
        f"{'':<28}{'baseline':>14}{'optimized':>14}{'change':>12}",
    ]
    for name, first, second, digits in rows:
        change = change_percent(first, second)
        shown = "–" if change is None else f"{change:+.1f} %"
        lines.append(
            f"{name:<28}{_number(first, digits):>14}{_number(second, digits):>14}{shown:>12}"
        )
    return "\n".join(lines) + "\n"


def show(console: Console, text: str) -> None:
    """Print report text; a server's words in it are never taken for markup."""
    styled = Text(text)
    styled.highlight_regex(r"(?m)^(LOAD TEST RESULTS.*|COMPARISON)$", "bold")
    styled.highlight_regex(r"(?m)^Stopped after .*$", "yellow")
    styled.highlight_regex(r"(?m)^ *(Failed|Lost|Duplicated|Corrupted): +[1-9]\d*$", "bold red")
    styled.highlight_regex(r"(?m)^Success rate: +100\.00 %$", "green")
    console.print(styled, end="", soft_wrap=True)


def _header(run: Run) -> list[str]:
    plan = run.plan
    more = len(plan.mailboxes) - _SHOWN_MAILBOXES
    senders = ", ".join(plan.mailboxes[:_SHOWN_MAILBOXES]) + (f" and {more} more" if more else "")
    tls = "" if run.tls == "none" else f" (TLS: {run.tls})"
    return [
        f"Target:                  {run.target}{tls}",
        f"Scenario:                {plan.scenario}",
        f"Total emails:            {plan.num_emails}",
        f"Concurrent connections:  {plan.concurrent}",
        f"From:                    {senders}",
        f"To:                      {plan.to_email}",
        f"Login:                   {run.mechanism.upper()}",
        f"Message size:            {plan.size_bytes} bytes",
    ]


def _counts(result: Result) -> list[str]:
    rate = result.success_rate
    # Rounded down: 100.00 % is said of all or not at all.
    shown = "–" if rate is None else f"{math.floor(rate * 10_000) / 100:.2f} %"
    return [
        f"Total time:      {result.wall_seconds:.2f} s",
        f"Total requests:  {result.attempted}",
        f"Successful:      {result.succeeded}",
        f"Failed:          {result.failed}",
        f"Not attempted:   {result.not_attempted}",
        f"Success rate:    {shown}",
    ]


def _throughput(result: Result) -> list[str]:
    return [
        "Throughput:",
        f"  Overall:       {_number(result.throughput_per_second, 2)} requests/sec",
        f"  Per minute:    {_number(result.throughput_per_minute, 2)}",
    ]


def _latency(latency: Latency) -> list[str]:
    return [
        "Latency (seconds):",
        f"  Min:           {_number(latency.min_seconds, 4)}",
        f"  Max:           {_number(latency.max_seconds, 4)}",
        f"  Average:       {_number(latency.avg_seconds, 4)}",
        f"  P50 (median):  {_number(latency.p50_seconds, 4)}",
        f"  P95:           {_number(latency.p95_seconds, 4)}",
        f"  P99:           {_number(latency.p99_seconds, 4)}",
    ]


def _phases(result: Result) -> list[str]:
    phases = result.phases
    rows = (("Connect", phases.connect), ("AUTH", phases.auth), ("Transaction", phases.transaction))
    heads = "".join(
        f"{head:>10}" for head in ("count", "min", "average", "P50", "P95", "P99", "max")
    )
    return [f"{'Phases (seconds):':<18}{heads}", *(_phase(name, phase) for name, phase in rows)]


def _phase(name: str, phase: Latency) -> str:
    figures = (
        phase.min_seconds,
        phase.avg_seconds,
        phase.p50_seconds,
        phase.p95_seconds,
        phase.p99_seconds,
        phase.max_seconds,
    )
    cells = "".join(f"{_number(figure, 4):>10}" for figure in figures)
    return f"  {name:<16}{phase.count:>10}{cells}"


def _errors(result: Result) -> list[str]:
    if not result.errors:
        return []
    counted = (f"  {error.failure}: {error.count}" for error in result.errors)
    return [f"Errors ({result.failed}):", *counted, ""]


def _reconciliation(reconciled: Reconciliation | NotReconciled) -> list[str]:
    if isinstance(reconciled, NotReconciled):
        return [f"Reconciliation:  not checked ({reconciled.reason})"]
    return [
        "Reconciliation (acknowledged against received by the sandbox):",
        f"  Acknowledged:  {reconciled.acknowledged}",
        f"  Arrived:       {reconciled.arrived}",
        f"  Lost:          {reconciled.lost}",
        f"  Duplicated:    {reconciled.duplicated}",
        f"  Corrupted:     {reconciled.corrupted}",
        f"  Unexpected:    {reconciled.unexpected}",
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
