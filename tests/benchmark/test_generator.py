from __future__ import annotations

import asyncio
import pickle
import time

import pytest

from bench.figures.histogram import Histogram
from bench.sending.generator import Watch, watching


def lag(*milliseconds: int) -> Histogram:
    made = Histogram()
    for value in milliseconds:
        made.add(value * 1000)
    return made


async def test_a_blocked_event_loop_is_seen_as_lag_and_as_cpu_time() -> None:
    watch = Watch()
    async with watching(watch):
        for _ in range(5):
            await asyncio.sleep(0.025)  # lets it begin to sleep
            ended = time.process_time() + 0.1
            while time.process_time() < ended:
                pass
    figures = watch.figures(100, 0)
    assert figures.loop_lag.max_seconds is not None
    assert figures.loop_lag.max_seconds >= 0.05
    assert 0.5 <= figures.cpu_seconds <= watch.watched_seconds
    assert 0 < figures.cpu_share <= 1
    assert figures.was_bottleneck
    assert "event loop" in figures.reason


async def test_an_idle_generator_is_no_bottleneck() -> None:
    watch = Watch()
    async with watching(watch):
        await asyncio.sleep(0.2)
    figures = watch.figures(100, 0)
    assert (figures.was_bottleneck, figures.reason) == (False, "")
    assert watch.lag.count > 3


async def test_the_warm_up_is_not_watched() -> None:
    watch = Watch()
    async with watching(watch, 60.0):
        await asyncio.sleep(0.05)
    assert (watch.cpu_seconds, watch.watched_seconds, watch.lag.count) == (0.0, 0.0, 0)
    assert watch.figures(0, 0).cpu_share == 0.0


@pytest.mark.parametrize(
    ("watch", "late", "reason"),
    [
        (Watch(cpu_seconds=0.91, watched_seconds=1.0), 0, "it used 91% of a core"),
        (Watch(cpu_seconds=0.89, watched_seconds=1.0), 0, ""),
        (Watch(lag=lag(*[1] * 50, 60)), 0, "its event loop was 60 ms late at p99"),
        (Watch(lag=lag(*[1] * 500, 60)), 0, ""),
        (Watch(), 11, "it began 11 messages late while connections were free"),
        (Watch(), 10, ""),
    ],
)
def test_when_it_was_the_bottleneck(watch: Watch, late: int, reason: str) -> None:
    figures = watch.figures(1000, late)
    assert (figures.was_bottleneck, figures.reason) == (bool(reason), reason)


def test_several_processes_add_up_and_the_share_is_of_one_core_each() -> None:
    parts = [
        Watch(cpu_seconds=0.5, watched_seconds=1.0, lag=lag(1)),
        Watch(cpu_seconds=1.0, watched_seconds=1.0, lag=lag(3)),
    ]
    first, second = pickle.loads(pickle.dumps(parts))
    figures = first.merge(second).figures(1, 0)
    assert (figures.processes, figures.cpu_seconds, figures.cpu_share) == (2, 1.5, 0.75)
    assert figures.loop_lag.max_seconds == 0.003
