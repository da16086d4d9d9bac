"""`xoauth2-bench sweep`: its options, output and exit code.

Exit codes: 0 completed, and no message lost, duplicated or changed; 1 otherwise, or messages failed
at the lowest load, or a report could not be written; 2 incorrect usage; 130 or 143 stopped by
SIGINT or SIGTERM, with the steps so far; a step that ended early is marked partial.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import asyncio
import sys
from dataclasses import dataclass, fields, replace
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand

from bench.analysis import sweep
from bench.analysis.documents import Document
from bench.analysis.sweep import MAX_STEPS, Parameter
from bench.options.dataclass_options import (
    GroupedCommand,
    command_with_options,
    single_command,
)
from bench.options.request_builder import OutputOptions, output_of, request_of
from bench.options.run_options import LOAD, MAX_CONNECTIONS, MAX_RATE, RunOptions
from bench.plan.scenarios import COMPARE, RunPlan
from bench.process.child_process import StartInterrupted
from bench.process.interruption import Interruption
from bench.process.server_process import loop_factory
from bench.reports import html_export, json_export, sweep_table
from bench.reports.progress import Progress
from bench.runs.run import measure, with_mailboxes
from bench.runs.run_request import RunRequest
from bench.targets.target import Target, open_target
from bench.targets.target_request import TargetError

_DEFAULT = "1,2,4,8,16,32"
_STEP_SECONDS = 10.0

HELP = """Raise the load step by step and find the knee, where more load stops paying off.

Each step is a separate run against the same relay, 10 seconds long by default. The sweep ends
early if messages fail, or if latency rises steeply while throughput no longer grows.
The knee is the load with the greatest power, which is throughput divided by mean latency
(Kleinrock 1979).
"""
# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
How many connections are useful?
  xoauth2-bench sweep --concurrent 1,2,4,8,16,32 --use-mock-tokens --html sweep.html

\b
How many messages a second can the relay take? Try 50, 100, 200 … a second:
  xoauth2-bench sweep --arrival-rate 50..800 --concurrent 100 --use-mock-tokens
"""


_REFUSED = ("assertions", "ramp_from", "ramp_seconds", "scenario_file", "runs")  # one run's


@dataclass(frozen=True, kw_only=True)
class SweepOptions(RunOptions):
    """The options of a sweep: a run's options, two of which take several values."""

    concurrent: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Connections in each step, such as 1,2,4,8 or 1..64 (doubling). "
            f"Default: {_DEFAULT}. With --arrival-rate: a single number.",
            rich_help_panel=LOAD,
        ),
    ] = None  # type: ignore[assignment]
    arrival_rate: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Instead: messages due per second in each step, such as 50,100,400 or 50..800.",
            rich_help_panel=LOAD,
        ),
    ] = None  # type: ignore[assignment]
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=2,
            max=MAX_STEPS,
            help="Number of steps to spread a range over evenly.",
            rich_help_panel=LOAD,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class _SweepPlan:
    parameter: Parameter
    request: RunRequest  # of the first step; the others differ in their plans only
    steps: list[tuple[float, RunPlan]]  # ascending


@dataclass(frozen=True, slots=True)
class _Sweep:
    """The steps of a sweep, and why it stopped."""

    target: str
    steps: list[tuple[float, Document]]
    stopped_because: str = ""
    error: str = ""


def run(context: typer.Context, options: SweepOptions) -> None:
    """Carry out the sweep and report."""
    plan, out = _plan(options), output_of(_step(options, None, None))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_sweep_and_report(plan, out))
    raise typer.Exit(code)


def _plan(options: SweepOptions) -> _SweepPlan:
    for option, value in (
        ("--assert", options.assertions),
        ("--ramp-from", options.ramp_from),
        ("--scenario-file", options.scenario_file),
    ):
        if value:
            _refuse(option, "is for a single run.")
    if options.scenario == COMPARE:
        _refuse("--scenario", "compare has two runs of its own.")
    if options.arrival_rate is None:
        parameter, option = Parameter.CONCURRENT, "--concurrent"
        found = _loads(option, options.concurrent or _DEFAULT, options.steps)
        if options.steps is not None:  # evenly spread, rounded to whole connections
            found = sorted({float(round(load)) for load in found})
        given = [_step(options, _whole(load), None) for load in found]
    else:
        parameter, option = Parameter.ARRIVAL_RATE, "--arrival-rate"
        found = _loads(option, options.arrival_rate, options.steps)
        connections = _connections(options.concurrent)
        given = [_step(options, connections, load) for load in found]
    requests = [request_of(step) for step in given]
    plans = [request.plan for request in requests]
    return _SweepPlan(parameter, requests[0], list(zip(found, plans, strict=True)))


def _step(options: SweepOptions, concurrent: int | None, arrival_rate: float | None) -> RunOptions:
    given = {one.name: getattr(options, one.name) for one in fields(RunOptions)}
    if options.num_emails is None and options.duration is None and options.scenario is None:
        given["duration"] = _STEP_SECONDS
    return RunOptions(**(given | {"concurrent": concurrent, "arrival_rate": arrival_rate}))


def _loads(option: str, text: str, count: int | None) -> list[float]:
    try:
        found = sweep.loads(text, count)
    except ValueError as error:
        _refuse(option, str(error))
    most = MAX_CONNECTIONS if option == "--concurrent" else MAX_RATE
    if found[-1] > most:
        _refuse(option, f"{found[-1]:g} is more than {most:g}.")
    return found


def _connections(text: str | None) -> int | None:
    if text is None:
        return None
    found = _loads("--concurrent", text, None)
    if len(found) > 1:
        _refuse("--concurrent", "may have only one value with --arrival-rate.")
    return _whole(found[0])


def _whole(load: float) -> int:
    if not load.is_integer():
        _refuse("--concurrent", f"{load:g} is not a whole number of connections.")
    return int(load)


async def _sweep_and_report(plan: _SweepPlan, out: OutputOptions) -> int:
    progress = Progress(is_silent=out.is_json, is_verbose=out.is_verbose)
    with Interruption() as interruption:
        try:
            async with (
                open_target(plan.request.target, interruption, progress.announce) as target,
                with_mailboxes(plan.request, target, interruption, progress) as request,
            ):
                swept = await _sweep(replace(plan, request=request), target, interruption, progress)
        except TargetError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return interruption.exit_code or 1
        except StartInterrupted:
            print("Stopped before a message was sent.", file=sys.stderr)  # noqa: T201
            return interruption.exit_code
        if not swept.steps:
            print(swept.error, file=sys.stderr)  # noqa: T201
            return interruption.exit_code or 1
        document = sweep.document(
            swept.target,
            plan.parameter,
            swept.steps,
            interrupted_by=interruption.signal_name,
            stopped_because=swept.stopped_because,
        )
        is_saved = _report(document, swept.error, out)
        return interruption.exit_code or (0 if is_saved and _is_good(swept) else 1)


async def _sweep(
    plan: _SweepPlan, target: Target, interruption: Interruption, progress: Progress
) -> _Sweep:
    steps: list[tuple[float, Document]] = []
    mailboxes = plan.request.plan.mailboxes
    for number, (load, wanted) in enumerate(plan.steps, 1):
        plural = "" if wanted.concurrent == 1 else "s"
        about = f"{wanted.concurrent} connection{plural}, {wanted.pace.about}"
        progress.announce(f"Step {number} of {len(plan.steps)}: {about} to {target.endpoint}.")
        request = replace(plan.request, plan=replace(wanted, mailboxes=mailboxes))
        try:
            run = await measure(request, target, interruption, progress)
        except TargetError as error:
            return _Sweep(str(target.endpoint), steps, error=str(error))
        steps.append((load, json_export.document(run)))
        if interruption.requested.is_set():
            break
        why = sweep.reason_to_stop([sweep.figures(*step) for step in steps])
        if why:
            is_last = number == len(plan.steps)
            return _Sweep(str(target.endpoint), steps, stopped_because="" if is_last else why)
    return _Sweep(str(target.endpoint), steps)


def _is_good(swept: _Sweep) -> bool:
    lowest = sweep.figures(*swept.steps[0])
    return (
        not swept.error
        and not any(sweep.is_partial(run) for _, run in swept.steps)
        and lowest.success_rate == 1
        and all(_is_intact(run) for _, run in swept.steps)
    )


def _is_intact(run: Document) -> bool:
    found = run["reconciliation"]
    return not isinstance(found, dict) or not any(
        found[name] for name in ("lost", "duplicated", "corrupted")
    )


def _report(document: dict[str, object], error: str, out: OutputOptions) -> bool:
    saved, complaints = [], [error] if error else []
    for path, write in ((out.path, json_export.write), (out.html, html_export.write)):
        if path is not None:
            try:
                write(document, path)
                saved.append(str(path))
            except OSError as problem:
                complaints.append(f"The results could not be saved: {problem}")
    if out.is_json:
        print(json_export.encode(document), end="")  # noqa: T201
    else:
        console = Console(highlight=False)
        sweep_table.show(console, document)
        if saved:
            console.print(f"\nResults saved to: {', '.join(saved)}", soft_wrap=True, markup=False)
    for line in complaints:
        print(line, file=sys.stderr)  # noqa: T201
    return not complaints


def _refuse(option: str, reason: str) -> NoReturn:
    raise typer.BadParameter(reason, param_hint=option)


def command() -> TyperCommand:
    """Return the sub-command."""
    function = command_with_options(SweepOptions, run, _REFUSED)
    return single_command("sweep", function, cls=GroupedCommand, help=HELP, epilog=EPILOG)
