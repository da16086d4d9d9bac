"""In every mode: what was planned is what was recorded is what the server saw."""

from __future__ import annotations

from itertools import product

import pytest

from bench.plan.arrivals import Pace, ProcessShare, Rate
from bench.plan.workloads import ConnectionReuse, Recipients, Sizes, Workload
from tests.benchmark.runs import exported, plan, run_of
from tests.benchmark.scripted_server import ScriptedServer, scripted_server
from tests.benchmark.trial import Trial, codes

RATE = Rate(per_second=300)
PACES = {
    "closed by count": Pace(num_emails=60),
    "closed for a time": Pace(duration_seconds=0.2),
    "open by count": Pace(num_emails=60, rate=RATE),
    "open for a time": Pace(duration_seconds=0.2, rate=RATE),
    "open with a ramp": Pace(
        duration_seconds=0.2,
        rate=Rate(per_second=500, ramp_from_per_second=50, ramp_seconds=0.1),
    ),
    "closed after a warm-up": Pace(num_emails=40, warmup_seconds=0.1),
    "open after a warm-up": Pace(num_emails=40, warmup_seconds=0.1, rate=RATE),
}
REUSES = {"kept": ConnectionReuse(), "per message": ConnectionReuse(1), "three": ConnectionReuse(3)}
MODES = [
    pytest.param(pace, reuse, is_pipelined, id=f"{pace}, {reuse}, pipelined: {is_pipelined}")
    for pace, reuse, is_pipelined in product(PACES, REUSES, (False, True))
]


@pytest.mark.parametrize(("pace", "reuse", "is_pipelined"), MODES)
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_planned_is_recorded_is_received(pace: str, reuse: str, is_pipelined: bool) -> None:
    what = plan(
        concurrent=4,
        pace=PACES[pace],
        workload=Workload(
            sizes=Sizes.parse("600:1,2k:1"),
            recipients=Recipients(1, 3),
            reuse=REUSES[reuse],
            is_pipelined=is_pipelined,
        ),
    )
    script = ScriptedServer(
        reply_to_content=lambda number: "550 5.7.1 no" if number % 7 == 0 else "250 ok",
        drops_connection=lambda number: number % 9 == 5,
    )
    async with scripted_server(script) as server:
        trial = Trial(server, what)
        result = await trial.result()
    exported(run_of(result, plan=what))

    assert result.planned == what.pace.planned
    assert result.dropped == 0
    if result.planned is not None:
        assert (result.attempted, result.not_attempted) == (result.planned, 0)
    assert result.attempted > 0
    assert set(codes(result)) <= {"550", "connection lost"}
    warmup = result.warmup
    assert (warmup.requests > 0) is bool(what.pace.warmup_seconds)
    if what.pace.warmup_count is not None:
        assert warmup.requests == what.pace.warmup_count

    received = [trial.messages.number(accepted.message_id) for accepted in server.accepted]
    taken_up = result.attempted + warmup.requests
    acknowledged = [n for n in range(taken_up) if trial.recorder.is_acknowledged(n)]
    assert sorted(n for n in received if n is not None) == acknowledged
    assert len(acknowledged) == trial.recorder.acknowledged == len(server.accepted)
    for accepted in server.accepted:
        number = trial.messages.number(accepted.message_id)
        assert number is not None
        assert accepted.content == trial.messages.content(number, accepted.mailbox)
        assert accepted.forward_paths == trial.messages.forward_paths(number)
    most = what.workload.reuse.messages
    if most is not None:
        assert server.connections >= taken_up / most


@pytest.mark.parametrize("pace", list(PACES))
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_two_shares_make_the_whole_run(pace: str) -> None:
    what = plan(concurrent=2, pace=PACES[pace])
    async with scripted_server() as server:
        trials = [Trial(server, what, ProcessShare(index, 2), "same") for index in range(2)]
        for trial in trials:
            await trial.load.run()
        merged = trials[0].recorder.merge(trials[1].recorder)
        result = merged.snapshot(1.0)
    if result.planned is not None:
        assert (result.succeeded, result.not_attempted) == (result.planned, 0)
    received = {trials[0].messages.number(accepted.message_id) for accepted in server.accepted}
    assert len(received) == len(server.accepted) == merged.acknowledged


async def test_a_connection_carries_as_many_messages_as_asked_for() -> None:
    what = plan(10, 1, workload=Workload(reuse=ConnectionReuse(3)))
    async with scripted_server() as server:
        result = await Trial(server, what).result()
    assert (server.connections, result.phases.connect.count) == (4, 4)
    assert server.commands.count(b"QUIT") == 4


async def test_a_connection_that_the_server_ends_between_messages_is_opened_again() -> None:
    async with scripted_server() as server:
        what = plan(pace=Pace(num_emails=2, rate=Rate(per_second=4)), concurrent=1)
        trial = Trial(server, what)
        trial.load.on_sample = lambda _: server.interrupt(b"421 4.4.2 idle\r\n")
        result = await trial.result()
    assert (result.succeeded, result.failed, server.connections) == (2, 0, 2)
