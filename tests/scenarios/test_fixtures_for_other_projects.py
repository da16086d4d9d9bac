"""The fixtures that pytest has once the program is installed, as docs/testing.md shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy_process import ROOT
from xoauth2_proxy.testing.proxy_process import ProxyProcess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_pytest(project: Path, *arguments: str) -> str:
    """Run the tests of a project of somebody's; return what pytest prints."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_the_example_of_the_documentation_passes_as_it_is(tmp_path: Path) -> None:
    example, _ = _PYTHON.findall((ROOT / "docs" / "testing.md").read_text())
    (tmp_path / "test_mail.py").write_text(example)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert " 7 passed" in run_pytest(tmp_path)


def test_the_example_without_pytest_runs_as_it_is(tmp_path: Path) -> None:
    _, example = _PYTHON.findall((ROOT / "docs" / "testing.md").read_text())
    (tmp_path / "example.py").write_text(example)
    command = [sys.executable, "-W", "error", "example.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("user0000@mock.example\n")


def test_settings_of_the_sandbox_are_read_from_pytests_configuration(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nxoauth2_sandbox_settings = outlook.json\n")
    (tmp_path / "outlook.json").write_text('{"profile": "outlook"}')
    (tmp_path / "test_words.py").write_text(
        "import smtplib\n"
        "def test_it_speaks_as_outlook(xoauth2_sandbox):\n"
        "    with smtplib.SMTP(xoauth2_sandbox.host, xoauth2_sandbox.port) as client:\n"
        "        assert b'SMTPUTF8' in client.ehlo()[1]\n"
        "        assert b'157286400' in client.ehlo()[1]\n"
    )
    assert " 1 passed" in run_pytest(tmp_path)


def test_a_proxy_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nxoauth2_sandbox_settings = missing.json\n")
    (tmp_path / "test_one.py").write_text("def test_one(xoauth2_sandbox):\n    pass\n")
    told = run_pytest(tmp_path)
    assert "ProxyNotStarted" in told
    assert "missing.json" in told


def test_nothing_of_the_program_is_imported_for_tests_that_do_not_use_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_one.py").write_text(
        "import sys\n"
        "def test_one():\n"
        "    heavy = {'aiohttp', 'pydantic', 'argon2', 'xoauth2_proxy.testing.proxy_process'}\n"
        "    assert not heavy & sys.modules.keys()\n"
    )
    assert " 1 passed" in run_pytest(tmp_path, "-p", "no:playwright")


def test_a_start_that_goes_wrong_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text("{}")  # as if it were ready, without an address
    process = ProxyProcess(tmp_path)
    with pytest.raises(KeyError):
        process.start()
    assert process._process is not None
    assert process._process.returncode is not None
