"""Mail clients of the distribution, run beside the relay that they talk to."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress

import pytest

from tests.support.waiting import PATIENCE_SECONDS


def program(name: str) -> str:
    """Return the path of an installed program.

    Skips the test where it is not installed; fails it there when CI=true.
    """
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian package {name})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


async def run(*command: str, octets: bytes = b"") -> str:
    """Run a program to its end, which must be a good one, and return what it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        # To a program that reads nothing and has ended, uvloop cannot write.
        stdin=asyncio.subprocess.PIPE if octets else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            said, _ = await process.communicate(octets or None)
    except BaseException:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            process.kill()
        await process.wait()
        raise
    text = said.decode("utf-8", "replace")
    assert process.returncode == 0, f"{command[0]} ended with {process.returncode}:\n{text}"
    return text
