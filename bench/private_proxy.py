"""A proxy of the benchmark's own: started with its sandbox on free ports, ended in every ending.

Its state lives in a temporary folder that goes with it. It leads a session of its own, so a
terminal's Ctrl+C reaches only the benchmark, which then ends it when its last message is settled.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from bench.interruption import Interruption

_START_SECONDS = 30.0  # interpreter, imports and keys on a slow machine
_END_SECONDS = 10.0  # SIGTERM to SIGKILL; nothing is in flight by then
_POLL_SECONDS = 0.05  # how often the ready file is looked for
_LOG_TAIL_CHARACTERS = 2000


class PrivateProxyError(Exception):
    """The private proxy did not start; the text holds the end of what it wrote."""


class StartInterrupted(Exception):
    """A signal asked to stop before the private proxy was ready."""


@dataclass(frozen=True, slots=True)
class PrivateProxy:
    """A running private proxy's addresses and the folder of its keys."""

    host: str
    port: int
    admin_url: str
    sandbox_url: str
    state_dir: Path


@asynccontextmanager
async def private_proxy(interruption: Interruption) -> AsyncIterator[PrivateProxy]:
    """Run a proxy with the sandbox for as long as the context is entered.

    Raises:
        PrivateProxyError: it ended, or was not ready in time.
        StartInterrupted: a signal came first.
    """
    folder = Path(tempfile.mkdtemp(prefix="xoauth2-bench-"))
    process: Process | None = None

    def kill() -> None:
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)

    interruption.on_abort.add(kill)
    try:
        process = await _start(folder)
        yield await _ready(process, folder, interruption)
    finally:
        try:
            if process is not None:
                await _end(process)
        finally:
            interruption.on_abort.discard(kill)
            shutil.rmtree(folder, ignore_errors=True)


async def _start(folder: Path) -> Process:
    arguments = [
        *("--sandbox", "--port", "0", "--admin-port", "0", "--log-level", "warning"),
        *("--state-dir", str(folder / "state"), "--ready-file", str(_ready_file(folder))),
    ]
    with _log_file(folder).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "xoauth2_proxy", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _ready(process: Process, folder: Path, interruption: Interruption) -> PrivateProxy:
    ended = asyncio.create_task(process.wait())
    interrupted = asyncio.create_task(interruption.requested.wait())
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not _ready_file(folder).exists():  # written whole, by renaming
                await asyncio.wait(
                    (ended, interrupted),
                    timeout=_POLL_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if interrupted.done():
                    raise StartInterrupted
                if ended.done():
                    raise PrivateProxyError(_complaint(folder, "ended at once"))
    except TimeoutError:
        raise PrivateProxyError(_complaint(folder, "was not ready in time")) from None
    finally:
        ended.cancel()
        interrupted.cancel()
    return _parse(folder)


def _parse(folder: Path) -> PrivateProxy:
    try:
        ready = json.loads(_ready_file(folder).read_bytes())
        host, _, port = ready["smtp"].rpartition(":")
        sandbox_url = ready["sandbox"]["http"]
        return PrivateProxy(
            host.strip("[]"), int(port), ready["admin"], sandbox_url, folder / "state"
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrivateProxyError(
            f"The private proxy's ready file is not usable: {error!r}"
        ) from error


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _ready_file(folder: Path) -> Path:
    return folder / "ready.json"


def _log_file(folder: Path) -> Path:
    return folder / "proxy.log"


def _complaint(folder: Path, what: str) -> str:
    log = _log_file(folder).read_text("utf-8", "replace")[-_LOG_TAIL_CHARACTERS:].strip()
    return f"The private proxy {what}. It wrote:\n{log or '(nothing)'}"
