"""Whose turn it is to change a mailbox's grant, among the tasks of this process.

I1: changes to one mailbox happen one after the other, in the order they were begun.
I2: a change that was begun ends, though its caller is cancelled: it may carry a refresh token that
the provider gives out only once.
I3: a lock is free for others only after every change that its holder began.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from xoauth2_proxy.errors import TokenStoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    GiveBack = Callable[[], Awaitable[None]]

LOCK_SECONDS = 45.0  # a holder waits 12 s for a seat and 30 s for an answer (`oauth.asking`)

_MIN_PAUSE_SECONDS = 0.005
_MAX_PAUSE_SECONDS = 0.1
_CLOSE_SECONDS = 5.0

T = TypeVar("T")


class Turns:
    """First come, first served; one queue a mailbox."""

    def __init__(self, wait_seconds: float = LOCK_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changes: dict[str, asyncio.Task[Any]] = {}  # the last one begun, until it ends

    @asynccontextmanager
    async def hold(
        self,
        mailbox: str,
        take: Callable[[], Awaitable[GiveBack]] | None = None,
    ) -> AsyncIterator[None]:
        """Hold the mailbox's lock; `take` locks other processes out and returns how to let them in.

        Raises:
            TokenStoreUnavailable: it was not free in time.
        """
        lock = self._locks.setdefault(mailbox, asyncio.Lock())
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await held.enter_async_context(lock)
                    if take is not None:
                        give_back = await take()
                        held.push_async_callback(self.change, mailbox, give_back)
            except TimeoutError:
                raise TokenStoreUnavailable(
                    f"another task or process held the grant of {mailbox} all the time"
                ) from None
            yield

    async def change(self, mailbox: str, change: Callable[[], Awaitable[T]]) -> T:
        """Return what `change` does, after those begun before. Cancelling does not stop it."""
        return await asyncio.shield(self.begin(mailbox, change))

    def begin(self, mailbox: str, change: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Begin a change that nobody has to wait for."""
        task = asyncio.create_task(_after(self._changes.get(mailbox), change))
        self._changes[mailbox] = task
        task.add_done_callback(lambda done: self._forget(mailbox, done))
        return task

    async def close(self) -> None:
        """Wait for changes under way, for some seconds."""
        if self._changes:
            await asyncio.wait(self._changes.values(), timeout=_CLOSE_SECONDS)

    def _forget(self, mailbox: str, done: asyncio.Task[Any]) -> None:
        if self._changes.get(mailbox) is done:
            del self._changes[mailbox]


async def until_free(attempt: Callable[[], Awaitable[T | None]]) -> T:
    """Return what `attempt` gets; while that is None, look again, at growing intervals."""
    pause_seconds = _MIN_PAUSE_SECONDS
    while True:
        got = await attempt()
        if got is not None:
            return got
        await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
        pause_seconds = min(pause_seconds * 2.0, _MAX_PAUSE_SECONDS)


async def _after(before: asyncio.Task[Any] | None, change: Callable[[], Awaitable[T]]) -> T:
    if before is not None:
        await asyncio.wait([before])
    return await change()
