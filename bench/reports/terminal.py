"""The report for a person: text of a fixed layout, coloured only where a terminal shows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.text import Text

from bench.figures.result import NotReconciled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from bench.figures.result import (
        CrowdFigures,
        Distribution,
        GeneratorFigures,
        ProviderFigures,
        Reconciliation,
        Result,
        Run,
    )
    from bench.plan.arrivals import Rate
    from bench.plan.scenarios import Plan

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
    lines += [*_counts(result), "", *_throughput(result, run.plan.pace.rate), ""]
    lines += [*_latency("Latency (seconds):", result.latency), ""]
    if run.plan.pace.rate is not None:
        lines += [*_latency("Service time (seconds):", result.service_time), ""]
    lines += [*_phases(result), "", *_errors(result)]
    lines += _reconciliation(run.reconciliation)
    lines += [*_provider(run.provider), *_crowd(run.crowd), *_generator(run.generator)]
    return "\n".join(lines) + "\n"


def render_assertions(checked: Sequence[Mapping[str, object]]) -> str:
    """Return what became of the assertions of a run's document, lines ended by newlines."""
    lines = ["Assertions:"]
    for one in checked:
        value = one["value"]
        shown = f"{value:.6g}" if isinstance(value, int | float) else "–"
        lines.append(
            f"  {'met    ' if one['is_met'] else 'NOT MET'}  {one['expression']}  ({shown})"
        )
    return "\n".join(lines) + "\n"


def heading(title: str) -> str:
    """Return a title between rules."""
    return f"{_RULE}\n{title}\n{_RULE}\n"


def show(console: Console, text: str) -> None:
    """Print report text; a server's words in it are never taken for markup."""
    styled = Text(text)
    styled.highlight_regex(r"(?m)^(LOAD TEST RESULTS.*|COMPARISON)$", "bold")
    styled.highlight_regex(r"(?m)^(Stopped after|Warning:) .*$", "yellow")
    styled.highlight_regex(
        r"(?m)^ *(Failed|Dropped|Lost|Duplicated|Corrupted): +[1-9]\d*$", "bold red"
    )
    styled.highlight_regex(r"(?m)^ *NOT MET .*$", "bold red")
    styled.highlight_regex(r"(?m)^Success rate: +100\.00 %$", "green")
    console.print(styled, end="", soft_wrap=True)


def _header(run: Run) -> list[str]:
    plan = run.plan
    more = len(plan.mailboxes) - _SHOWN_MAILBOXES
    senders = ", ".join(plan.mailboxes[:_SHOWN_MAILBOXES]) + (f" and {more} more" if more else "")
    tls = "" if run.tls == "none" else f" (TLS: {run.tls})"
    workload = plan.workload
    size = workload.sizes.size_bytes
    sizes = f"{size} bytes" if size is not None else workload.sizes.text
    return [
        f"Target:                  {run.target}{tls}",
        f"Scenario:                {plan.scenario}",
        f"Total emails:            {_amount(plan)}",
        *_pace(plan),
        f"Concurrent connections:  {plan.concurrent}",
        f"From:                    {senders}",
        f"To:                      {plan.to_email}",
        f"Login:                   {run.mechanism.upper()}",
        f"Message size:            {workload.eml_dir or sizes}",
        *_manner(plan),
    ]


def _amount(plan: Plan) -> str:
    pace = plan.pace
    if pace.num_emails is not None:
        return str(pace.num_emails)
    planned = "" if pace.planned is None else f"{pace.planned}, "
    return f"{planned}for {pace.duration_seconds:g} s"


def _pace(plan: Plan) -> list[str]:
    lines = []
    rate = plan.pace.rate
    if rate is not None:
        ramp = (
            f", from {rate.ramp_from_per_second:g} within {rate.ramp_seconds:g} s"
            if rate.ramp_seconds
            else ""
        )
        lines.append(f"Arrivals:                {rate.per_second:g} a second{ramp}")
    if plan.pace.warmup_seconds:
        lines.append(f"Warm-up:                 {plan.pace.warmup_seconds:g} s")
    return lines


def _manner(plan: Plan) -> list[str]:
    workload = plan.workload
    words = []
    if workload.reuse.messages is not None:
        words.append(
            "a connection for each message"
            if workload.reuse.messages == 1
            else f"{workload.reuse.messages} messages a connection"
        )
    if workload.is_pipelined:
        words.append("pipelined")
    if str(workload.recipients) != "1":
        words.append(f"{workload.recipients} recipients a message")
    if workload.slow_bytes_per_second is not None:
        words.append(f"content at {workload.slow_bytes_per_second:g} bytes/s")
    if workload.idle_clients:
        words.append(f"{workload.idle_clients} idle clients")
    return [f"Clients:                 {', '.join(words)}"] if words else []


def _counts(result: Result) -> list[str]:
    rate = result.success_rate
    # Rounded down: 100.00 % is said of all or not at all.
    shown = "–" if rate is None else f"{math.floor(rate * 10_000) / 100:.2f} %"
    warmup = result.warmup
    lines = [
        f"Total time:      {result.wall_seconds:.2f} s",
        f"Total requests:  {result.attempted}",
        f"Successful:      {result.succeeded}",
        f"Failed:          {result.failed}",
        f"Not attempted:   {'–' if result.not_attempted is None else result.not_attempted}",
        f"Dropped:         {result.dropped}",
        f"Late starts:     {result.late_starts}",
        f"Success rate:    {shown}",
    ]
    if warmup.seconds:
        lines.append(
            f"Warm-up:         {warmup.requests} requests, {warmup.failed} failed, "
            f"{warmup.dropped} dropped; not counted above"
        )
    return lines


def _throughput(result: Result, rate: Rate | None) -> list[str]:
    wanted = "" if rate is None else f"  (arrivals: {rate.per_second:g})"
    return [
        "Throughput:",
        f"  Overall:       {_number(result.throughput_per_second, 2)} requests/sec{wanted}",
        f"  Per minute:    {_number(result.throughput_per_minute, 2)}",
    ]


def _latency(title: str, latency: Distribution) -> list[str]:
    return [
        title,
        f"  Min:           {_number(latency.min_seconds, 4)}",
        f"  Max:           {_number(latency.max_seconds, 4)}",
        f"  Average:       {_number(latency.avg_seconds, 4)}",
        f"  P50 (median):  {_number(latency.p50_seconds, 4)}",
        f"  P90:           {_number(latency.p90_seconds, 4)}",
        f"  P95:           {_number(latency.p95_seconds, 4)}",
        f"  P99:           {_number(latency.p99_seconds, 4)}",
        f"  P99.9:         {_number(latency.p999_seconds, 4)}",
    ]


def _phases(result: Result) -> list[str]:
    phases = result.phases
    rows = (("Connect", phases.connect), ("AUTH", phases.auth), ("Transaction", phases.transaction))
    heads = "".join(
        f"{head:>10}" for head in ("count", "min", "average", "P50", "P95", "P99", "max")
    )
    return [f"{'Phases (seconds):':<18}{heads}", *(_phase(name, phase) for name, phase in rows)]


def _phase(name: str, phase: Distribution) -> str:
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


def _provider(provider: ProviderFigures | None) -> list[str]:
    if provider is None:
        return []
    tokens = provider.token_requests
    return [
        "Provider:",
        f"  Connections:   {provider.connections_opened} opened, at most "
        f"{provider.peak_connections_per_mailbox} a mailbox",
        f"  AUTH:          {provider.auth_accepted} accepted, {provider.auth_refused} refused",
        f"  Transactions:  {provider.transactions_accepted} accepted, "
        f"{provider.transactions_refused} refused, {provider.turns} turns",
        f"  Tokens:        {'–' if tokens is None else tokens} requested",
    ]


def _crowd(crowd: CrowdFigures | None) -> list[str]:
    if crowd is None:
        return []
    return [f"Idle clients:    {crowd.clients}, {crowd.refused} refused, {crowd.lost} lost"]


def _generator(generator: GeneratorFigures) -> list[str]:
    lag = _number(generator.loop_lag.p99_seconds, 4)
    lines = [
        f"Generator:       {generator.cpu_share:.0%} of a core, event loop {lag} s late at P99"
    ]
    if generator.was_bottleneck:
        lines.append(f"Warning: the generator was the bottleneck: {generator.reason}.")
    return lines


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
