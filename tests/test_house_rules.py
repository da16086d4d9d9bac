"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.sandbox.behaviour import PROFILES, ProviderProfile
from xoauth2_proxy.sandbox.faults import Action, Step, TokenAction

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


def test_the_example_configuration_loads_as_it_is(tmp_path: Path) -> None:
    config = ConfigSource(ROOT / "accounts.example.json", Overrides(), tmp_path).load({"mock"}, {})
    assert len(config.accounts) == 4
    assert config.disabled_accounts == 5


@pytest.mark.parametrize("command", ["xoauth2_proxy", "bench"])
def test_every_option_in_the_documents_exists(command: str) -> None:
    name = {"xoauth2_proxy": "xoauth2-proxy", "bench": "xoauth2-bench"}[command]
    shown = {
        option
        for line in re.findall(rf"{name}[^`\n]*", GUIDES)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
    }
    helps = "".join(
        subprocess.run(
            [sys.executable, "-m", command, *words, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        ).stdout
        for words in _commands(command)
    )
    assert shown
    assert [option for option in sorted(shown) if option not in helps] == []


def _commands(package: str) -> list[list[str]]:
    sub = {
        "xoauth2_proxy": ["check", "doctor", "health", "login", "schema", "status"],
        "bench": ["compare", "cost", "sandbox", "schema", "sweep", "tokens"],
    }
    return [[], *([name] for name in sub[package])]


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
