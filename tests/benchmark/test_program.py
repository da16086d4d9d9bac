"""The program whatever becomes of its standard streams, and at Ctrl+C at any moment."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.interruption import interrupted_at
from tests.support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "bench")
VERIFY = ("tokens", "verify", "of-another-kind")
HEAVY = re.compile(
    r"\| +(aiohttp|argon2|asyncio|cryptography|jinja2|jwt|prometheus_client|pydantic|rich"
    r"|xoauth2_proxy\.(?!__init__)\w+)\b"
)


def ended(redirect: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return how the program ended, called by a shell with a redirect."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *PROGRAM, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def unbuffered(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        *((one, "") for one in (("--list",), ("--version",), ("sweep", "--help"), VERIFY)),
        *((one, each) for one in (("--help",), ("schema",)) for each in ("", "1")),
    ],
)
def test_output_that_cannot_be_written_is_said_in_one_line(
    arguments: tuple[str, ...], unbuffered: str, tmp_path: Path
) -> None:
    more = ("--state-dir", str(tmp_path)) if arguments is VERIFY else ()
    process = ended(">/dev/full", *arguments, *more, PYTHONUNBUFFERED=unbuffered)
    assert process.returncode == 1
    assert process.stderr == (
        "xoauth2-bench: standard output cannot be written to: No space left on device\n"
    )


def test_a_reader_that_has_read_enough_is_no_error_to_tell(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        process = subprocess.run(
            [*PROGRAM, "schema"],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert (process.returncode, process.stderr) == (1, b"")


@pytest.mark.parametrize("redirect", [">&-", "<&-", "2>&-", "2>/dev/full", ">&- 2>&- <&-"])
@pytest.mark.parametrize(
    ("arguments", "code"), [(("--list",), 0), (("--nothing",), 2), (VERIFY, 1)], ids=["0", "2", "1"]
)
def test_streams_that_are_closed_or_full_change_nothing_else(
    redirect: str, arguments: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    more = ("--state-dir", str(tmp_path)) if arguments is VERIFY else ()
    process = ended(redirect, *arguments, *more)
    assert process.returncode == code
    assert "Traceback" not in process.stderr + process.stdout
    assert "Exception ignored" not in process.stderr


def test_standard_input_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    process = ended("0>/dev/null", "tokens", "verify", "-", "--state-dir", str(tmp_path))
    assert process.returncode == 2
    assert "standard input cannot be read" in process.stderr


@pytest.mark.parametrize("arguments", [("--list",), ("--nothing",), ("schema", "nothing")], ids=str)
@pytest.mark.parametrize("imports_later", [0, 10, 40, 80])
def test_ctrl_c_while_importing_or_telling_an_error_is_no_traceback(
    arguments: tuple[str, ...], imports_later: int
) -> None:
    reading, writing = os.pipe()
    # So little room that the program waits for us: the signal comes where it is said to.
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "bench", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=writing,
    ) as process:
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8", errors="replace") as told:
            for line in told:
                if "bench.process.ctrl_c" in line.split():
                    break
            next(told)  # it imports more: the signal is taken care of
            after = [line for line, _ in zip(told, range(imports_later), strict=False)]
            process.send_signal(signal.SIGINT)
            rest = "".join((*after, *told))
        code = process.wait(PATIENCE_SECONDS)
    assert code in {130, 0, 2}  # the last two: it was faster
    assert "Traceback" not in rest
    assert "KeyboardInterrupt" not in rest


@pytest.mark.parametrize(
    "module",
    ["bench.process.ctrl_c", "bench.process.program", "bench.cli", "typer", "bench.options"],
)
def test_ctrl_c_at_any_import_is_130_and_silent(module: str, tmp_path: Path) -> None:
    found = interrupted_at(module, signal.SIGINT, tmp_path, "bench", "--list")
    assert found == (130, "")


@pytest.mark.parametrize("arguments", [("--help",), ("--list",), ("--version",)], ids=str)
def test_what_needs_no_run_imports_nothing_of_one(arguments: tuple[str, ...]) -> None:
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert process.stdout
    assert HEAVY.findall(process.stderr) == []


def test_a_run_without_a_sandbox_or_a_page_imports_nothing_for_them() -> None:
    later = {"aiohttp", "jinja2", "joserfc", "pydantic"}
    program = (
        "import bench.commands.run, bench.runs.load_process, sys\n"
        f"print(*sys.modules.keys() & {later})"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.stdout == "\n", process.stderr
