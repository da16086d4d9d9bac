"""A process of its own that uses a token store; it begins as this program.

    python -m tests.support.store_user count 20 mailbox file /the/directory
    python -m tests.support.store_user hold 0 mailbox redis unix:///the/socket
    python -m tests.support.store_user save 0 mailbox file /the/directory

It says a line for each thing done, beginning with `ready`, and begins after a line on its input.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.file import FileStore
from xoauth2_proxy.oauth.stores.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xoauth2_proxy.oauth.stores import TokenStore

HELD_SECONDS = 1.0  # how long a Redis lock outlives a process that is killed
_ROOT = Path(__file__).parents[2]


class StoreUser:
    """The process, as the test that started it sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """Return the next line it says; "" at its end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self.process.stdout.readline()).decode().strip()

    async def rest(self) -> list[str]:
        """Return all that it says until it ends."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self.process.stdout.read()).decode().splitlines()

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def kill(self) -> list[str]:
        """End it as the kernel would; return what it had still said."""
        self.process.kill()
        rest = await self.rest()
        await self.process.wait()
        return rest


@asynccontextmanager
async def store_user(what: str, times: int, mailbox: str, *place: str) -> AsyncIterator[StoreUser]:
    """Start a process that is ready, but has not begun; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.store_user", what, str(times), mailbox, *place),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    user = StoreUser(process)
    try:
        assert await user.line() == "ready"
        yield user
    finally:
        if process.returncode is None:
            await user.kill()


def open_place(kind: str, where: str, held_seconds: float) -> TokenStore:
    if kind == "file":
        return FileStore(Path(where))
    return RedisStore(where, held_seconds=held_seconds)


def say(line: str) -> None:
    print(line, flush=True)


async def count(store: TokenStore, mailbox: str, times: int) -> None:
    """Add one, `times` times, to the number that is kept in place of a refresh token."""
    for _ in range(times):
        async with store.lock(mailbox):
            grant = await store.load(mailbox) or StoredGrant(refresh_token="0")
            number = int(grant.refresh_token) + 1
            await store.save(mailbox, replace(grant, refresh_token=str(number)))
        say(f"counted {number}")


async def hold(store: TokenStore, mailbox: str) -> None:
    """Hold the lock until the end."""
    async with store.lock(mailbox):
        say("held")
        await asyncio.Event().wait()


async def save(store: TokenStore, mailbox: str) -> None:
    """Save one grant after the other, of sizes from nothing to some blocks of a disk."""
    number = 0
    while True:
        number += 1
        scope = "x" * (number * 7919 % 20_000)
        await store.save(mailbox, StoredGrant(refresh_token=str(number), scope=scope))
        say(str(number))


async def main(what: str, times: str, mailbox: str, kind: str, where: str) -> None:
    # Who counts must not lose the lock, however long the machine lets it wait.
    store = open_place(kind, where, HELD_SECONDS if what == "hold" else PATIENCE_SECONDS)
    say("ready")
    sys.stdin.readline()
    match what:
        case "count":
            await count(store, mailbox, int(times))
        case "hold":
            await hold(store, mailbox)
        case "save":
            await save(store, mailbox)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
