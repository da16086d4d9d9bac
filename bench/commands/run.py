"""`xoauth2-bench` without a sub-command: a run, or the runs of a comparison."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from bench.commands import run_outcome
from bench.options.request_builder import output_of, request_of
from bench.plan.scenarios import COMPARE
from bench.process.child_process import StartInterrupted
from bench.process.interruption import Interruption
from bench.process.server_process import loop_factory
from bench.reports.progress import Progress
from bench.runs.run import run_once, run_sides
from bench.targets.target_request import TargetError

if TYPE_CHECKING:
    from collections.abc import Collection

    from bench.options.request_builder import OutputOptions
    from bench.options.run_options import RunOptions
    from bench.plan.scenarios import RunPlan
    from bench.runs.run_request import RunRequest

_PROMPT_ABOVE_EMAILS = 500


def run(options: RunOptions, given: Collection[str]) -> NoReturn:
    """Carry out the run and report; `given` names the options on the command line.

    Raises:
        typer.Exit: with the exit code.
        typer.BadParameter: an option is invalid or conflicts with another.
    """
    if options.scenario_file is None:
        request = request_of(options)
    else:
        from bench.options import scenario_request  # with pydantic

        options, request = scenario_request.applied(options.scenario_file, options, given)
    out = output_of(options)
    _confirm(request.plan, out)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_bench_and_report(request, out))
    raise typer.Exit(code)


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
            progress.announce("Stopped before a message was sent.", even_if_silent=True)
            return interruption.exit_code
        found = run_outcome.of_runs(before, after, out.assertions)
        is_saved = run_outcome.report(request, found, out)
        return run_outcome.exit_code(request, found, interruption, is_saved=is_saved)


async def _pause(interruption: Interruption, out: OutputOptions) -> bool:
    """Wait for ENTER; return whether to continue."""
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
    # A terminal delivers the whole line; after Ctrl+D, none of it.
    return pressed.is_set() and bool(os.read(sys.stdin.fileno(), 4096))
