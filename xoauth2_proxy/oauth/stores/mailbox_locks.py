"""Locks and orders the changes of mailboxes' grants among the tasks of this process.

I1: changes to one mailbox run one after the other, in the order they were started.
I2: a started change ends even if its caller is cancelled: it may save a refresh token that the
provider issues only once.
I3: a lock is released only after every change that its holder started.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from xoauth2_proxy.background_tasks import BackgroundTasks
from xoauth2_proxy.errors import TokenStoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Release = Callable[[], Awaitable[None]]

LOCK_WAIT_SECONDS = 45.0  # a holder takes up to 12 s and 30 s (`oauth.token_request`)

_MIN_PAUSE_SECONDS = 0.005
_MAX_PAUSE_SECONDS = 0.1
_CLOSE_SECONDS = 5.0

T = TypeVar("T")


class MailboxLocks:
    """One lock for each mailbox, first come, first served."""

    def __init__(self, wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks = BackgroundTasks()
        self._changes: dict[str, asyncio.Task[Any]] = {}  # the last one started, until it ends

    @asynccontextmanager
    async def hold(
        self,
        mailbox: str,
        take: Callable[[], Awaitable[Release]] | None = None,
    ) -> AsyncIterator[None]:
        """Hold the mailbox's lock; `take` takes a lock among processes and returns its release.

        Raises `TokenStoreUnavailable`: it was not free in time.
        """
        lock = self._locks.setdefault(mailbox, asyncio.Lock())
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await held.enter_async_context(lock)
                    if take is not None:
                        release = await take()
                        held.push_async_callback(self.change, mailbox, release)
            except TimeoutError:
                raise TokenStoreUnavailable(
                    f"another task or process held the lock of {mailbox} for too long"
                ) from None
            yield

    async def change(self, mailbox: str, change: Callable[[], Awaitable[T]]) -> T:
        """Run the change after those started before; return its result.

        Cancelling the caller does not stop it.
        """
        return await asyncio.shield(self.start(mailbox, change))

    def start(self, mailbox: str, change: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Start a change that runs after those started before; return its task."""
        task = self._tasks.start(_after(self._changes.get(mailbox), change), f"store {mailbox}")
        self._changes[mailbox] = task
        task.add_done_callback(lambda done: self._forget(mailbox, done))
        return task

    async def close(self) -> None:
        """Wait some seconds for running changes."""
        await self._tasks.close(_CLOSE_SECONDS)

    def _forget(self, mailbox: str, done: asyncio.Task[Any]) -> None:
        if self._changes.get(mailbox) is done:
            del self._changes[mailbox]


async def poll_until_free(attempt: Callable[[], Awaitable[T | None]]) -> T:
    """Return the first result of `attempt` that is not None; repeat it at growing intervals."""
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
