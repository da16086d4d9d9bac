"""Runs one of the benchmark's own servers as a process, and always ends it.

It has its own session, so a terminal's Ctrl+C reaches only the benchmark, which ends the server. If
the benchmark is killed, the guard ends the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from bench.process.interruption import Interruption

_START_SECONDS = 60.0  # interpreter, imports and keys on a slow machine
_END_SECONDS = 10.0  # SIGTERM to SIGKILL; no message is in flight by then
_POLL_SECONDS = 0.02  # how often the ready file is looked for
_REMOVE_ATTEMPTS = 50
_LOG_TAIL_CHARACTERS = 2000


class ChildError(Exception):
    """A server did not start or did not report its address; the text quotes its output."""


class StartInterrupted(Exception):
    """A stop signal came before the server was ready."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A running server and the facts from its ready file."""

    name: str
    facts: Mapping[str, object]

    def text(self, key: str) -> str:
        """Return the fact of this name, which must be text.

        Raises:
            ChildError: there is none of that name.
        """
        fact = self.facts.get(key)
        if not isinstance(fact, str):
            raise ChildError(f"{self.name}'s ready file is not usable: it names no {key}.")
        return fact

    @property
    def pid(self) -> int:
        """The server's process id, which is not its guard's.

        Raises:
            ChildError: the ready file does not have it.
        """
        fact = self.facts.get("pid")
        if not isinstance(fact, int):
            raise ChildError(f"{self.name}'s ready file is not usable: it names no pid.")
        return fact

    def address(self, key: str) -> tuple[str, int]:
        """Return the fact of this name, which must be `host:port`.

        Raises:
            ChildError: there is none of that name.
        """
        host, _, port = self.text(key).rpartition(":")
        if not port.isdecimal():
            raise ChildError(f"{self.name}'s ready file is not usable: {key} is no address.")
        return host.strip("[]"), int(port)


@asynccontextmanager
async def running_child(
    name: str, module: Sequence[str], folder: Path, interruption: Interruption
) -> AsyncIterator[ChildProcess]:
    """Run `python -m module…` while the context is entered, with its files in `folder`.

    Raises:
        ChildError: it ended, or was not ready in time.
        StartInterrupted: a signal came first.
    """
    ready_file, log_file = folder / f"{name}.ready", folder / f"{name}.log"
    ready_file.unlink(missing_ok=True)
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bench.process.child_guard", str(folder)),
            *(*module, "--ready-file", str(ready_file)),
            stdin=asyncio.subprocess.PIPE,  # never written to; see the guard
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def kill() -> None:
        _signal(process, signal.SIGKILL)

    interruption.on_abort.append(kill)
    try:
        await _until_ready(name, process, ready_file, log_file, interruption)
        yield ChildProcess(name, _facts(name, ready_file))
    finally:
        try:
            await _end(process)
        finally:
            interruption.on_abort.remove(kill)


async def _until_ready(
    name: str, process: Process, ready_file: Path, log_file: Path, interruption: Interruption
) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not _is_ready(ready_file):
                if interruption.requested.is_set():
                    raise StartInterrupted
                if process.returncode is not None:
                    raise ChildError(_complaint(name, log_file, "ended at once"))
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise ChildError(_complaint(name, log_file, "was not ready in time")) from None


def _is_ready(ready_file: Path) -> bool:
    return ready_file.exists()  # complete: it appears by renaming


def _facts(name: str, ready_file: Path) -> dict[str, object]:
    try:
        facts = json.loads(ready_file.read_bytes())
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise ChildError(f"{name}'s ready file is not usable: it holds no JSON object.")
    return facts


async def _end(process: Process) -> None:
    if process.returncode is not None:
        _signal(process, signal.SIGKILL)  # in case only the guard has ended
        return
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        # Limited, because an event loop may miss the end of a process killed during its start.
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to the process group of the server and its guard."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _complaint(name: str, log_file: Path, what: str) -> str:
    log = log_file.read_text("utf-8", "replace")[-_LOG_TAIL_CHARACTERS:].strip()
    return f"{name} {what}. It wrote:\n{log or '(nothing)'}"


def remove_folder(folder: Path) -> None:
    """Remove a folder even if a process just killed may still write to it; never raises.

    Blocks for at most a second.
    """
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_POLL_SECONDS)
