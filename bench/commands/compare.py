"""`xoauth2-bench compare`: its options, output and exit code.

Exit codes: 0 compared, 1 the verdict is worse (with --fail-on-worse) or a report could not be
written, 2 incorrect usage, a file that is not the document of a run, or the same run twice.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperCommand

from bench.analysis import comparison
from bench.analysis.documents import Document, DocumentError, read
from bench.analysis.verdict import Verdict
from bench.options.dataclass_options import single_command
from bench.options.multi_value import repeat_option
from bench.reports import comparison_table, formatting, html_export, json_export

_MAX_RUNS = 100  # a side
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%?")

HELP = """Tell whether a change made a difference by comparing repeated runs before and after it.

BASELINE is the JSON file of a run before the change. Give the files of all such runs, or just two
files to compare.

One run on each side is never enough, because two runs of the same relay differ as well. Measure
each side at least four times, preferably five, taking turns. The verdict and --fail-on-worse rest
on a few figures: throughput (with --arrival-rate: p95 latency and dropped messages) and the success
rate, decided together with 95 % confidence. Mail that was lost, duplicated or changed on one side
only decides after a single run. The other figures are shown with the interval of their change, and
each is judged on its own.
"""
# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Before and after, five runs each, in turn (two relays, ports 2525 and 2526):
  for n in 1 2 3 4 5; do
    xoauth2-bench --scenario baseline --use-mock-tokens --port 2525 --output before$n.json
    xoauth2-bench --scenario baseline --use-mock-tokens --port 2526 --output after$n.json
  done
  xoauth2-bench compare before?.json --with after?.json --html compared.html

\b
Two runs, for their figures side by side:
  xoauth2-bench compare before.json after.json

\b
In CI, where a loss of less than 5 % does not matter:
  xoauth2-bench compare main?.json --with branch?.json --fail-on-worse --min-change 5%
"""


class CompareCommand(TyperCommand):
    """A command whose `--with` takes all the files that follow it, as from a shell's wildcard."""

    # typer has no public name for what its commands are really given.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Return the remaining arguments; `--with A B` is read as `--with A --with B`."""
        return super().parse_args(ctx, repeat_option(args, "--with"))


def compare(  # noqa: PLR0913 - one parameter an option
    *,
    baseline: Annotated[
        list[Path],
        typer.Argument(metavar="BASELINE", hidden=True),
    ],
    candidate: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", metavar="CANDIDATE", help="JSON files of the runs after the change."
        ),
    ] = None,
    min_change: Annotated[
        str, typer.Option(metavar="CHANGE", help="Smallest change that counts as better or worse.")
    ] = "0%",
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit with code 1 if the verdict is worse.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write a report with charts to this HTML file."
        ),
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON.")] = False,
) -> None:
    """Read the documents, compare them and report."""
    before, after = _sides(baseline, candidate or [])
    share = _share(min_change)
    try:
        runs = _runs([*before, *after])
        first, second = runs[: len(before)], runs[len(before) :]
        document = comparison.compare(first, second, min_change=share)
    except DocumentError as error:
        print(formatting.harmless(str(error)), file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from None
    is_saved = _save(document, html, output)
    if as_json:
        print(json_export.encode(document), end="")  # noqa: T201
    else:
        comparison_table.show(Console(highlight=False), document)
    is_worse = document["verdict"] in (Verdict.WORSE, Verdict.MIXED)
    raise typer.Exit(1 if not is_saved or (fail_on_worse and is_worse) else 0)


def _sides(baseline: list[Path], candidate: list[Path]) -> tuple[list[Path], list[Path]]:
    if not candidate and len(baseline) == 2:
        return baseline[:1], baseline[1:]
    if not candidate:
        raise typer.BadParameter(
            "give the runs to compare with after --with, or just two files.", param_hint="--with"
        )
    for side in (baseline, candidate):
        if len(side) > _MAX_RUNS:
            raise typer.BadParameter(f"{len(side)} files; at most {_MAX_RUNS} a side.")
    files = [path.resolve() for path in (*baseline, *candidate)]
    for path in files:
        if files.count(path) > 1:
            # The same run given twice would look like two runs that agree.
            raise typer.BadParameter(f"{path} is given twice.")
    return baseline, candidate


def _share(text: str) -> float:
    match = _PERCENT.fullmatch(text.strip())
    if match is None or float(match[1]) >= 100:
        raise typer.BadParameter(
            f"{text!r} is not a percentage like 5%.", param_hint="--min-change"
        )
    return float(match[1]) / 100


def _runs(paths: list[Path]) -> list[Document]:
    documents = []
    seen: dict[bytes, Path] = {}
    for path in paths:
        document = read(path, "run")
        try:
            comparison.compare([document], [document])
        except DocumentError as error:
            raise DocumentError(f"{path}: {error}") from None
        first = seen.setdefault(_digest(document), path)
        if first is not path:
            # A copy would look like another run that agrees.
            raise DocumentError(f"{path} is the same run as {first}: a copy is no repetition")
        documents.append(document)
    return documents


def _digest(document: Document) -> bytes:
    """Return a digest of the content that does not depend on its JSON formatting."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


def _save(document: dict[str, object], html: Path | None, output: Path | None) -> bool:
    is_saved = True
    for path, writer in ((html, html_export.write), (output, json_export.write)):
        if path is None:
            continue
        try:
            writer(document, path)
        except OSError as error:
            is_saved = False
            print(f"{path} could not be written: {error}", file=sys.stderr)  # noqa: T201
    return is_saved


def command() -> TyperCommand:
    """Return the sub-command."""
    return single_command("compare", compare, cls=CompareCommand, help=HELP, epilog=EPILOG)
