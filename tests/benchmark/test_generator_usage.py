from __future__ import annotations

import asyncio
import pickle
import sys
import time
from pathlib import Path

import pytest

from bench.load.generator_usage import GeneratorUsage, measuring_usage
from bench.measurement.histogram import Histogram
from tests.support.waiting import until


def lag(*milliseconds: int) -> Histogram:
    made = Histogram()
    for value in milliseconds:
        made.add(value * 1000)
    return made


async def test_a_blocked_event_loop_is_seen_as_lag_and_as_cpu_time() -> None:
    usage = GeneratorUsage()
    async with measuring_usage(usage):
        for _ in range(5):
            await asyncio.sleep(0.025)  # lets it begin to sleep
            ended = time.process_time() + 0.1
            while time.process_time() < ended:
                pass
    figures = usage.figures(100, 0)
    assert figures.loop_lag.max_seconds is not None
    assert figures.loop_lag.max_seconds >= 0.05
    assert 0.5 <= figures.cpu_seconds <= usage.watched_seconds
    assert 0 < figures.cpu_share <= 1
    assert figures.was_bottleneck
    assert "event loop" in figures.reason


async def test_an_idle_generator_is_no_bottleneck() -> None:
    usage = GeneratorUsage()
    async with measuring_usage(usage):
        await until(lambda: usage.lag.count > 3)
    # Whether other processes leave it a core is not in its hands.
    reason = usage.figures(100, 0).reason
    assert not [word for word in ("used", "began") if word in reason]


async def test_the_warm_up_is_not_watched() -> None:
    usage = GeneratorUsage()
    async with measuring_usage(usage, 60.0):
        await asyncio.sleep(0.05)
    assert (usage.cpu_seconds, usage.watched_seconds, usage.lag.count) == (0.0, 0.0, 0)
    assert usage.figures(0, 0).cpu_share == 0.0


@pytest.mark.parametrize(
    ("usage", "late", "reason"),
    [
        (GeneratorUsage(cpu_seconds=0.91, watched_seconds=1.0), 0, "it used 91% of a core"),
        (GeneratorUsage(cpu_seconds=0.89, watched_seconds=1.0), 0, ""),
        (GeneratorUsage(lag=lag(*[1] * 50, 60)), 0, "its event loop was 60 ms late at p99"),
        (GeneratorUsage(lag=lag(*[1] * 500, 60)), 0, ""),
        (GeneratorUsage(), 11, "it began 11 messages late while connections were free"),
        (GeneratorUsage(), 10, ""),
        # The share of a short time is chance.
        (GeneratorUsage(cpu_seconds=0.4, watched_seconds=0.4, starved_seconds=0.4), 0, ""),
        (
            GeneratorUsage(cpu_seconds=0.2, watched_seconds=1.0, starved_seconds=0.3),
            0,
            "it waited 30% of the time for a core to be free",
        ),
        (GeneratorUsage(cpu_seconds=0.2, watched_seconds=1.0, starved_seconds=0.2), 0, ""),
    ],
)
def test_when_it_was_the_bottleneck(usage: GeneratorUsage, late: int, reason: str) -> None:
    figures = usage.figures(1000, late)
    assert (figures.was_bottleneck, figures.reason) == (bool(reason), reason)


def test_several_processes_add_up_and_the_share_is_of_one_core_each() -> None:
    parts = [
        GeneratorUsage(cpu_seconds=0.5, watched_seconds=1.0, lag=lag(1)),
        GeneratorUsage(cpu_seconds=1.0, watched_seconds=1.0, lag=lag(3)),
    ]
    first, second = pickle.loads(pickle.dumps(parts))
    figures = first.merge(second).figures(1, 0)
    assert (figures.processes, figures.cpu_seconds, figures.cpu_share) == (2, 1.5, 0.75)
    assert figures.loop_lag.max_seconds == 0.003


def used(*cpu_seconds: float, watched_seconds: float = 1.0) -> GeneratorUsage:
    """What several processes saw of themselves."""
    whole = GeneratorUsage(processes=0)
    for one in cpu_seconds:
        whole = whole.merge(GeneratorUsage(cpu_seconds=one, watched_seconds=watched_seconds))
    return pickle.loads(pickle.dumps(whole))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("usage", "cores", "reason"),
    [
        # The mean of these is no more than half.
        (used(0.95, 0.05), 8, "one of its processes used 95% of a core"),
        (used(0.5, 0.5, 0.5, 0.4), 2, "its processes used 1.9 of 2 cores"),
        (used(0.5, 0.5, 0.5, 0.4), 4, ""),
        (used(0.4, 0.4, watched_seconds=0.4), 1, ""),
        (used(0.1).merge(used(0.4, watched_seconds=0.4)), 1, ""),
        (
            used(0.1).merge(
                GeneratorUsage(cpu_seconds=0.2, watched_seconds=1.0, starved_seconds=0.5)
            ),
            8,
            "one of its processes waited 50% of the time for a core to be free",
        ),
    ],
)
def test_the_fullest_process_and_the_whole_machine_are_judged(
    usage: GeneratorUsage, cores: int, reason: str
) -> None:
    figures = usage.figures(1000, 0, cores)
    assert (figures.was_bottleneck, figures.reason) == (bool(reason), reason)


@pytest.mark.parametrize(
    ("usage", "late", "cores", "advice"),
    [
        (used(0.95), 0, 8, "Use more --processes."),
        (used(0.95, 0.05), 0, 8, "Use more --processes."),
        # More processes have no more cores.
        (used(0.95), 0, 1, "fewer --processes, or send from another machine"),
        (used(0.5, 0.5, 0.5, 0.4), 0, 2, "fewer --processes, or send from another machine"),
        (
            GeneratorUsage(
                cpu_seconds=0.38, watched_seconds=1.0, starved_seconds=0.26, lag=lag(60)
            ),
            500,
            2,
            "fewer --processes, or send from another machine",
        ),
        (GeneratorUsage(lag=lag(60)), 0, 2, "It stalled at times"),
        (GeneratorUsage(), 500, 2, "a lower --arrival-rate"),
        (GeneratorUsage(), 0, 2, ""),
    ],
)
def test_the_advice_follows_from_the_gravest_reason(
    usage: GeneratorUsage, late: int, cores: int, advice: str
) -> None:
    given = usage.figures(1000, late, cores).advice
    assert advice in given
    assert bool(given) is bool(advice)


def test_a_process_that_sends_nothing_is_counted_with_what_it_used_only() -> None:
    own = GeneratorUsage(processes=0, cpu_seconds=0.95, watched_seconds=1.0)
    figures = used(0.1, 0.1).merge(own).figures(1000, 0, 8)
    assert figures.processes == 2
    assert figures.cpu_seconds == pytest.approx(1.15)
    assert figures.reason == "one of its processes used 95% of a core"


SHARING_A_CORE = """
import asyncio, os, time
from bench.load.generator_usage import GeneratorUsage, measuring_usage

def burn(seconds):
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass

async def main():
    usage = GeneratorUsage()
    async with measuring_usage(usage):
        await asyncio.sleep(0.1)  # by then it measures
        burn(1.0)
    print(usage.starved_seconds)

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if os.fork() == 0:
    burn(1.5)
    os._exit(0)
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell")
async def test_waiting_for_a_core_that_another_process_has_is_seen() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SHARING_A_CORE),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert float(out) > 0.1  # half of the second, were they alone
