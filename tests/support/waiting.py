"""Waiting, always bounded, for what nobody announces."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# How long a test waits for anything at all: far longer than the slowest machine takes, so that
# only what never comes ends the wait. A test has a few times as long (`timeout`, pyproject.toml).
PATIENCE_SECONDS = 120.0

# Between two looks. What takes long is looked at less often: a look may cost a login or a page.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.1


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return as soon as `condition` holds; for states that no event announces.

    Raises:
        TimeoutError: it never did.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            verdict = condition()
            if await verdict if inspect.isawaitable(verdict) else verdict:
                return
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(1.2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


async def seconds_for(act: Awaitable[object]) -> float:
    """Return how long something takes on this machine: a measure for what must outlast it."""
    began = time.monotonic()
    await act
    return time.monotonic() - began
