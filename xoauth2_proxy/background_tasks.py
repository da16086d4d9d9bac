"""Runs tasks to completion even if their caller is cancelled.

A token response may carry the only copy of a refresh token, so it must be read and saved.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class BackgroundTasks:
    """Tasks that outlive their callers, until `close`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # asyncio keeps only weak references

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start the work and return its task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Return the result of the work. Cancelling the caller does not cancel it."""
        return await asyncio.shield(self.start(work, name))

    async def close(self, timeout_seconds: float) -> None:
        """Wait for the tasks up to `timeout_seconds`, then cancel the rest."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
