"""Whatever happens to standard output, input or by a signal: one line or none, and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from tests.support.interruption import interrupted_at
from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WAIT_SECONDS = 60.0
FULL = "xoauth2-proxy: cannot write to standard output: No space left on device\n"


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    file = tmp_path / "accounts.json"
    one = {"email": "a@example.com", "provider": "outlook", "password": "opens sesame"}
    file.write_text(json.dumps([one | {"client_id": "a-client"}]))
    return file


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "xoauth2_proxy", *(str(one) for one in arguments)]


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which `$0 "$@"` is our program."""
    program = [sys.executable, "-m", "xoauth2_proxy", *map(str, arguments)]
    return subprocess.run(
        ["/bin/sh", "-c", line, *program],
        capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["version"],
        ["--help"],
        ["schema"],
        ["check", "--config", "{accounts}"],
        ["status", "--config", "{accounts}", "--state-dir", "{state}"],
        ["list", "--json", "--config", "{accounts}"],
        ["doctor", "--all", "--sandbox", "--state-dir", "{state}"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_full_output_is_said_in_one_line(
    arguments: Sequence[str], accounts: Path, tmp_path: Path
) -> None:
    places = {"accounts": accounts, "state": tmp_path / "state"}
    ended = shell('"$0" "$@" >/dev/full', *(one.format(**places) for one in arguments))
    assert ended.returncode == 1
    *warnings, said = ended.stderr.splitlines(keepends=True)
    assert said == FULL
    assert all(line.startswith("warning: ") for line in warnings)


@pytest.mark.parametrize("arguments", [["version"], ["status", "--sandbox"]])
def test_a_closed_output_is_said_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    ended = shell('"$0" "$@" >&-', "--state-dir", tmp_path / "state", *arguments)
    assert (ended.returncode, ended.stderr) == (
        1,
        "xoauth2-proxy: cannot write to standard output: Bad file descriptor\n",
    )


def test_a_closed_error_output_leaves_the_answer_alone() -> None:
    ended = shell('"$0" "$@" 2>&-', "version")
    assert (ended.returncode, ended.stdout) == (0, f"xoauth2-proxy {__version__}\n")


def test_a_reader_that_has_seen_enough_is_told_nothing() -> None:
    ended = shell('"$0" "$@" | head -1', "schema")
    assert (ended.stdout, ended.stderr) == ("{\n", "")


def test_a_closed_input_is_an_empty_one() -> None:
    ended = shell('"$0" "$@" <&-', "hash-password")
    assert ended.returncode == 2
    assert ended.stderr.startswith("xoauth2-proxy: there is no password")


# Signals: Python names each module that it has imported, so it is known how far it is.


def interrupted(signal_number: int, module: str, *arguments: object) -> tuple[int, str]:
    """Send a signal once the module is imported; return the exit code and what else was said."""
    program = [sys.executable, "-X", "importtime", "-m", "xoauth2_proxy", *map(str, arguments)]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f"| {module}") or line.split()[-1] == module:
                break
        process.send_signal(signal_number)
        try:
            # Its input stays open meanwhile: who waits for it is interrupted, too.
            process.wait(WAIT_SECONDS)
        finally:
            process.kill()
        said = process.stderr.read() + (process.stdout.read() if process.stdout else "")
    return process.returncode, "".join(
        line for line in said.splitlines(keepends=True) if not line.startswith("import time:")
    )


@pytest.mark.parametrize("module", ["typer", "pydantic.main"])
def test_ctrl_c_while_importing_is_130_and_silent(module: str, accounts: Path) -> None:
    arguments = ("--config", accounts, "--port", 0, "--admin-port", 0)
    assert interrupted(signal.SIGINT, module, *arguments) == (130, "")


@pytest.mark.parametrize(
    "module",
    [
        "xoauth2_proxy.standard_streams",  # which takes the signal
        "xoauth2_proxy.cli",
        "typer",
        "xoauth2_proxy.cli.configured",
        "pydantic",
        "aiosmtpd",
        "uvloop",
    ],
)
def test_ctrl_c_at_any_import_is_130_and_silent(
    module: str, accounts: Path, tmp_path: Path
) -> None:
    arguments = ("--config", accounts, "--state-dir", tmp_path / "state", "--port", 0)
    found = interrupted_at(
        module, signal.SIGINT, tmp_path, "xoauth2_proxy", *arguments, "--admin-port", 0
    )
    assert found == (130, "")


def test_ctrl_c_while_waiting_for_input_is_130_and_silent() -> None:
    assert interrupted(signal.SIGINT, "argon2", "hash-password") == (130, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_password_prompt_leaves_a_terminal_that_echoes(
    number: signal.Signals,
) -> None:
    ours, theirs = os.openpty()
    program = command("hash-password")
    with subprocess.Popen(
        # It takes the terminal for its own, since the prompt is written there.
        [sys.executable, "-c", TERMINAL, *program],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said = b""
            while not said.endswith(b"Password: "):
                said += os.read(ours, 1024)
            assert not echoes(theirs)
            process.send_signal(number)
            process.wait(WAIT_SECONDS)
        finally:
            process.kill()
    assert echoes(theirs)
    assert process.returncode == 130
    os.set_blocking(ours, False)
    assert os.read(ours, 1024) == b"\r\n"
    os.close(ours)
    os.close(theirs)


TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def test_termination_while_importing_is_silent(accounts: Path) -> None:
    found = interrupted(signal.SIGTERM, "pydantic.main", "check", "--config", accounts)
    assert found == (-signal.SIGTERM, "")


IN_A_CALLBACK = """
import asyncio, os, signal
from xoauth2_proxy import standard_streams
from xoauth2_proxy.cli import configured

async def wait():
    answer = asyncio.get_running_loop().create_future()

    def give():
        os.kill(os.getpid(), signal.SIGINT)
        answer.set_result(None)  # fails if the signal has cancelled who waits for it

    asyncio.get_running_loop().call_soon(give)
    await answer
    await asyncio.Event().wait()

standard_streams.run(lambda: exit(configured.run(wait())))
"""


def test_ctrl_c_in_the_midst_of_a_callback_is_130_and_silent() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK],
        capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (130, "")


# A relay goes on.


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_relay_that_cannot_print_its_addresses_relays_all_the_same(
    accounts: Path, tmp_path: Path, redirection: str
) -> None:
    ready = tmp_path / "ready.json"
    program = command("--config", accounts, "--state-dir", tmp_path / "state", "--port", 0,
                      "--admin-port", 0, "--ready-file", ready)  # fmt: skip
    with subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" "$@" {redirection}', *program],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = ""
        try:
            said = next(line for line in process.stderr if "addresses" in line)
            ended = subprocess.run(
                command("health", "--url", json.loads(ready.read_text())["admin"]),
                capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
            )  # fmt: skip
        finally:
            process.send_signal(signal.SIGTERM)
            said += process.communicate(timeout=WAIT_SECONDS)[1]
    assert ended.returncode == 0, ended.stdout
    assert process.returncode == 0
    assert "the addresses cannot be written to standard output" in said
    assert "Traceback" not in said


def test_an_error_of_our_own_is_one_line_without_its_text() -> None:
    script = (
        "from xoauth2_proxy import standard_streams\n"
        "def work(): raise RuntimeError('the password is hunter2')\n"
        "standard_streams.run(work)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == (
        "xoauth2-proxy: internal error: RuntimeError at <string>:2; please report it as a bug\n"
    )
