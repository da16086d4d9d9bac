"""A person's desk: a directory with a message in it, and the recipe by which it is sent."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.support import scan
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
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
        if self.security != "STARTTLS":
            point = self.security[0].upper() + self.security[1:]
            recipe = recipe.varied(point)
        host = "127.0.0.1" if self.security == "in clear" else name
        port = str(self.relay.port)
        words = {"relay.example": host, "2525": port, "465": port, "PASSWORD": password}
        return recipe.replaced(words)

    async def follow(self, recipe: Recipe, program: str = "") -> Said:
        """Write the files of a recipe that was placed, and type its commands.

        `program` names a program of `tests/clients/programs` that the recipe's lines go into.
        """
        for path, text in recipe.files.items():
            self._write(path.removeprefix("~/"), text)
        if program:
            source = (PROGRAMS / program).read_text()
            (line,) = (line for line in source.splitlines() if line.strip(" /#*;") == HERE)
            self._write(program, source.replace(line, recipe.code))
        return await self.type(recipe.commands)

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
        }

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
