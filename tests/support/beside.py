"""A test's own server in a thread beside it, for tests whose command has an event loop itself."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


@contextmanager
def beside(served: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an asynchronous context on an event loop in another thread; leave it at the end."""
    entered: Future[tuple[T, Callable[[], object]]] = Future()

    async def stay() -> None:
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with served as value:
                entered.set_result((value, lambda: loop.call_soon_threadsafe(is_over.set)))
                await is_over.wait()
            await _others_ended()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    with ThreadPoolExecutor(1) as thread:
        staying = thread.submit(asyncio.run, stay())
        value, end = entered.result(PATIENCE_SECONDS)
        try:
            yield value
        finally:
            end()
            staying.result(PATIENCE_SECONDS)


async def _others_ended() -> None:
    """Let connections end that were accepted in the last moment; their clients have gone."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
