"""docs/token-manager.md says what is so: its examples run, and its tables name what there is."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xoauth2_proxy.token_manager as api
from tests.support.token_endpoint import TokenEndpoint
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GUIDE = (Path(__file__).parents[2] / "docs" / "token-manager.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as running:
        yield running


async def test_the_first_example_runs_as_it_is(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    written = '"https://login.example.com/oauth2/token"'
    assert written in EXAMPLES[0]
    program = tmp_path / "first.py"
    program.write_text(EXAMPLES[0].replace(written, repr(endpoint.token_url)))
    done = run(program)
    assert done.stdout.endswith("invoices.read invoices.write\n")
    (request,) = endpoint.token_requests
    assert request.form["audience"] == "https://api.example.com"


async def test_the_provider_of_ones_own_works_as_it_is_written() -> None:
    (example,) = [one for one in EXAMPLES if "class Fake" in one]
    async with api.TokenManager() as tokens:
        exec(example, {"tokens": tokens})  # what the reader types
        assert (await tokens.get_token("billing")).access_token == "for a test"


def test_every_example_is_python() -> None:
    for example in EXAMPLES:
        compile(
            f"async def typed():\n    {example.replace(chr(10), chr(10) + '    ')}", "guide", "exec"
        )


def test_the_methods_of_the_table_are_those_there_are() -> None:
    table = GUIDE.partition("| method | does |")[2].partition("\n\n")[0]
    told = set(re.findall(r"^\| `(?:await )?(\w+)\(", table, re.MULTILINE))
    for kind in (api.TokenManager, api.BlockingTokenManager):
        there = {name for name in dir(kind) if not name.startswith("_")}
        assert there - {"blocking", "is_closed", "open"} == told


def test_the_parameters_of_the_providers_are_those_there_are() -> None:
    table = GUIDE.partition("| provider | for |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)\(([^)]*)\)`", table, re.MULTILINE)
    assert {name for name, _ in rows} == {"ClientCredentials", "Google", "Microsoft", "SignedIn"}
    for name, parameters in rows:
        there = {field.name for field in dataclasses.fields(getattr(api, name))}
        assert set(re.split(r", | or ", parameters)) <= there, name


def test_the_errors_of_the_table_are_those_there_are() -> None:
    table = GUIDE.partition("| requirement | here |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| [^|]+ \| `(\w+)`", table, re.MULTILINE)
    families = {name for name, kind in vars(errors).items() if is_token_error(kind)}
    assert set(named) == families | {"ConfigError"}
    assert issubclass(api.ManagerClosed, errors.TokenError)


def is_token_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, errors.TokenError)


def run(program: Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, while the test's own servers go on in their threads."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
