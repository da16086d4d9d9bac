"""`xoauth2-proxy login`, `status` and `doctor` as processes of their own, over pipes.

All that they wrote is kept, and looked through for each secret that the store ever held.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from typer.testing import CliRunner

from tests.support.proxy_process import ROOT
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.cli import cli

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

_SECRET_FIELDS = ("access_token", "refresh_token")
# What the tests' own surroundings may say of screens; each test says it anew.
_SURROUNDINGS = (
    *("BROWSER", "COLUMNS", "DISPLAY", "FORCE_COLOR", "NO_COLOR", "SSH_CONNECTION", "SSH_TTY"),
    *("TTY_COMPATIBLE", "WAYLAND_DISPLAY", "XOAUTH2_PROXY_ADMIN_TOKEN", "XOAUTH2_PROXY_ADMIN_URL"),
)


class Said:
    """What a command wrote, and its exit code."""

    code: int | None = None

    def __init__(self) -> None:
        self._out = bytearray()
        self._err = bytearray()

    @property
    def stdout(self) -> str:
        return self._out.decode()

    @property
    def stderr(self) -> str:
        return self._err.decode()

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    @property
    def text(self) -> str:
        """What it wrote to either stream, in one line."""
        return " ".join(f"{self.stdout} {self.stderr}".split())

    @property
    def document(self) -> Any:
        """The JSON on standard output, which holds nothing else."""
        assert self.stdout, self.stderr
        return json.loads(self.stdout)


class Command(Said):
    """One command that is a process, while it runs and afterwards."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process

    async def says(self, words: str) -> None:
        """Wait until it has said so."""
        await until(lambda: words in self.stdout or self.process.returncode is not None)
        assert words in self.stdout, self.stdout + self.stderr

    async def url(self) -> str:
        """Return the address that the person is to open."""
        await until(lambda: bool(_URL.search(self.stdout)) or self.process.returncode is not None)
        found = _URL.search(self.stdout)
        assert found, self.stdout + self.stderr
        return found[1]

    async def type(self, line: str) -> None:
        """Type a line and press Enter."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    def interrupt(self) -> None:
        """Press Ctrl+C."""
        self.process.send_signal(signal.SIGINT)

    async def ends(self) -> int:
        """Wait for its end and return the exit code."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.code = await self.process.wait()
        return self.code

    async def read(self) -> None:
        """Take in what it writes, until it has ended."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        await asyncio.gather(
            _copy(self.process.stdout, self._out), _copy(self.process.stderr, self._err)
        )


@dataclass(slots=True)
class CommandLine:
    """Where an administrator types: a configuration file and a state directory.

    `run` and `start` make a process. `ask` does not: to start one takes longer than most answers.
    It is not for `doctor`, whose connections over TLS end with its process.
    """

    config: Path
    state_dir: Path
    secrets: set[str] = field(default_factory=set, repr=False)  # that no output may hold
    outputs: list[str] = field(default_factory=list, repr=False)
    environ: dict[str, str] = field(default_factory=dict)  # of every command

    @property
    def program(self) -> str:
        """How the commands name this one, so that it can be typed."""
        return f"xoauth2-proxy --config {self.config} --state-dir {self.state_dir}"

    def write(self, document: object) -> None:
        """Put another configuration into the file."""
        self.config.write_text(json.dumps(document))

    def grant(self, mailbox: str) -> dict[str, Any] | None:
        """Return what the file store keeps of a mailbox; None: nothing."""
        for path in (self.state_dir / "tokens").glob(f"{mailbox}-*.json"):
            kept: dict[str, Any] = json.loads(path.read_text())["grant"]
            return kept
        return None

    async def ask(self, *words: str, environ: Mapping[str, str] | None = None) -> Said:
        """Run a command that nobody has to answer to its end, in a thread of this process."""
        said = await asyncio.to_thread(said_here, *self._options, *words, environ=environ)
        self.note_secrets()
        self.outputs += [said.stdout, said.stderr]
        return said

    async def run(
        self, *words: str, environ: Mapping[str, str] | None = None, typed: str = ""
    ) -> Command:
        """Run a command to its end."""
        async with self.start(*words, environ=environ) as command:
            if typed:
                await command.type(typed)
            assert command.process.stdin is not None
            command.process.stdin.close()
            await command.ends()
        return command

    @asynccontextmanager
    async def start(
        self, *words: str, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Command]:
        """Start a command; whatever happens, it does not outlive the context."""
        usual = {key: value for key, value in os.environ.items() if key not in _SURROUNDINGS}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xoauth2_proxy", *self._options, *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=usual | self.environ | dict(environ or {}),
        )
        command = Command(process)
        self.note_secrets()
        reading = asyncio.create_task(command.read())
        try:
            yield command
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading
            assert process.stdin is not None
            process.stdin.close()
            self.note_secrets()
            self.outputs += [command.stdout, command.stderr]

    @property
    def _options(self) -> tuple[str, ...]:
        return ("--config", str(self.config), "--state-dir", str(self.state_dir))

    def note_secrets(self) -> None:
        """Remember the tokens that the store holds now."""
        for path in (self.state_dir / "tokens").glob("*.json"):
            kept = json.loads(path.read_text())["grant"]
            self.secrets |= {kept[name] for name in _SECRET_FIELDS if kept.get(name)}

    def note_code(self, redirect: str) -> None:
        """Remember the code of the address that a browser was sent to."""
        self.secrets.add(dict(parse_qsl(urlsplit(redirect).query))["code"])

    def leaked(self, *more: str) -> list[str]:
        """Return those of the secrets that stand in any output, or in `more`."""
        everything = "\n".join([*self.outputs, *more])
        return [secret for secret in self.secrets if secret in everything]


def said_here(*words: str, environ: Mapping[str, str] | None = None) -> Said:
    """Return what the program says to these words, run in this process."""
    surroundings: dict[str, str | None] = dict.fromkeys(_SURROUNDINGS)
    result = CliRunner().invoke(
        cli, words, env=surroundings | dict(environ or {}), prog_name="xoauth2-proxy"
    )
    said = Said()
    said.code = result.exit_code
    said._out += result.stdout_bytes
    said._err += result.stderr_bytes
    return said


_URL = re.compile(r"^\s+(https?://\S+)$", re.MULTILINE)


async def _copy(source: asyncio.StreamReader, target: bytearray) -> None:
    while octets := await source.read(65_536):
        target += octets
