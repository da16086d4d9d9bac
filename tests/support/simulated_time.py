"""An event loop with a clock of its own, for tests of timers.

Its time stands still while there is anything to do, and leaps to the next timer when there is
nothing. So a second of idleness is exactly that, whatever the machine does meanwhile. The sockets
are real; work in threads and processes is not waited for before a leap.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# In real time, for what one of the loop's sockets has sent to reach another.
_ON_ITS_WAY_SECONDS = 0.02


class SimulatedTimeLoop(asyncio.SelectorEventLoop):
    """The event loop."""

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__(_LeapingSelector(self._leap))

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self._now

    def _leap(self, seconds: float) -> None:
        self._now += seconds


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(_ON_ITS_WAY_SECONDS)
        if not ready:
            self._leap(timeout)
        return ready
