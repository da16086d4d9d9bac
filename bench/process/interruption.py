"""Handles stop signals: the first ends the run properly, a second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

# SIGHUP: the terminal was closed, or the connection to it lost.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interruption:
    """Records a stop signal; handles signals while it is entered, in a running loop."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.signal_number = 0  # 0: no signal yet
        self.on_request: set[Callable[[], None]] = set()  # called with the first signal
        # Called, last one first, before the process ends at once: a process started in a folder is
        # killed before the folder is removed.
        self.on_abort: list[Callable[[], None]] = []
        self._taken: dict[signal.Signals, object] = {}  # with their previous handlers

    def __enter__(self) -> Self:
        # A signal that the caller ignores stays ignored: nohup(1) does that with SIGHUP.
        handlers = {one: signal.getsignal(one) for one in _SIGNALS}
        self._taken = {one: had for one, had in handlers.items() if had is not signal.SIG_IGN}
        for number in self._taken:
            asyncio.get_running_loop().add_signal_handler(number, self._receive, number)
        return self

    def __exit__(self, *_: object) -> None:
        for number, had in self._taken.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            if callable(had):  # asyncio leaves the signal to Python's own handler
                signal.signal(number, had)

    @property
    def exit_code(self) -> int:
        """A shell's exit code for the signal, such as 130 or 143; 0 without one."""
        return 128 + self.signal_number if self.signal_number else 0

    @property
    def signal_name(self) -> str:
        """The signal's name; "" without one."""
        return signal.Signals(self.signal_number).name if self.signal_number else ""

    def _receive(self, number: int) -> None:
        if self.requested.is_set():
            for callback in reversed(self.on_abort):
                callback()
            os._exit(128 + number)
        self.signal_number = number
        self.requested.set()
        for callback in tuple(self.on_request):
            callback()
