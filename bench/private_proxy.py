"""A proxy of the benchmark's own: started with its sandbox on free ports, ended in every ending.

Its state lives in a temporary folder that goes with it.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.child import Child, ChildError, StartInterrupted, child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.interruption import Interruption

__all__ = ["PrivateProxy", "PrivateProxyError", "StartInterrupted", "private_proxy"]


class PrivateProxyError(Exception):
    """The private proxy did not start; the text holds the end of what it wrote."""


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

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    interruption.on_abort.add(remove)
    state_dir = folder / "state"
    ports = ("--port", "0", "--admin-port", "0", "--log-level", "warning")
    module = ("xoauth2_proxy", "--sandbox", *ports, "--state-dir", str(state_dir))
    try:
        async with child("proxy", module, folder, interruption) as process:
            host, port = process.address("smtp")
            yield PrivateProxy(host, port, process.text("admin"), _sandbox_url(process), state_dir)
    except ChildError as error:
        raise PrivateProxyError(f"The private {error}") from error
    finally:
        interruption.on_abort.discard(remove)
        remove()


def _sandbox_url(process: Child) -> str:
    sandbox = process.facts.get("sandbox")
    url = sandbox.get("http") if isinstance(sandbox, dict) else None
    if not isinstance(url, str):
        raise ChildError(f"{process.name}'s ready file is not usable: it names no sandbox.")
    return url
