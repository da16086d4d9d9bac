"""Names the event loops that can run a relay, and imports the chosen one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class EventLoop(StrEnum):
    """Which event loop runs the relay."""

    AUTO = "auto"
    UVLOOP = "uvloop"
    ASYNCIO = "asyncio"

    def factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Return the factory of the loop; None means asyncio's default.

        Raises `ModuleNotFoundError` if uvloop is requested but not installed.
        """
        if self is EventLoop.ASYNCIO:
            return None
        try:
            import uvloop
        except ModuleNotFoundError:
            if self is EventLoop.UVLOOP:
                raise
            return None
        return uvloop.new_event_loop
