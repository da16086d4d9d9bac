"""The command line of xoauth2-bench: prompts, reports and exit codes.

Exit codes: 0 every message sent and accounted for (with --assert: every assertion met, and none
lost, doubled or changed), 1 not so, 2 wrong usage or an assertion not met, 130 or 143 stopped by
SIGINT or SIGTERM.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import asyncio
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from bench import outcome
from bench.commands import compare as compare_command
from bench.commands import sandbox as sandbox_command
from bench.commands import schema as schema_command
from bench.commands import sweep as sweep_command
from bench.commands import tokens as tokens_command
from bench.commands.sweep import SweepOptions
from bench.cost import cli as cost_command
from bench.options import scenario_request
from bench.options.dataclass_options import (
    GroupedCommand,
    GroupedHelp,
    command_with_options,
    options_given,
)
from bench.options.request_builder import OutputOptions, output_of, request_of
from bench.options.run_options import RunOptions
from bench.plan.scenarios import COMPARE, SCENARIOS, RunPlan
from bench.process.child_process import StartInterrupted
from bench.process.interruption import Interruption
from bench.process.server_process import loop_factory
from bench.reports.progress import Progress
from bench.runs.run import run_once, run_sides
from bench.runs.run_request import RunRequest
from bench.targets.target_request import TargetError
from xoauth2_proxy import __version__

_PROMPT_ABOVE_EMAILS = 500

_HELP = """Measure an SMTP relay: throughput, latency, and whether every message arrived.

Sends generated messages over kept connections, one message in flight on each, and counts every
one as succeeded, failed, not attempted or dropped. With the sandbox as the provider it also
compares what was acknowledged with what arrived. Any SMTP server can be measured so.
"""
# "\b" keeps the lines of a paragraph as they are.
_EPILOG = """\b
A first look; starts a private proxy if none is running:
  xoauth2-bench --scenario quick --use-mock-tokens

\b
Your own numbers, as one mailbox with its password:
  xoauth2-bench --num-emails 300 --concurrent 20 \\
      --from test.account1@gmail.com --password secret

\b
Mail that comes whether the relay is ready or not, after a warm-up:
  xoauth2-bench --use-mock-tokens --arrival-rate 200 --duration 30 --warmup 5

\b
Before and after a change, with a pause to make it:
  xoauth2-bench --scenario compare --use-mock-tokens

\b
For a script:
  xoauth2-bench --use-mock-tokens --json --assert 'p95<=500ms' | jq .results.throughput_rps

Ctrl+C once ends the run after the sends in flight, and reports; twice ends it at once. The exit
code is 0 only if every message was sent and none lost, doubled or changed; 2 for wrong usage and
for an assertion that is not met.
"""

_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main() -> NoReturn:
    """Run the command and end the process with its exit code."""
    try:
        _app(prog_name="xoauth2-bench")
    except KeyboardInterrupt:  # before the event loop takes the signals
        sys.exit(130)
    sys.exit(0)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"xoauth2-bench {__version__}")  # noqa: T201
        raise typer.Exit


def _show_scenarios(is_wanted: bool) -> None:
    if not is_wanted:
        return
    table = Table("scenario", "title", "messages", "connections", "what for", box=None)
    for scenario in SCENARIOS.values():
        table.add_row(
            scenario.name,
            scenario.title,
            scenario.amount,
            str(scenario.concurrent),
            scenario.purpose,
        )
    Console(highlight=False).print(table)
    raise typer.Exit


_List = Annotated[
    bool,
    typer.Option("--list", help="List the scenarios.", callback=_show_scenarios, is_eager=True),
]
_Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
]


def _bench(context: typer.Context, options: RunOptions) -> None:
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    if options.scenario_file is None:
        request = request_of(options)
    else:
        options, request = scenario_request.applied(
            options.scenario_file, options, options_given(context)
        )
    out = output_of(options)
    _confirm(request.plan, out)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_bench_and_report(request, out))
    raise typer.Exit(code)


def _refuse_options(context: typer.Context) -> None:
    """Refuse options in front of a sub-command, which would do nothing."""
    for name in options_given(context):
        raise typer.BadParameter(
            f"stands in front of {context.invoked_subcommand}, which does not take it.",
            param_hint=f"--{name.replace('_', '-')}",
        )


def _confirm(plan: RunPlan, out: OutputOptions) -> None:
    planned = plan.pace.planned
    is_small = planned is not None and planned <= _PROMPT_ABOVE_EMAILS
    if is_small or out.is_confirmed or not sys.stdin.isatty():
        return
    question = f"Send {plan.pace.about} over {plan.concurrent} connections?"
    try:
        is_wanted = typer.confirm(question, err=True)
    except typer.Abort as error:  # Ctrl+C or Ctrl+D
        is_interrupted = isinstance(error.__context__, KeyboardInterrupt)
        raise typer.Exit(130 if is_interrupted else 1) from None
    if not is_wanted:
        raise typer.Exit(1)


async def _bench_and_report(request: RunRequest, out: OutputOptions) -> int:
    progress = Progress(is_silent=out.is_json, is_verbose=out.is_verbose)
    with Interruption() as interruption:
        try:
            if request.plan.scenario == COMPARE:
                before, after = await run_sides(
                    request, request.runs, interruption, progress, lambda: _pause(interruption, out)
                )
            else:
                before, after = [await run_once(request, interruption, progress)], []
        except TargetError as error:
            progress.announce(str(error), even_if_silent=True)
            return interruption.exit_code or 1
        except StartInterrupted:
            progress.announce("Stopped before the first message was sent.", even_if_silent=True)
            return interruption.exit_code
        found = outcome.of_runs(before, after, out.assertions)
        is_saved = outcome.report(request, found, out)
        return outcome.exit_code(request, found, interruption, is_saved=is_saved)


async def _pause(interruption: Interruption, out: OutputOptions) -> bool:
    """Wait for ENTER; return whether to go on."""
    if out.is_confirmed or not sys.stdin.isatty():
        return True
    print("Make the change, restart the proxy, then press ENTER.", file=sys.stderr)  # noqa: T201
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, pressed.set)
    waits = [asyncio.create_task(event.wait()) for event in (pressed, interruption.requested)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        for wait in waits:
            wait.cancel()
    # The line, which a terminal hands over whole; nothing of it after Ctrl+D.
    return pressed.is_set() and bool(os.read(sys.stdin.fileno(), 4096))


_app.callback(invoke_without_command=True, cls=GroupedHelp, help=_HELP, epilog=_EPILOG)(
    command_with_options(RunOptions, _bench, list_scenarios=_List, version=_Version)
)
_app.command(
    "compare",
    cls=compare_command.CompareCommand,
    help=compare_command.HELP,
    epilog=compare_command.EPILOG,
)(compare_command.compare)
_app.command("cost", help=cost_command.HELP)(cost_command.cost)
_app.command("sandbox", help=sandbox_command.HELP)(sandbox_command.sandbox)
_app.add_typer(
    tokens_command.app, name="tokens", help=tokens_command.HELP, epilog=tokens_command.EPILOG
)
_app.command("schema", help=schema_command.HELP)(schema_command.schema)
_app.command("sweep", cls=GroupedCommand, help=sweep_command.HELP, epilog=sweep_command.EPILOG)(
    command_with_options(SweepOptions, sweep_command.run, sweep_command.REFUSED)
)
