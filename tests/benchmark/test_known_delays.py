"""A server of known slowness, and one that loses: the figures have to be those."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from bench.measurement.result import Reconciliation
from bench.reconciliation.reconcile import SandboxMessages, reconcile
from tests.benchmark.runs import plan
from tests.benchmark.scripted_server import ScriptedServer, scripted_server
from tests.benchmark.stand_in import stand_in
from tests.benchmark.trial import Trial
from tests.support.waiting import seconds_for

if TYPE_CHECKING:
    from bench.measurement.sample import Sample

_TIMER_SECONDS = 0.001  # an event loop's timers are rounded to it


@pytest.mark.parametrize(
    ("every", "slow", "fast"),
    [
        (10, ("p95", "p99", "p999", "max"), ("min", "p50")),
        (2, ("p90", "p95", "p99", "p999", "max"), ("min",)),
        (50, ("p99", "p999", "max"), ("min", "p50")),
    ],
)
async def test_every_nth_reply_delayed_gives_the_known_percentiles(
    every: int, slow: tuple[str, ...], fast: tuple[str, ...]
) -> None:
    async with scripted_server() as server:
        fast_seconds = await seconds_for(Trial(server, plan(20, 5)).result()) / 4  # one of five
    # Half of the messages are fast, even if a busy machine holds up some of the others.
    slow_seconds = max(0.3, 50 * fast_seconds)
    script = ScriptedServer(
        delay_seconds=lambda number: slow_seconds if number % every == 0 else 0.0
    )
    samples: list[Sample] = []
    async with scripted_server(script) as server:
        trial = Trial(server, plan(100, 5))
        trial.load.on_sample = samples.append
        result = await trial.result()
    for name in slow:
        assert getattr(result.latency, f"{name}_seconds") >= slow_seconds - _TIMER_SECONDS
    for name in fast:
        assert getattr(result.latency, f"{name}_seconds") < slow_seconds / 2
    # And each percentile is the ranked latency within the histogram's error.
    exact = sorted(sample.latency_seconds for sample in samples)
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)):
        ranked = exact[math.ceil(round(q * len(exact), 6)) - 1]
        measured = getattr(result.latency, f"{name}_seconds")
        assert ranked - 1e-6 <= measured <= ranked * 1.01 + 1e-6
    total = sum(bucket.count for bucket in result.histogram)
    above = sum(
        b.count for b in result.histogram if b.up_to_seconds >= slow_seconds - _TIMER_SECONDS
    )
    assert total == 100
    assert 100 // every <= above <= sum(one >= 0.98 * slow_seconds for one in exact)


async def test_a_server_that_acknowledges_and_drops_is_found_to_lose_exactly_those() -> None:
    script = ScriptedServer(
        loses=lambda number: number % 9 == 0,
        reply_to_content=lambda number: "452 4.3.1 full" if number % 10 == 0 else "250 ok",
    )
    async with scripted_server(script) as server, stand_in(server) as url:
        trial = Trial(server, plan(90, 6))
        await trial.result()
        found = await reconcile(
            SandboxMessages(url), 0, trial.messages, trial.recorder, plan().mailboxes
        )
    assert found == Reconciliation(
        acknowledged=81, arrived=72, lost=9, duplicated=0, corrupted=0, unexpected=0
    )
