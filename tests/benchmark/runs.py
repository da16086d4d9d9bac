"""Plans, runs and command-line processes for the tests of the benchmarker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager, chdir, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jsonschema
from typer.testing import CliRunner

from bench import cli
from bench.commands import schema as schema_command
from bench.load.generator_usage import GeneratorUsage
from bench.measurement.result import Environment, NotReconciled, Run
from bench.measurement.sample import Sample, SendFailure
from bench.plan.arrivals import Pace
from bench.plan.scenarios import RunPlan
from bench.plan.workloads import Sizes, Workload
from bench.reports import json_export
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Iterable, Mapping

    from bench.measurement.recorder import Recorder
    from bench.measurement.result import Reconciliation, Result

MAILBOX = "test.account1@gmail.com"
_SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_command.text()))


SMALL = Workload(sizes=Sizes.parse("600"))


def plan(num_emails: int = 10, concurrent: int = 2, **changes: Any) -> RunPlan:
    values: dict[str, Any] = {
        "scenario": "custom",
        "pace": Pace(num_emails=num_emails),
        "mailboxes": (MAILBOX,),
        "to_email": "recipient@outlook.com",
        "workload": SMALL,
        "drain_seconds": 10.0,
    }
    return RunPlan(concurrent=concurrent, **(values | changes))


def run_of(
    result: Result,
    reconciliation: Reconciliation | NotReconciled | None = None,
    **changes: Any,
) -> Run:
    run = Run(
        started_at=datetime(2025, 11, 20, 5, 45, tzinfo=UTC),
        target="127.0.0.1:2525",
        tls="none",
        mechanism="plain",
        plan=plan(result.planned or 1),
        result=result,
        reconciliation=reconciliation or NotReconciled("no sandbox"),
        generator=GeneratorUsage().figures(result.attempted, 0),
        environment=Environment(
            python="3.11",
            platform="test",
            cpu_count=1,
            bench_version="0",
            loop="asyncio",
            load_average=None,
        ),
    )
    return replace(run, **changes)


def sample(number: int, outcome: str | float, **changes: Any) -> Sample:
    """A number is a success of that latency, a word a failure."""
    seconds = 9.0 if isinstance(outcome, str) else outcome
    values: dict[str, Any] = {"latency_seconds": seconds, "service_seconds": seconds}
    if isinstance(outcome, str):
        values["failure"] = SendFailure(outcome, "because")
    else:
        values["transaction_seconds"] = seconds
    return Sample(number=number, **(values | changes))


def settle(recorder: Recorder, outcomes: Iterable[str | float]) -> None:
    """Settle messages in order."""
    for number, outcome in enumerate(outcomes):
        recorder.add(sample(number, outcome))


def strict_json(text: str) -> dict[str, Any]:
    """Parse JSON that must not hold NaN or Infinity."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is not JSON")

    document = json.loads(text, parse_constant=refuse)
    assert isinstance(document, dict)
    return document


def exported(run: Run) -> dict[str, Any]:
    document = strict_json(json_export.encode(json_export.document(run)))
    validate(document)
    return document


def validate(document: dict[str, Any]) -> None:
    """Hold a run's document against the published schema."""
    errors = [f"{error.json_path}: {error.message}" for error in _SCHEMA.iter_errors(document)]
    assert not errors, errors


class Command:
    """A running xoauth2-bench."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._errors = ""

    async def error_text(self, words: str) -> None:
        """Return when standard error says this."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while words not in self._errors:
                part = await self.process.stderr.read(4096)
                assert part, f"ended without saying {words!r}: {self._errors}"
                self._errors += part.decode()

    async def end(self, timeout_seconds: float = PATIENCE_SECONDS) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error when it has ended."""
        async with asyncio.timeout(timeout_seconds):
            out, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), self._errors + errors.decode()


@asynccontextmanager
async def command(
    folder: Path,
    *arguments: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Command]:
    """Start xoauth2-bench in `folder`; it is killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench",
        *arguments,
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"} | dict(environment or {}),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def invoked(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Return what `outcome` would, without a process, whose imports take longer than most runs."""
    with chdir(folder):
        result = CliRunner().invoke(cli._app, arguments, prog_name="xoauth2-bench", env=environment)
    return result.exit_code, result.stdout, result.stderr


async def outcome(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run xoauth2-bench in `folder` to its end."""
    async with command(folder, *arguments) as running:
        return await running.end()


def process_of(module: str, words: str) -> int:
    """Return the id of the process that runs `python -m module` with these words."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            line = path.read_bytes().decode(errors="replace")
            if f"-m\0{module}\0" in line and words in line:  # not its guard
                return int(path.parent.name)
    raise AssertionError(f"no process runs {module}")


def only_file(folder: Path) -> Path:
    """Return the one result file in `folder`."""
    (path,) = folder.glob("xoauth2-bench-*.json")
    return path
