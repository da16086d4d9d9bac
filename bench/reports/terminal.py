"""The terminal report: text in a fixed layout, coloured only on a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from bench.analysis import provider_summary, sample_size
from bench.measurement.result import NotReconciled
from bench.reports import findings, formatting, json_export

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from bench.measurement.result import (
        Distribution,
        GeneratorFigures,
        IdleClientFigures,
        ProviderFigures,
        Reconciliation,
        Result,
        Run,
        SignInFigures,
    )
    from bench.plan.arrivals import Rate
    from bench.plan.scenarios import RunPlan

_RULE = "=" * 80
_SHOWN_MAILBOXES = 1
_FIGURES = (
    *(("Min", "min"), ("Max", "max"), ("Average", "avg"), ("P50 (median)", "p50")),
    *(("P90", "p90"), ("P95", "p95"), ("P99", "p99"), ("P99.9", "p999")),
)


def render(run: Run) -> str:
    """Return the report of a run, each line with a newline."""
    result = run.result
    title = "LOAD TEST RESULTS (PARTIAL)" if result.is_partial else "LOAD TEST RESULTS"
    lines = [*_header(run), "", _RULE, title, _RULE]
    if result.is_partial:
        lines += [
            f"Stopped after {result.succeeded} successful messages ({result.interrupted_by})",
            "",
        ]
    lines += [*_counts(result), "", *_throughput(result, run.plan.pace.rate), ""]
    times = [*_latency("Latency:", result.latency), ""]
    if run.plan.pace.rate is not None:
        times += [*_latency("Service time:", result.service_time), ""]
    times += _phases(run)
    lines += [*times, *_rough(times), "", *_errors(result)]
    lines += _reconciliation(run.reconciliation)
    lines += [*_provider(run.provider), *_idle(run.idle_clients)]
    lines += [*_sign_in(run.sign_in), *_generator(run.generator)]
    lines += _short(result)
    return "\n".join(lines) + "\n"


def render_assertions(checked: Sequence[Mapping[str, object]]) -> str:
    """Return the results of a run's assertions, each line with a newline."""
    lines = ["Assertions:"]
    for one in checked:
        is_met = "met    " if one["is_met"] else "NOT MET"
        lines.append(f"  {is_met}  {one['expression']}  ({_words(findings.measured(one))})")
        if one.get("caution"):
            lines.append(f"           Beware: {one['caution']}.")
    return "\n".join(lines) + "\n"


def heading(title: str) -> str:
    """Return a title between rules."""
    return f"{_RULE}\n{title}\n{_RULE}\n"


def show(console: Console, text: str) -> None:
    """Print report text; a server's text in it is never interpreted as markup."""
    styled = Text(formatting.harmless(text, keeps_lines=True))
    styled.highlight_regex(r"(?m)^(LOAD TEST RESULTS.*|COMPARISON)$", "bold")
    styled.highlight_regex(r"(?m)^(Stopped after|Warning:| +Beware:) .*$", "yellow")
    styled.highlight_regex(
        r"(?m)^ *(Failed|Dropped|Lost|Duplicated|Corrupted): +[1-9]\d*$", "bold red"
    )
    styled.highlight_regex(r"(?m)^ *NOT MET .*$", "bold red")
    styled.highlight_regex(r"(?m)^Success rate: +100 %$", "green")
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
        *_stand_in(run.provider_settings),
        f"Scenario:                {plan.scenario}",
        f"Messages:                {_amount(plan)}",
        *_pace(plan),
        f"Concurrent connections:  {plan.concurrent}",
        f"From:                    {senders}",
        f"To:                      {plan.to_email}",
        f"Login:                   {'none' if run.mechanism == 'none' else run.mechanism.upper()}",
        f"Message size:            {workload.eml_dir or sizes}",
        *_client_options(plan),
    ]


def _stand_in(settings: Mapping[str, object] | None) -> list[str]:
    return (
        []
        if settings is None
        else [f"Provider:                {provider_summary.summary(settings)}"]
    )


def _amount(plan: RunPlan) -> str:
    pace = plan.pace
    if pace.num_emails is not None:
        return str(pace.num_emails)
    planned = "as many as possible" if pace.planned is None else f"{pace.planned},"
    return f"{planned} for {pace.duration_seconds:g} s"


def _pace(plan: RunPlan) -> list[str]:
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


def _client_options(plan: RunPlan) -> list[str]:
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
    warmup = result.warmup
    lines = [
        f"Total time:      {result.wall_seconds:.2f} s",
        f"Attempted:       {result.attempted}",
        f"Successful:      {result.succeeded}",
        f"Failed:          {result.failed}",
        f"Not attempted:   {'–' if result.not_attempted is None else result.not_attempted}",
        f"Dropped:         {result.dropped}",
        f"Late starts:     {result.late_starts}",
        f"Success rate:    {_words(formatting.percent(result.success_rate))}",
    ]
    if warmup.seconds:
        lines.append(
            f"Warm-up:         {_plain(formatting.messages(warmup.requests))}, "
            f"{warmup.failed} failed, {warmup.dropped} dropped; not counted above"
        )
    return lines


def _throughput(result: Result, rate: Rate | None) -> list[str]:
    wanted = "" if rate is None else f"  (arrivals: {rate.per_second:g})"
    return [
        "Throughput:",
        f"  Overall:       {_number(result.throughput_per_second, 2)} messages/s{wanted}",
        f"  Per minute:    {_number(result.throughput_per_minute, 2)}",
    ]


def _latency(title: str, latency: Distribution) -> list[str]:
    return [title, *(f"  {label + ':':<15}{_figure(latency, name)}" for label, name in _FIGURES)]


def _phases(run: Run) -> list[str]:
    phases = run.result.phases
    shown = (
        ("Connect", phases.connect),
        ("AUTH", phases.auth),
        ("Transaction", phases.transaction),
    )
    rows = [
        ("Phases:", *("count", "min", "average", "P50", "P95", "P99", "max")),
        *((f"  {name}", *_phase(phase)) for name, phase in shown),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([head.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
        for head, *cells in rows
    ]
    before = findings.opened_before(json_export.document(run))
    return [*lines, *([f"  {before}"] if before else [])]


def _phase(phase: Distribution) -> list[str]:
    names = ("min", "avg", "p50", "p95", "p99", "max")
    return [str(phase.count), *(_figure(phase, name) for name in names)]


def _errors(result: Result) -> list[str]:
    if not result.errors:
        return []
    counted = (
        f"  {formatting.harmless(str(error.failure))}: {error.count}" for error in result.errors
    )
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
        *([_warning(findings.unexpected(reconciled.unexpected))] if reconciled.unexpected else []),
    ]


def _provider(provider: ProviderFigures | None) -> list[str]:
    if provider is None:
        return []
    tokens, accepted = provider.token_requests, provider.transactions_accepted
    return [
        "Provider:",
        f"  Connections:   {_plain(findings.opened(provider.connections_opened, accepted))}, peak "
        f"{provider.peak_connections_per_mailbox} a mailbox",
        f"  AUTH:          {_plain(findings.logins(provider.auth_accepted, accepted))}, "
        f"{provider.auth_refused} refused",
        f"  Transactions:  {accepted} accepted, {provider.transactions_refused} refused",
        f"  Turns:         {provider.turns} round trips that were waited for",
        f"  Tokens:        {'–' if tokens is None else tokens} requested",
    ]


def _idle(idle: IdleClientFigures | None) -> list[str]:
    if idle is None:
        return []
    return [f"Idle clients:    {idle.clients}, {idle.refused} refused, {idle.lost} lost"]


def _sign_in(figures: SignInFigures | None) -> list[str]:
    if figures is None:
        return []
    lasted = f" in {_words(formatting.duration(figures.wall_seconds))}"
    p50, p95 = figures.duration.p50_seconds, figures.duration.p95_seconds
    if p50 is not None and p95 is not None:
        lasted += (
            f", P50 {_words(formatting.duration(p50))}, P95 {_words(formatting.duration(p95))}"
        )
    users = f"{figures.signed_in} of {figures.wanted} users"
    return [
        f"Sign-in:         {users} ({figures.method}){lasted}",
        *(f"  {formatting.harmless(one.reason)}: {one.count}" for one in figures.failures),
    ]


def _generator(generator: GeneratorFigures) -> list[str]:
    lag = generator.loop_lag.p99_seconds
    lines = [
        "Generator:       "
        + (
            "not measured long enough"
            if lag is None
            else f"{generator.cpu_share:.0%} of a core, event loop "
            f"{_words(formatting.duration(lag))} late at P99"
        )
    ]
    if generator.was_bottleneck:
        lines.append(_warning(findings.bottleneck(asdict(generator))))
    return lines


def _rough(lines: Sequence[str]) -> list[str]:
    is_marked = any(formatting.ABOUT in line for line in lines)
    return [f"{formatting.ABOUT} {sample_size.ROUGH}."] if is_marked else []


def _short(result: Result) -> list[str]:
    if not result.succeeded or not sample_size.is_short(result.wall_seconds, result.succeeded):
        return []
    return [_warning(findings.short(result.succeeded, result.wall_seconds))]


def _warning(sentence: str) -> str:
    return f"Warning: {_words(sentence)}"


def _words(shown: str) -> str:
    """Return the text with ordinary blanks, which a search finds."""
    return shown.replace("\N{NO-BREAK SPACE}", " ")


def _plain(shown: str) -> str:
    """Return the text without commas in numbers, like the rest of the report."""
    return shown.replace(",", "")


def _figure(distribution: Distribution, name: str) -> str:
    return _words(formatting.figure(asdict(distribution), name))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
