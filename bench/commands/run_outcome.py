"""The outcome of a command's runs: documents, terminal output and exit code."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from bench.analysis import assertions, comparison
from bench.client.connection import NO_ANSWER, NO_TLS, TLS_FAILED
from bench.client.endpoint import Tls
from bench.plan.scenarios import COMPARE
from bench.reports import comparison_table, formatting, html_export, json_export, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.measurement.result import Run
    from bench.options.request_builder import OutputOptions
    from bench.process.interruption import Interruption
    from bench.runs.run_request import RunRequest

_ALONE = (
    "Without a second side to compare with, each run has its own document: measure the other "
    "side later, and give both to xoauth2-bench compare."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """The runs of a command and the documents to write."""

    runs: list[Run]
    document: dict[str, object]  # of the one run, or of the comparison
    alone: list[dict[str, object]]  # of each run, if there is no other side

    @property
    def is_comparison(self) -> bool:
        """Whether there are two sides."""
        return self.document["kind"] == "comparison"


def of_runs(before: list[Run], after: list[Run], expressions: Sequence[str] = ()) -> RunOutcome:
    """Return the outcome of these runs; `after` is a comparison's other side, empty for none."""
    first, second = ([json_export.document(run) for run in side] for side in (before, after))
    if second:
        return RunOutcome(runs=before + after, document=comparison.compare(first, second), alone=[])
    document = first[-1]
    document["assertions"] = assertions.check(document, expressions)
    return RunOutcome(runs=before, document=document, alone=first if len(first) > 1 else [])


def exit_code(
    request: RunRequest, outcome: RunOutcome, interruption: Interruption, *, is_saved: bool
) -> int:
    """Return the exit code: 0 success, 1 failure, 2 an assertion not met; or the signal's.

    A signal that came after everything was done does not count.
    """
    is_whole = outcome.is_comparison or request.plan.scenario != COMPARE
    if not is_whole or outcome.document["partial"]:
        return interruption.exit_code or 1
    checked = outcome.document.get("assertions")
    if isinstance(checked, list) and checked:
        if not all(one["is_met"] for one in checked):
            return 2
        return 0 if is_saved and all(run.is_intact for run in outcome.runs) else 1
    return 0 if is_saved and all(run.is_success for run in outcome.runs) else 1


def report(request: RunRequest, outcome: RunOutcome, out: OutputOptions) -> bool:
    """Write the reports and print the results; return whether the reports were written."""
    saved: list[Path] = []
    complaints: list[str] = []
    for path, write, document in _files(outcome, out):
        try:
            write(document, path)
            saved.append(path)
        except OSError as error:
            complaints.append(f"The results could not be saved: {error}")
    try:
        if out.is_json:
            print(json_export.encode(outcome.document), end="", flush=True)  # noqa: T201
        else:
            _print_report(outcome, saved)
    except BrokenPipeError:
        raise  # the reader has read enough
    except OSError as error:
        complaints.append(f"The results could not be printed: {error}")
    advice = (_advice(request, outcome.runs), _ALONE if outcome.alone else "")
    for line in filter(None, (*complaints, *_log(outcome.runs), *advice)):
        with suppress(OSError):  # of a terminal that was closed
            print(line, file=sys.stderr)  # noqa: T201
    return not complaints


def _files(
    outcome: RunOutcome, out: OutputOptions
) -> Iterator[tuple[Path, Callable[[Mapping[str, object], Path], None], dict[str, object]]]:
    if out.html is not None:
        yield out.html, html_export.write, outcome.document
    if out.path is None:
        return
    if not outcome.alone:
        yield out.path, json_export.write, outcome.document
    for number, document in enumerate(outcome.alone, 1):
        path = out.path.with_stem(f"{out.path.stem}-before{number}")
        yield path, json_export.write, document


def _print_report(outcome: RunOutcome, saved: list[Path]) -> None:
    console = Console(highlight=False)
    runs, document = outcome.runs, outcome.document
    if len(runs) == 1 or not all(run.is_success for run in runs):
        terminal.show(console, "\n".join(terminal.render(run) for run in runs))
    else:
        terminal.show(console, terminal.render(runs[-1]))
    if outcome.is_comparison:
        terminal.show(console, "\n" + terminal.heading("COMPARISON"))
        comparison_table.show(console, document)
    checked = document.get("assertions")
    if isinstance(checked, list) and checked:
        terminal.show(console, "\n" + terminal.render_assertions(checked))
    if saved:
        paths = ", ".join(map(str, saved))
        terminal.show(console, f"\nResults saved to: {paths}\n")


def _log(runs: list[Run]) -> list[str]:
    """Return the log of the last private proxy that had failures; it is not shown elsewhere."""
    lines = next((run.target_log for run in reversed(runs) if run.target_log), ())
    shown = [f"    {formatting.harmless(line)}" for line in lines]
    return ["The last lines of the private proxy's log:", *shown] if shown else []


def _advice(request: RunRequest, runs: list[Run]) -> str:
    failures = {error.failure for run in runs for error in run.result.errors}
    codes = {one.code for one in failures}
    is_mock = request.secret is None and request.mechanism.takes_token
    if "535" in codes and is_mock and not request.target.is_private:
        return (
            "Mock tokens were refused (535): is the proxy running with --sandbox and the same "
            f"--state-dir ({request.target.state_dir})?"
        )
    if any(one.text == NO_TLS for one in failures):
        return "The port does not begin with TLS: give --tls starttls, or none."
    is_greeted = any(run.result.succeeded for run in runs) or request.target.tls is Tls.IMPLICIT
    if not is_greeted and any(
        one.step == "CONNECT" and one.text.startswith(NO_ANSWER) for one in failures
    ):
        return "The server does not greet. If its port begins with TLS, give --tls implicit."
    if TLS_FAILED in codes:
        return "The server's certificate was not accepted: give the CA certificate with --ca-file."
    return ""
