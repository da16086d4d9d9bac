"""A server of the benchmark's own in a process of its own: ended in every ending.

It leads a session of its own, so a terminal's Ctrl+C reaches only the benchmark, which ends it. If
the benchmark cannot any more, the guard does.
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
_END_SECONDS = 10.0  # SIGTERM to SIGKILL; nothing is in flight by then
_POLL_SECONDS = 0.02  # how often the ready file is looked for
_REMOVE_ATTEMPTS = 50
_LOG_TAIL_CHARACTERS = 2000


class ChildError(Exception):
    """A server did not start, or did not say where it listens; the text quotes what it wrote."""


class StartInterrupted(Exception):
    """A signal asked to stop before the server was ready."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A running server and what it said of itself."""

    name: str
    facts: Mapping[str, object]

    def text(self, key: str) -> str:
        """Return a fact that is text.

        Raises:
            ChildError: there is none of that name.
        """
        fact = self.facts.get(key)
        if not isinstance(fact, str):
            raise ChildError(f"{self.name}'s ready file is not usable: it names no {key}.")
        return fact

    @property
    def pid(self) -> int:
        """The server's process id; its guard has another.

        Raises:
            ChildError: it does not say.
        """
        fact = self.facts.get("pid")
        if not isinstance(fact, int):
            raise ChildError(f"{self.name}'s ready file is not usable: it names no pid.")
        return fact

    def address(self, key: str) -> tuple[str, int]:
        """Return a fact that is `host:port`.

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
    """Run `python -m module…` for as long as the context is entered, its files in `folder`.

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
            stdin=asyncio.subprocess.PIPE,  # which nobody writes to; see the guard
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
    return ready_file.exists()  # written whole, by renaming


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
        _signal(process, signal.SIGKILL)  # should only the guard have ended, the server has not
        return
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        # Bounded: an event loop may miss the end of a process that is killed as it starts.
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to the server and its guard, which are one process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _complaint(name: str, log_file: Path, what: str) -> str:
    log = log_file.read_text("utf-8", "replace")[-_LOG_TAIL_CHARACTERS:].strip()
    return f"{name} {what}. It wrote:\n{log or '(nothing)'}"


def remove_folder(folder: Path) -> None:
    """Remove a folder, into which a process that was just killed may still write; never raises.

    Blocks a second at most.
    """
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_POLL_SECONDS)
