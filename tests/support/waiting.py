"""Waiting, always bounded, for what nobody announces."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LOOK_EVERY_SECONDS = 0.01


async def until(
    condition: Callable[[], bool | Awaitable[bool]], timeout_seconds: float = 10.0
) -> None:
    """Return as soon as `condition` holds; for states that no event announces.

    Raises:
        TimeoutError: it did not hold in time.
    """
    async with asyncio.timeout(timeout_seconds):
        while True:
            verdict = condition()
            if await verdict if inspect.isawaitable(verdict) else verdict:
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
