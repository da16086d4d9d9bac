"""A person's desk: a directory with a message in it, and the recipe by which it is sent."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import trustme

from tests.support import scan
from tests.support.programs import program
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.support.mail_clients import MailClient
    from tests.support.recipes import Recipe
    from tests.support.relay import Relay
    from xoauth2_proxy.sandbox.message_store import Message

Security = Literal["in clear", "STARTTLS", "implicit TLS"]

PROGRAMS = Path(__file__).parents[1] / "clients" / "programs"
HERE = "RECIPE"  # the line of a program that the recipe replaces

# What a client shows unless its recipe says otherwise.
WRONG_PASSWORD = "5.7.8 Authentication credentials invalid"
NO_SUCH_USER = "5.1.1 No such user here"


@dataclass(frozen=True, slots=True)
class Said:
    """What a program said, on whichever stream, and its exit code."""

    text: str
    exit_code: int


@dataclass(slots=True)
class Desk:
    """A home directory, from which programs send through the relay."""

    relay: Relay
    security: Security
    home: Path

    def __post_init__(self) -> None:
        scan.write_into(self.home)

    def placed(self, recipe: Recipe, password: str = "PASSWORD", name: str = "localhost") -> Recipe:
        """Return a recipe for this relay: its name and port, and what is said of its security."""
        point = self.security[0].upper() + self.security[1:]
        # In clear some need no other change than the host.
        if self.security == "implicit TLS" or point in recipe.points:
            recipe = recipe.varied(point)
        host = "127.0.0.1" if self.security == "in clear" else name
        port = str(self.relay.port)
        words = {"relay.example": host, "2525": port, "465": port, "PASSWORD": password}
        return recipe.replaced(words)

    async def follow(self, client: MailClient, recipe: Recipe) -> Said:
        """Write the files of a recipe that was placed, and type its commands."""
        for name in client.needs:
            _require(name)
        for path, text in recipe.files.items():
            self._write(path.removeprefix("~/"), text)
        if client.source:
            source = (PROGRAMS / client.source).read_text()
            (line,) = (line for line in source.splitlines() if line.strip(" \t/#") == HERE)
            indent = line[: len(line) - len(line.lstrip())]
            self._write(client.source, source.replace(line, textwrap.indent(recipe.code, indent)))
        return await self.type(client.command or recipe.commands)

    async def type(self, commands: str) -> Said:
        """Have a shell carry out commands in the home directory, to their end."""
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-eu", "-c", commands),
            cwd=self.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environ,
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                said, _ = await process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Said(said.decode("utf-8", "replace"), process.returncode)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.home),
            "PYTHON": sys.executable,
            "NODE_PATH": str(PROGRAMS / "node_modules"),
            "GOCACHE": str(self.home.parent.parent / "go"),
        }

    def trust_another_authority(self) -> None:
        """Put another certificate where the recipes expect that of the listener's authority."""
        trustme.CA().cert_pem.write_to_path(str(self.home / "ca.pem"))

    def received(self) -> Message:
        """Return the only message that the provider got; its envelope must be the usual one."""
        (kept,) = self.relay.sandbox.received
        assert (kept.reverse_path, kept.forward_paths) == (scan.SENDER, (scan.RECIPIENT,))
        assert kept.mailbox == scan.SENDER
        return kept

    def _write(self, path: str, text: str) -> None:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o600)


def _require(name: str) -> None:
    """Skip the test, or fail it in CI, where a program, a library or a package is missing."""
    # Debian's packages are seen by their copyright file, npm's by their folder.
    folders = Path("/usr/share/doc"), PROGRAMS / "node_modules"
    if not any((folder / name).exists() for folder in folders):
        program(name)
