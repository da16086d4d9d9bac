from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from bench.plan.arrivals import Pace, Rate
from tests.benchmark.runs import plan
from tests.benchmark.scripted_server import ScriptedServer, scripted_server
from tests.benchmark.trial import Trial
from tests.support.waiting import seconds_for

if TYPE_CHECKING:
    from bench.measurement.result import Distribution
    from bench.measurement.sample import Sample


def paced(per_second: float, concurrent: int, **pace: Any) -> Any:
    return plan(pace=Pace(rate=Rate(per_second=per_second), **pace), concurrent=concurrent)


async def test_messages_begin_when_they_are_due_and_not_before() -> None:
    samples: list[Sample] = []
    async with scripted_server() as server:
        trial = Trial(server, paced(100, 10, num_emails=30))
        trial.load.on_sample = samples.append
        result = await trial.result()
    assert result.wall_seconds >= 0.29
    assert result.lateness.count == 30
    assert all(sample.lateness_seconds is not None for sample in samples)
    assert all((sample.lateness_seconds or 0.0) >= 0 for sample in samples)
    for sample in samples:
        waited = sample.latency_seconds - sample.service_seconds
        assert abs(waited - (sample.lateness_seconds or 0.0)) < 1e-9
        due = sample.number / 100
        assert abs(sample.at_seconds - sample.latency_seconds - due) < 1e-6


async def test_a_server_that_stalls_is_seen_as_latency_of_all_that_came_meanwhile() -> None:
    samples: list[Sample] = []
    # So long that no message takes as long by itself, however slow the machine.
    stall_seconds = max(1.0, 50 * await seconds_of_a_message())
    per_second = 200 / stall_seconds
    async with scripted_server() as server:
        trial = Trial(server, paced(per_second, 4, num_emails=300))
        trial.load.on_sample = samples.append
        task = asyncio.create_task(trial.result())
        await server.happened(lambda: server.contents >= 50)
        server.stall()
        stalled = time.perf_counter()
        await asyncio.sleep(stall_seconds)
        seconds = time.perf_counter() - stalled
        server.go_on()
        result = await task

    assert (result.succeeded, result.dropped) == (300, 0)
    assert result.latency.max_seconds is not None
    assert result.latency.max_seconds >= seconds * 0.95
    # About 200 messages were due meanwhile; all but the four in flight had no connection.
    slow = [sample for sample in samples if sample.latency_seconds > seconds / 10]
    assert len(slow) >= 150
    assert result.late_starts >= 150
    assert percentile_seconds(result.latency) > seconds * 0.8
    # Measured from the actual start the stall has all but vanished: what a closed loop would see.
    assert sum(sample.service_seconds > seconds / 2 for sample in samples) <= 4 + 4
    waited = [sample for sample in samples if (sample.lateness_seconds or 0) > seconds / 10]
    assert sum(not sample.has_waited for sample in waited) <= len(waited) / 10
    gap = [stretch for stretch in result.timeline.bins if not stretch.successful]
    assert len(gap) * result.timeline.bin_seconds >= 0.7 * seconds


async def seconds_of_a_message() -> float:
    async with scripted_server() as server:
        return await seconds_for(Trial(server, plan(20, 4)).result()) / 20


def percentile_seconds(distribution: Distribution) -> float:
    assert distribution.p99_seconds is not None
    return distribution.p99_seconds


async def test_what_would_be_too_late_is_dropped_and_reported() -> None:
    async with scripted_server() as server:
        trial = Trial(server, paced(200, 2, num_emails=300, max_lateness_seconds=0.2))
        task = asyncio.create_task(trial.result())
        await server.happened(lambda: server.contents >= 20)
        server.stall()
        await asyncio.sleep(0.6)
        server.go_on()
        result = await task
    assert result.dropped > 40
    assert result.planned == result.succeeded + result.dropped == 300
    assert result.not_attempted == 0
    assert len(server.accepted) == result.succeeded
    assert sum(stretch.dropped for stretch in result.timeline.bins) == result.dropped
    assert not result.is_complete


async def test_who_begins_late_keeps_to_the_schedule_and_takes_the_blame() -> None:
    samples: list[Sample] = []
    async with scripted_server() as server:
        trial = Trial(server, paced(100, 4, num_emails=50))
        trial.load.on_sample = samples.append
        await trial.load.run(time.perf_counter() - 1.0)
        result = trial.recorder.snapshot(trial.load.wall_seconds)
    assert result.succeeded == 50
    assert result.wall_seconds >= 1.0
    for sample in samples:
        assert abs(sample.at_seconds - sample.latency_seconds - sample.number / 100) < 1e-6
    assert trial.recorder.own_late_starts == 50


async def test_no_more_are_in_flight_than_there_are_connections() -> None:
    most = 0

    def seen(_: int) -> float:
        nonlocal most
        most = max(most, server.open_now)
        return 0.02

    async with scripted_server(ScriptedServer(delay_seconds=seen)) as server:
        result = await Trial(server, paced(1000, 3, num_emails=60)).result()
    assert (most, server.connections) == (3, 3)
    assert result.succeeded == 60
    assert result.late_starts > 30  # three connections carry 150 a second


async def test_stopping_ends_the_wait_for_the_next_arrival() -> None:
    async with scripted_server() as server:
        trial = Trial(server, paced(0.01, 5, num_emails=10))
        task = asyncio.create_task(trial.result())
        await server.happened(lambda: server.contents >= 1)
        trial.load.stop()
        result = await task
    assert (result.attempted, result.not_attempted) == (1, 9)


async def test_stopping_among_drops_leaves_the_rest_unattempted() -> None:
    async with scripted_server(ScriptedServer(hold_after=5)) as server:
        trial = Trial(server, paced(500, 1, num_emails=100_000, max_lateness_seconds=0.01))
        task = asyncio.create_task(trial.result())
        await server.held(1)
        trial.load.stop()
        server.released.set()
        result = await task
    assert result.attempted == result.succeeded == len(server.accepted)
    assert (result.not_attempted or 0) > 50_000


async def test_the_warm_up_takes_the_first_of_the_arrivals() -> None:
    async with scripted_server() as server:
        trial = Trial(server, paced(200, 8, num_emails=20, warmup_seconds=0.2))
        began = time.perf_counter()
        result = await trial.result()
        took_seconds = time.perf_counter() - began
    assert (result.warmup.requests, result.succeeded) == (40, 20)
    numbers = [trial.messages.number(accepted.message_id) for accepted in server.accepted]
    assert sorted(n for n in numbers if n is not None) == list(range(60))
    assert result.wall_seconds <= took_seconds - 0.2
    # The connections were opened in the warm-up.
    assert result.phases.connect.count < 8
