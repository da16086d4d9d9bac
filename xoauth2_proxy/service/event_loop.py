"""The event loops that can run a relay. The command line names them, so this imports nothing."""

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
        """Return what makes the loop; None is asyncio's default.

        Raises `ModuleNotFoundError` where uvloop was asked for and is not there.
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
