from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from bench.commands.compare import EPILOG, HELP, CompareCommand, compare
from bench.options.multi_value import repeat_option
from tests.benchmark.runs import strict_json
from tests.support.run_documents import run_document, steady

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

app = typer.Typer(rich_markup_mode=None)
app.command("compare", cls=CompareCommand, help=HELP, epilog=EPILOG)(compare)


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def save(folder: Path, name: str, document: object) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


def run(scale: float = 1.0, **changes: Any) -> dict[str, Any]:
    return run_document(steady(100, 0.01 * scale, per_second=100 / scale), **changes)


@pytest.fixture
def before(tmp_path: Path) -> list[Path]:
    return [save(tmp_path, f"before{at}", run(1 + at / 1000)) for at in range(4)]


@pytest.fixture
def slower(tmp_path: Path) -> list[Path]:
    return [save(tmp_path, f"after{at}", run(1.5 + at / 1000)) for at in range(4)]


def test_two_files_are_the_two_sides(before: list[Path], slower: list[Path]) -> None:
    done = ran(before[0], slower[0])
    assert done.exit_code == 0
    assert "Verdict: cannot tell" in done.stdout
    assert "1 baseline against 1 candidate" in done.stdout


def test_all_files_after_with_are_the_other_side(before: list[Path], slower: list[Path]) -> None:
    done = ran(*before, "--with", *slower, "--json")
    document = strict_json(done.stdout)
    assert (len(document["baseline"]), len(document["candidate"])) == (4, 4)
    assert document["kind"] == "comparison"
    assert document["verdict"] == "worse"
    assert ran(*before, "--json", "--with", *slower).stdout == done.stdout


def test_worse_fails_only_when_that_was_asked_for(before: list[Path], slower: list[Path]) -> None:
    assert ran(*before, "--with", *slower).exit_code == 0
    assert ran(*before, "--fail-on-worse", "--with", *slower).exit_code == 1
    assert ran(*slower, "--with", *before, "--fail-on-worse").exit_code == 0
    assert ran(before[0], slower[0], "--fail-on-worse").exit_code == 0  # nothing was shown
    allowed = ran(*before, "--with", *slower, "--fail-on-worse", "--min-change", "60%")
    assert allowed.exit_code == 0


def test_too_few_runs_never_fail_a_build_and_say_how_many_it_takes(
    before: list[Path], slower: list[Path]
) -> None:
    done = ran(*before[:3], "--with", *slower[:3], "--fail-on-worse")
    assert done.exit_code == 0
    assert "Verdict: cannot tell" in done.stdout
    assert "at least 4 times" in done.stdout


def test_a_lost_message_fails_too(tmp_path: Path) -> None:
    clean, losing = save(tmp_path, "a", run()), save(tmp_path, "b", run(reconciliation__lost=1))
    assert ran(clean, losing, "--fail-on-worse").exit_code == 1


def test_json_and_page_are_written(tmp_path: Path, before: list[Path], slower: list[Path]) -> None:
    page, output = tmp_path / "page.html", tmp_path / "out.json"
    done = ran(before[0], slower[0], "--html", page, "--output", output, "--json")
    assert output.read_text() == done.stdout
    assert "<title>Comparison: cannot tell</title>" in page.read_text()


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path, before: list[Path]) -> None:
    done = ran(before[0], before[1], "--html", tmp_path / "none" / "page.html")
    assert done.exit_code == 1
    assert "page.html could not be written" in done.stderr
    assert "Verdict" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ('{"schema_version": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "not a document of xoauth2-bench"),
        ('{"schema_version": 1}', "has schema_version 1; this program reads 2"),
        ('{"schema_version": 2, "kind": "sweep"}', "of kind 'sweep'; a run is needed"),
        ('{"schema_version": 2, "kind": "run"}', "the document has no config.model"),
    ],
)
def test_a_file_that_is_none_of_a_run_is_named_with_the_reason(
    tmp_path: Path, before: list[Path], text: str, words: str
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(text)
    done = ran(before[0], wrong)
    assert done.exit_code == 2
    assert str(wrong) in done.stderr
    assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("results__throughput_rps", "many"),
        ("results__success_rate", True),
        ("results__success_rate", -0.5),
        ("results__throughput_rps", 10**400),
        ("timestamp", 5),
        ("results__latency", [1]),
        ("config", None),
        ("generator", {}),
    ],
)
def test_a_damaged_document_is_refused(
    tmp_path: Path, before: list[Path], field: str, value: object
) -> None:
    changes: dict[str, Any] = {field: value}
    wrong = save(tmp_path, "wrong", run(**changes))
    done = ran(before[0], wrong)
    assert done.exit_code == 2
    assert f"{wrong}: " in done.stderr


def test_a_missing_file_is_named(tmp_path: Path, before: list[Path]) -> None:
    done = ran(before[0], tmp_path / "none.json")
    assert done.exit_code == 2
    assert "none.json cannot be read: No such file" in done.stderr


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("a --with b c", "a --with b --with c"),
        ("--with b --json", "--with b --json"),
        ("--with b --with c d", "--with b --with c --with d"),
        ("--with=b c", "--with=b c"),
        ("a --with", "a --with"),
        ("a --with --json", "a --with --json"),
        ("a b", "a b"),
    ],
)
def test_an_option_takes_the_words_up_to_the_next_one(given: str, read: str) -> None:
    assert repeat_option(given.split(), "--with") == read.split()


def test_with_alone_is_refused(before: list[Path]) -> None:
    done = ran(before[0], "--with")
    assert done.exit_code == 2
    assert "--with" in done.stderr


@pytest.mark.parametrize("count", [1, 3])
def test_without_with_there_are_two_files(before: list[Path], count: int) -> None:
    done = ran(*before[:count])
    assert done.exit_code == 2
    assert "--with" in done.stderr


def test_the_same_run_twice_is_no_repetition(before: list[Path], slower: list[Path]) -> None:
    done = ran(before[0], before[0], "--with", slower[0])
    assert done.exit_code == 2
    assert "given twice" in done.stderr


def test_a_copy_is_no_repetition_however_it_is_written(
    tmp_path: Path, before: list[Path], slower: list[Path]
) -> None:
    copy = tmp_path / "copy.json"
    again = dict(reversed(json.loads(before[0].read_text()).items()))
    copy.write_text(json.dumps(again, indent=7))
    for arguments in ([before[0], copy, "--with", slower[0]], [before[0], copy]):
        done = ran(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{copy} is the same run as {before[0]}" in done.stderr


def test_words_of_a_document_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;pwned\x07\x9b31m\u202egnp.exe\ud800\nVerdict: better"
    changes: dict[str, Any] = {
        "generator__was_bottleneck": True,
        "generator__reason": evil,
        f"config__{evil}": 1,
    }
    for form in ((), ("--json",)):
        done = ran(save(tmp_path, "a", run()), save(tmp_path, "b", run(**changes)), *form)
        assert done.exit_code == 0
        assert "pwned" in done.stdout
        assert not set(done.stdout) & set("\x1b\x07\x9b")
    shown = ran(tmp_path / "a.json", tmp_path / "b.json").stdout
    assert "\u202e" not in shown
    assert shown.count("\nVerdict: ") == 1
    wrong = save(tmp_path, "wrong", {"schema_version": evil})
    refused = ran(wrong, wrong.with_name("a.json"))
    assert (refused.exit_code, "\x1b" in refused.stderr) == (2, False)


@pytest.mark.parametrize("text", ["5 apples", "-1%", "100%", "1e3"])
def test_a_percentage_is_one(before: list[Path], text: str) -> None:
    assert ran(before[0], before[1], f"--min-change={text}").exit_code == 2


def test_the_help_teaches_how_often_to_measure() -> None:
    done = ran("--help")
    assert "four times, preferably five" in " ".join(done.stdout.split())
    assert "compare before?.json --with after?.json" in done.stdout
