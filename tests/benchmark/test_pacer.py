from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.load.pacer import Pacer
from bench.plan.arrivals import Pace
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Coroutine


def pacer_of(pace: Pace) -> Pacer:
    def on_drop(number: int, is_warmup: bool) -> None:
        raise AssertionError("in the closed model nothing is dropped")

    return Pacer(pace, on_drop)


async def begun(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    """A task that has come to its first wait."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_stopping_ends_a_pause() -> None:
    pacer = pacer_of(Pace(num_emails=5))
    await pacer.start()
    pausing = await begun(pacer.pause(3600))
    pacer.stop()
    await asyncio.wait_for(pausing, PATIENCE_SECONDS)
    await asyncio.wait_for(pacer.pause(3600), PATIENCE_SECONDS)
    assert await pacer.turn() is None


async def test_a_pause_ends_with_the_last_turn_which_another_takes() -> None:
    pacer = pacer_of(Pace(num_emails=1))
    await pacer.start()
    pausing = await begun(pacer.pause(3600))
    assert await pacer.turn() is not None
    await asyncio.wait_for(pausing, PATIENCE_SECONDS)
    assert await pacer.turn() is None


async def test_a_pause_ends_with_the_time_of_the_run() -> None:
    pacer = pacer_of(Pace(duration_seconds=0.05))
    await pacer.start()
    await asyncio.wait_for(pacer.pause(3600), PATIENCE_SECONDS)


async def test_a_start_to_come_is_waited_for_to_its_moment() -> None:
    pacer = pacer_of(Pace(num_emails=5))
    at = time.perf_counter() + 0.1
    await pacer.start(at)
    assert time.perf_counter() >= at
    turn = await pacer.turn()
    assert turn is not None
    assert not turn.is_warmup


async def test_stopping_ends_the_wait_for_the_start() -> None:
    pacer = pacer_of(Pace(num_emails=5))
    starting = await begun(pacer.start(time.perf_counter() + 3600))
    pacer.stop()
    await asyncio.wait_for(starting, PATIENCE_SECONDS)
    assert await pacer.turn() is None


async def test_time_that_began_before_ends_as_agreed() -> None:
    pacer = pacer_of(Pace(duration_seconds=5, warmup_seconds=1))
    await pacer.start(time.perf_counter() - 2)
    turn = await pacer.turn()
    assert turn is not None
    assert not turn.is_warmup
    await pacer.start(time.perf_counter() - 7)
    assert await pacer.turn() is None
