"""`xoauth2-bench cost`: its options, output and exit code.

Exit codes: 0 every message arrived; 1 otherwise, or a goal was missed with --strict; 2 incorrect
usage; 130 or 143 stopped by SIGINT or SIGTERM.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperCommand

from bench.cost import json_document, table
from bench.cost.cost_run import CostRun
from bench.cost.figures import CostResults
from bench.cost.goals import GoalVerdict, goals
from bench.cost.workloads import (
    DEFAULT_RELAYS,
    WORKLOADS,
    CostPlan,
    RelayName,
    workloads,
)
from bench.options import duration
from bench.options.dataclass_options import single_command
from bench.process import process_meter
from bench.process.child_process import ChildError, StartInterrupted
from bench.process.interruption import Interruption
from bench.process.open_files import raise_open_file_limit
from bench.process.server_process import loop_factory
from bench.reports import json_export

_MAX_REPEAT = 100

HELP = """Measure what a relay process costs per message, for controls and for this proxy.

Starts everything it needs on loopback: sandbox providers, a plain TCP forwarder (splice), a relay
built from stock libraries (naive), and this proxy, with CHUNKING at the provider and without
(proxy-data). The relays take turns. Linux only. Takes about four minutes; run it on a machine that
is otherwise idle.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CostOutput:
    path: Path | None  # None: no file
    is_json: bool
    is_strict: bool


def cost(  # noqa: PLR0913 - one parameter an option
    *,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORKLOAD",
            help=f"Workload to measure: {', '.join(WORKLOADS)}. Repeatable. Default: all.",
        ),
    ] = None,
    relay: Annotated[
        list[RelayName] | None,
        typer.Option(
            metavar="NAME",
            help=f"Relay to measure: {', '.join(RelayName)}. Repeatable. "
            "Default: all but proxy-asyncio.",
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=_MAX_REPEAT,
            help="Measurements of each; medians are reported. Default: 3, or 1 for memory and "
            "idle.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Send fewer messages and measure once, in under a minute."),
    ] = False,
    pipelined: Annotated[
        bool,
        typer.Option(
            "--pipelined", help="Send MAIL, RCPT and DATA in one write, which few clients do."
        ),
    ] = False,
    rtt: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Delay of each reply of the provider in the workload rtt."
        ),
    ] = "40ms",
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Also write the JSON to this file.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if a goal is missed.")
    ] = False,
) -> None:
    """Measure the workloads and report."""
    unknown = [name for name in workload or () if name not in WORKLOADS]
    if unknown:
        names = ", ".join(WORKLOADS)
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {names}.", param_hint="--workload")
    try:
        rtt_seconds = duration.seconds(rtt)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rtt") from None
    if not process_meter.is_available():
        print("The cost of a process is measured on Linux only.", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1)
    plan = CostPlan(
        workloads=tuple(workloads(tuple(workload or ()), is_quick=quick)),
        relays=tuple(relay or DEFAULT_RELAYS),
        repeat=repeat or (1 if quick else None),
        is_quick=quick,
        is_pipelined=pipelined,
        rtt_seconds=rtt_seconds,
    )
    raise_open_file_limit()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(
            _measure_and_report(plan, _CostOutput(path=output, is_json=as_json, is_strict=strict))
        )
    raise typer.Exit(code)


async def _measure_and_report(plan: CostPlan, out: _CostOutput) -> int:
    started_at, started = datetime.now(UTC), time.perf_counter()
    with Interruption() as interruption:
        running = asyncio.create_task(CostRun(plan, interruption, _announce).run())

        def stop() -> None:
            running.cancel()

        interruption.on_request.add(stop)
        try:
            results = await running
        except (asyncio.CancelledError, StartInterrupted):
            if not interruption.exit_code:
                raise
            print("Stopped; no report was written.", file=sys.stderr)  # noqa: T201
            return interruption.exit_code
        except ChildError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
        finally:
            interruption.on_request.discard(stop)
    return _report(plan, results, out, started_at, time.perf_counter() - started)


def _announce(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _report(
    plan: CostPlan, results: CostResults, out: _CostOutput, started_at: datetime, seconds: float
) -> int:
    found = goals(results, plan.rtt_seconds)
    document = json_document.document(plan, results, found, started_at, seconds)
    is_saved = True
    if out.path is not None:
        try:
            json_export.write(document, out.path)
        except OSError as error:
            is_saved = False
            print(f"The results could not be saved: {error}", file=sys.stderr)  # noqa: T201
    if out.is_json:
        print(json_export.encode(document), end="")  # noqa: T201
    else:
        table.show(Console(highlight=False), results, found)
    is_missed = any(goal.verdict is GoalVerdict.MISSED for goal in found)
    has_succeeded = (
        is_saved
        and not any(row.error for one in results.measured for row in one.rows)
        and not (out.is_strict and is_missed)
    )
    return 0 if has_succeeded else 1


def command() -> TyperCommand:
    """Return the sub-command."""
    return single_command("cost", cost, help=HELP)
