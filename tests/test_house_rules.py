"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import cli as bench_cli
from tests.support import module_map
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.cli import cli
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.sandbox.behaviour import ProviderProfile
from xoauth2_proxy.sandbox.faults import Action, Step, TokenAction
from xoauth2_proxy.sandbox.profiles import PROFILES

ROOT = Path(__file__).parent.parent
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
]
README = (ROOT / "README.md").read_text()
SANDBOX_GUIDE = (ROOT / "docs" / "sandbox.md").read_text()
GUIDES = README + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))

PROGRAMS = {
    "xoauth2-proxy": (
        cli,
        ("check", "credential add", "doctor", "health", "login", "schema", "status", "token"),
    ),
    "xoauth2-bench": (
        bench_cli._app,
        ("compare", "cost", "sandbox", "schema", "sweep", "tokens"),
    ),
}


def test_the_example_configuration_loads_as_it_is(tmp_path: Path) -> None:
    config = ConfigSource(ROOT / "accounts.example.json", Overrides(), tmp_path).load(
        BUILT_IN_REFRESHERS, {}
    )
    assert len(config.accounts) == 5
    assert config.disabled_accounts == 5


@pytest.mark.parametrize("name", ["xoauth2-proxy", "xoauth2-bench"])
def test_every_option_in_the_documents_exists(name: str) -> None:
    shown = {
        option
        for line in re.findall(rf"{name}[^`\n]*", GUIDES)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
    }
    program, commands = PROGRAMS[name]
    environ = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    helps = ""
    for words in ((), *map(str.split, commands)):
        result = CliRunner().invoke(program, [*words, "--help"], env=environ)
        assert result.exit_code == 0, words
        helps += result.stdout
    assert shown
    assert [option for option in sorted(shown) if option not in helps] == []


@pytest.mark.parametrize("kind", [Step, Action, TokenAction])
def test_every_step_and_action_of_faults_is_in_the_guide(
    kind: type[Step | Action | TokenAction],
) -> None:
    faults = SANDBOX_GUIDE.partition("## Faults")[2]
    if kind is TokenAction:
        faults = faults.partition("| at `token` |")[2]
    else:
        faults = faults.partition("| at `token` |")[0]
    assert [word.value for word in kind if f"`{word.value}`" not in faults] == []


def test_the_guides_figures_are_the_profiles() -> None:
    rows = re.findall(
        r"^\| `(\w+)`[^|]*\| (\w+) \| (\w+) \| (\w+) \|$", SANDBOX_GUIDE, re.MULTILINE
    )
    assert len(rows) == 11
    for name, *said in rows:
        figures = [getattr(PROFILES[profile], name) for profile in ProviderProfile]
        shown = [f"{one:g}" if isinstance(one, float) else str(one) for one in figures]
        assert said == shown, name


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (path for path in TRACKED if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_decision_records_are_short() -> None:
    for record in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(record.read_text().splitlines()) <= 40, record.name


def test_dependencies_each_have_their_reason() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        name = re.split(r"[<>=; ]", requirement)[0]
        assert re.search(rf"^\|.*\b{name}\b.*\|", architecture, re.MULTILINE), name


def test_the_map_of_the_architecture_is_that_of_the_modules() -> None:
    assert module_map.written_map() == module_map.expected_map(), "make map writes it anew"


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    for path in TRACKED:
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in ("xoauth2_proxy", "bench"):
            line = module_map.summary(path)
            assert line.endswith((".", ")", "?")), f"{path}: {line}"
