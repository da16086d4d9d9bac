"""An event loop in a thread of its own, which takes work from every thread and ends in order."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_REST_SECONDS = 5.0  # for what still runs once everything is closed

T = TypeVar("T")


class LoopThread:
    """A thread with an event loop; it runs from its creation until `end`."""

    def __init__(self, name: str, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`close` is awaited on the loop before it ends."""
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()  # it cannot be cancelled
        self._process = os.getpid()
        self._close = close
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        # A daemon, since a program that never closes its manager must be able to end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it runs in this process: a fork has no threads but the one that forked."""
        return self._process == os.getpid() and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether this is the calling thread."""
        return threading.get_ident() == self._thread.ident

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start work on the loop; cancelling the future cancels it. Not for use after `end`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the loop, in the order of `call` and `submit`."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def end(self) -> None:
        """Begin to end, once; `ended` tells when that is done."""
        self.call(self._ending.set)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def _serve(self) -> None:
        await self._ending.wait()
        await self._close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # callers' tasks, whose results are there by now
            await asyncio.wait(others, timeout=_REST_SECONDS)
