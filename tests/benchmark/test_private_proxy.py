from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from bench.process import child_process as module
from bench.process.child_process import StartInterrupted
from bench.process.interruption import Interruption
from bench.targets.private_proxy import PrivateProxyError, private_proxy
from bench.targets.target_request import PrivateProxyOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READY = json.dumps(
    {
        "smtp": "127.0.0.1:2599",
        "admin": "http://127.0.0.1:9099",
        "sandbox": {"http": "http://127.0.0.1:8099"},
    }
)
# A stand-in for the interpreter: what it does first, then it lives until it is killed.
PROGRAM = """#!{python} -S
import os, signal, sys, threading
ready = sys.argv[sys.argv.index("--ready-file") + 1]
def write(text):
    with open(ready + ".tmp", "w") as file:
        file.write(text)
    os.rename(ready + ".tmp", ready)
{first}
with open({pid!r}, "w") as file:
    file.write(str(os.getpid()))
{second}
threading.Event().wait(60)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a program in the proxy's place; returns the file that will hold its process id."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def install(first: str = "", second: str = "") -> Path:
        pid = tmp_path / "pid"
        program = tmp_path / "program"
        program.write_text(
            PROGRAM.format(python=sys.executable, first=first, second=second, pid=str(pid))
        )
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return pid

    return install


def is_gone(pid: Path) -> bool:
    try:
        os.kill(int(pid.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


async def test_its_addresses_are_read_and_it_is_gone_afterwards(
    install: Callable[..., Path], tmp_path: Path
) -> None:
    pid = install(second=f"write({READY!r})")
    async with private_proxy(Interruption()) as proxy:
        assert (proxy.host, proxy.port) == ("127.0.0.1", 2599)
        assert (proxy.admin_url, proxy.sandbox_url) == (
            "http://127.0.0.1:9099",
            "http://127.0.0.1:8099",
        )
        assert not is_gone(pid)
    assert is_gone(pid)
    assert not os.listdir(tmp_path / "temporary")


async def test_it_is_gone_after_an_error_of_the_run(install: Callable[..., Path]) -> None:
    pid = install(second=f"write({READY!r})")
    with pytest.raises(RuntimeError, match="the run's own"):
        async with private_proxy(Interruption()):
            raise RuntimeError("the run's own")
    assert is_gone(pid)


async def test_one_that_ignores_sigterm_is_killed(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_SECONDS", 0.2)
    pid = install(first="signal.signal(signal.SIGTERM, signal.SIG_IGN)", second=f"write({READY!r})")
    async with private_proxy(Interruption()):
        pass
    assert is_gone(pid)


async def test_one_that_dies_meanwhile_needs_no_ending(install: Callable[..., Path]) -> None:
    pid = install(second=f"write({READY!r})")
    async with private_proxy(Interruption()):
        os.kill(int(pid.read_text()), 9)
    assert is_gone(pid)


async def test_one_that_does_not_start_is_quoted(
    install: Callable[..., Path], tmp_path: Path
) -> None:
    install(first="sys.exit('no such luck')")
    with pytest.raises(PrivateProxyError, match=r"ended at once.*\nno such luck"):
        async with private_proxy(Interruption()):
            pass
    assert not os.listdir(tmp_path / "temporary")


async def test_one_that_is_never_ready_is_given_up(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_START_SECONDS", 0.5)
    install()
    with pytest.raises(PrivateProxyError, match="not ready in time"):
        async with private_proxy(Interruption()):
            pass
    assert not os.listdir(tmp_path / "temporary")


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"smtp": "x", "sandbox": {"http": ""}}'])
async def test_a_ready_file_of_another_form(install: Callable[..., Path], text: str) -> None:
    pid = install(second=f"write({text!r})")
    with pytest.raises(PrivateProxyError, match="not usable"):
        async with private_proxy(Interruption()):
            pass
    assert is_gone(pid)


async def test_a_signal_before_it_is_ready(install: Callable[..., Path], tmp_path: Path) -> None:
    install()
    interruption = Interruption()
    interruption.requested.set()
    with pytest.raises(StartInterrupted):
        async with private_proxy(interruption):
            pass
    assert not os.listdir(tmp_path / "temporary")


async def test_ending_at_once_kills_it(install: Callable[..., Path], tmp_path: Path) -> None:
    pid = install(second=f"write({READY!r})")
    interruption = Interruption()
    async with private_proxy(interruption):
        for callback in reversed(interruption.on_abort):
            callback()
        assert not os.listdir(tmp_path / "temporary")
    assert is_gone(pid)
    assert not interruption.on_abort


@pytest.mark.parametrize("is_at_once", [False, True])
async def test_a_directory_that_is_kept_stays_and_is_told(
    install: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    is_at_once: bool,
) -> None:
    pid = install(second=f"write({READY!r})")
    interruption = Interruption()
    async with private_proxy(interruption, PrivateProxyOptions(is_kept=True)):
        if is_at_once:  # as a second signal does
            for callback in reversed(interruption.on_abort):
                callback()
    assert is_gone(pid)
    (name,) = os.listdir(tmp_path / "temporary")
    assert f"This directory stays: {tmp_path}/temporary/{name}\n" in capsys.readouterr().err
