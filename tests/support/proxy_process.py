"""The proxy as a user starts it: a process of its own, known by its ports and its output."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aiohttp

from tests.support.smtp_client import Client
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[2]


class ProxyProcess:
    """`python -m xoauth2_proxy`, from its start to its exit; killed if a test forgets it."""

    def __init__(
        self,
        directory: Path,
        document: object,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.host = ""
        self.port = 0
        self.admin_url = ""
        self.smtp_url = ""
        self.listeners: dict[str, list[str]] = {}  # the addresses of each
        self._ready_file = directory / "ready.json"
        self._environ = os.environ | (environ or {})
        self._process: asyncio.subprocess.Process | None = None
        common = ["--admin-port", "0", "--state-dir", str(directory)]
        if not isinstance(document, dict) or "listeners" not in document:
            common += ["--port", "0"]
        common += ["--ready-file", str(self._ready_file)]
        if document is not None:
            config = directory / "proxy.json"
            config.write_text(json.dumps(document))
            common += ["--config", str(config)]
        self._command = [*prefix, sys.executable, "-m", "xoauth2_proxy", *common, *arguments]

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def command_line(self) -> bytes:
        """What `ps` shows of the process."""
        proc = Path(f"/proc/{self.process.pid}")
        return (proc / "cmdline").read_bytes() + (proc / "comm").read_bytes()

    async def __aenter__(self) -> Self:
        self._ready_file.unlink(missing_ok=True)
        with (
            (self.directory / "stdout").open("wb") as stdout,
            (self.directory / "stderr").open("wb") as stderr,
        ):
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=stdout, stderr=stderr, cwd=ROOT, env=self._environ
            )
        try:
            await until(self._has_begun)
        except BaseException:
            await self._kill()
            raise
        assert self.process.returncode is None, self.stderr
        ready = json.loads(self._ready_file.read_text())
        self.listeners = ready["listeners"]
        self.smtp_url, self.admin_url = f"smtp://{ready['smtp']}", ready["admin"]
        self.host, _, port = ready["smtp"].rpartition(":")
        self.port = int(port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._kill()

    async def connect(self) -> Client:
        return await Client.connect("127.0.0.1", self.port)

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status and body of an admin page."""
        async with (
            aiohttp.ClientSession(self.admin_url, headers=headers) as http,
            http.get(path) as response,
        ):
            return response.status, await response.text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for the process to end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    async def stop(self) -> int:
        """End the process as an operator does and return its exit code."""
        self.signal(signal.SIGTERM)
        return await self.exit_code()

    def _has_begun(self) -> bool:
        return self._ready_file.exists() or self.process.returncode is not None

    async def _kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
