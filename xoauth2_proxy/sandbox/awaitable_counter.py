"""A counter that tests wait for, instead of sleeping until something has happened."""

from __future__ import annotations

import asyncio


class AwaitableCounter:
    """Counts upwards; `reached` waits for a count."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def add(self) -> int:
        """Count one more and return the new count."""
        self.count += 1
        if self._waiting:
            self._wake()
        return self.count

    async def reached(self, count: int, timeout_seconds: float = 60.0) -> None:
        """Wait until the count is `count` or more.

        Raises:
            TimeoutError: that took longer than `timeout_seconds`.
        """
        if self.count >= count:
            return
        waiter = (count, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter[1]
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _wake(self) -> None:
        for count, future in self._waiting:
            if count <= self.count and not future.done():
                future.set_result(None)
