"""A private proxy: started with a sandbox on free ports, and always ended.

Its state is in a temporary folder that is removed with it, or told if it is to be kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process.child_process import ChildError, ChildProcess, remove_folder, running_child
from bench.targets.private_provider import private_provider
from bench.targets.target_request import PrivateProxyOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.process.interruption import Interruption


class PrivateProxyError(Exception):
    """The private proxy did not start; the text contains the end of its output."""


@dataclass(frozen=True, slots=True)
class PrivateProxy:
    """A running private proxy's addresses and the folder of its keys."""

    host: str
    port: int
    admin_url: str
    sandbox_url: str  # "" without a sandbox
    state_dir: Path
    log_file: Path  # its standard error


@asynccontextmanager
async def private_proxy(
    interruption: Interruption, options: PrivateProxyOptions | None = None
) -> AsyncIterator[PrivateProxy]:
    """Run a proxy with a sandbox while the context is entered.

    Raises:
        PrivateProxyError: it ended, or was not ready in time.
        StartInterrupted: a signal came first.
    """
    folder = Path(tempfile.mkdtemp(prefix="xoauth2-bench-"))
    wanted = options or PrivateProxyOptions()

    def remove() -> None:
        if not wanted.is_kept:
            remove_folder(folder)
            return
        with suppress(OSError, ValueError):  # standard error is closed
            print(f"This directory stays: {folder}", file=sys.stderr, flush=True)  # noqa: T201

    interruption.on_abort.append(remove)
    try:
        async with AsyncExitStack() as stack:
            yield await _started(stack, folder, interruption, wanted)
    except ChildError as error:
        raise PrivateProxyError(f"The private {error}") from error
    finally:
        interruption.on_abort.remove(remove)
        remove()


async def _started(
    stack: AsyncExitStack, folder: Path, interruption: Interruption, options: PrivateProxyOptions
) -> PrivateProxy:
    state_dir = folder / "state"
    arguments = ["--port", "0", "--admin-port", "0", "--log-level", "warning"]
    arguments += ["--state-dir", str(state_dir)]
    sandbox_url = ""
    config: dict[str, object] = {"accounts": [one.document() for one in options.mailboxes]}
    if options.provider is None:
        arguments += ["--sandbox"] if options.has_sandbox else []
    else:
        provider = await stack.enter_async_context(
            private_provider(options.provider, folder, state_dir, interruption)
        )
        sandbox_url, config = (
            provider.http_url,
            provider.configuration(options.mailboxes, options.limits),
        )
    if options.mailboxes or not options.has_sandbox:
        file = folder / "accounts.json"  # in a private folder
        file.write_text(json.dumps(config))
        arguments += ["--config", str(file)]
    module = ("xoauth2_proxy", *arguments)
    process = await stack.enter_async_context(running_child("proxy", module, folder, interruption))
    host, port = process.address("smtp")
    url = sandbox_url or (_sandbox_url(process) if options.has_sandbox else "")
    log_file = folder / f"{process.name}.log"
    return PrivateProxy(host, port, process.text("admin"), url, state_dir, log_file)


def _sandbox_url(process: ChildProcess) -> str:
    sandbox = process.facts.get("sandbox")
    url = sandbox.get("http") if isinstance(sandbox, dict) else None
    if not isinstance(url, str):
        raise ChildError(f"{process.name}'s ready file is not usable: it names no sandbox.")
    return url
