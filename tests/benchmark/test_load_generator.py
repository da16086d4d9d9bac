from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from bench.client.endpoint import Endpoint
from bench.client.login import ClientLogin, Mechanism
from bench.load.generator import LoadGenerator
from bench.plan.arrivals import Pace, Rate
from tests.benchmark.runs import MAILBOX, plan
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.benchmark.trial import Trial, codes
from tests.support.waiting import until

if TYPE_CHECKING:
    from bench.plan.scenarios import RunPlan


async def test_planned_is_attempted_is_recorded_is_received() -> None:
    async with scripted_server() as server:
        trial = Trial(server, plan(200, 7))
        result = await trial.result()
    assert (result.planned, result.succeeded, result.failed) == (200, 200, 0)
    numbers = Counter(trial.messages.number(accepted.message_id) for accepted in server.accepted)
    assert numbers == Counter(range(200))
    for accepted in server.accepted:
        number = trial.messages.number(accepted.message_id)
        assert number is not None
        assert accepted.content == trial.messages.content(number, accepted.mailbox)


async def test_each_connection_is_kept_and_takes_its_login_in_turn() -> None:
    mailboxes = ("a@x.test", "b@x.test", "c@x.test")
    async with scripted_server() as server:
        result = await Trial(server, plan(60, 6, mailboxes=mailboxes)).result()
    assert server.connections == 6
    assert result.phases.connect.count == result.phases.auth.count == 6
    assert result.phases.transaction.count == result.latency.count == 60
    assert {accepted.mailbox for accepted in server.accepted} == set(mailboxes)
    assert all(accepted.reverse_path == accepted.mailbox for accepted in server.accepted)


async def test_no_more_connections_than_messages() -> None:
    async with scripted_server() as server:
        await Trial(server, plan(3, 50)).result()
    assert server.connections == 3


async def test_refused_messages_are_counted_by_code_and_the_rest_arrives() -> None:
    script = ScriptedServer(
        reply_to_content=lambda number: "550 5.7.1 no" if number % 3 == 0 else "250 ok"
    )
    async with scripted_server(script) as server:
        result = await Trial(server, plan(30, 4)).result()
    assert codes(result) == {"550": 10}
    assert (result.succeeded, len(server.accepted), server.connections) == (20, 20, 4)


async def test_dropped_connections_are_counted_and_opened_again() -> None:
    script = ScriptedServer(drops_connection=lambda number: number % 5 == 0)
    async with scripted_server(script) as server:
        result = await Trial(server, plan(50, 10)).result()
    # Connections 5 and 10 are dropped; 11 and 12 take their place.
    assert codes(result) == {"connection lost": 2}
    assert (result.succeeded, result.not_attempted, server.connections) == (48, 0, 12)


async def test_wrong_password_fails_every_message_once() -> None:
    async with scripted_server() as server:
        what = plan(20, 3)
        trial = Trial(server, what)
        login = ClientLogin(MAILBOX, Mechanism.PLAIN, lambda: "wrong")
        trial.load = LoadGenerator(
            what, Endpoint("127.0.0.1", server.port), [login], trial.messages, trial.recorder
        )
        result = await trial.result()
    assert codes(result) == {"535": 20}
    assert result.latency.count == 0


async def test_stop_lets_sends_in_flight_finish_and_begins_no_more() -> None:
    async with scripted_server(ScriptedServer(hold_after=10)) as server:
        trial = Trial(server, plan(100, 4))
        task = asyncio.create_task(trial.result())
        await server.held(4)
        trial.load.stop()
        trial.load.stop()  # asking twice changes nothing
        server.released.set()
        result = await task
    assert (result.succeeded, result.failed, result.not_attempted) == (14, 0, 86)
    assert len(server.accepted) == 14


async def test_stop_is_bounded_by_the_drain_time() -> None:
    async with scripted_server(ScriptedServer(hold_after=10)) as server:
        trial = Trial(server, plan(100, 4, drain_seconds=0.05))
        task = asyncio.create_task(trial.result())
        await server.held(4)
        trial.load.stop()
        result = await task
    assert (result.succeeded, result.not_attempted) == (10, 86)
    assert codes(result) == {"cut short": 4}


def lasting(seconds: float, rate: Rate | None = None, **changes: Any) -> Any:
    return plan(pace=Pace(duration_seconds=seconds, rate=rate), **changes)


@pytest.mark.parametrize("is_stopped_too", [False, True])
async def test_a_run_by_duration_is_bounded_whatever_the_server_does(is_stopped_too: bool) -> None:
    async with scripted_server() as server:
        server.stall()
        trial = Trial(server, lasting(0.2, concurrent=3, drain_seconds=0.1))
        if is_stopped_too:  # at the very moment when the time is over
            trial.load.on_sample = lambda _: trial.load.stop()
        result = await trial.result()
    assert codes(result) == {"cut short": 3}
    assert (result.attempted, result.is_partial) == (3, False)


async def test_sends_in_flight_at_the_end_of_a_duration_may_finish() -> None:
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        trial = Trial(server, lasting(0.2, concurrent=3))
        task = asyncio.create_task(trial.result())
        await server.held(3)
        await until(lambda: trial.load.measured_seconds > 0.2)
        server.released.set()
        result = await task
    assert (result.succeeded, result.failed) == (3, 0)


async def test_arrivals_nobody_took_up_by_the_end_of_the_drain_time_are_dropped() -> None:
    async with scripted_server() as server:
        server.stall()
        trial = Trial(server, lasting(0.2, Rate(per_second=5000), drain_seconds=0.1))
        result = await trial.result()
    assert codes(result) == {"cut short": 2}
    assert (result.planned, result.dropped, result.not_attempted) == (1000, 998, 0)


async def test_a_message_that_is_due_as_the_time_to_drain_ends_is_settled_like_all() -> None:
    async with scripted_server() as server:
        trial = Trial(server, lasting(0.05, Rate(per_second=1000), concurrent=9, drain_seconds=0))
        result = await trial.result()
    assert result.planned == result.attempted + result.dropped == 50


async def test_stop_after_a_duration_leaves_the_rest_unattempted() -> None:
    async with scripted_server() as server:
        server.stall()
        trial = Trial(server, lasting(0.2, Rate(per_second=100)))
        task = asyncio.create_task(trial.result())
        await until(lambda: trial.load.measured_seconds > 0.2)
        trial.load.stop()
        server.go_on()
        result = await task
    assert (result.succeeded, result.dropped, result.not_attempted) == (2, 0, 18)


async def test_replies_are_waited_for_as_long_as_the_plan_says() -> None:
    async with scripted_server() as server:
        server.stall()
        result = await Trial(server, plan(4, 2, reply_seconds=0.5)).result()
    assert codes(result) == {"timeout": 4}


async def test_stop_before_the_start_sends_nothing() -> None:
    async with scripted_server() as server:
        trial = Trial(server, plan(10, 2))
        trial.load.stop()
        result = await trial.result()
    assert (result.not_attempted, server.connections) == (10, 0)
    trial.load.stop()  # and after the end it does nothing


async def test_wall_time_covers_the_messages_only() -> None:
    async with scripted_server() as server:
        trial = Trial(server, plan(20, 1))
        result = await trial.result()
    assert result.latency.avg_seconds is not None
    assert result.wall_seconds >= result.latency.avg_seconds * 20 * 0.99
    assert trial.load.wall_seconds == result.wall_seconds


def trial_at_nobody(what: RunPlan) -> tuple[Trial, socket.socket]:
    """A load against a port that refuses; it does while the socket is held."""
    bound = socket.socket()  # bound and not listening: refuses, and stays ours
    bound.bind(("127.0.0.1", 0))
    return Trial(ScriptedServer(port=bound.getsockname()[1]), what), bound


async def test_a_server_that_refuses_is_not_overrun() -> None:
    trial, bound = trial_at_nobody(lasting(0.5, concurrent=2))
    with bound:
        result = await trial.result()
    assert set(codes(result)) == {"connection refused"}
    # At 0, 20, 60, 140, 300 ms, and every 200 ms from then on.
    assert 2 <= result.failed <= 12


async def test_every_planned_message_is_settled_though_no_connection_can_be_opened() -> None:
    trial, bound = trial_at_nobody(plan(100, 10))
    with bound:
        result = await trial.result()
    assert codes(result) == {"connection refused": 100}
    assert result.not_attempted == 0


async def test_a_connection_that_pauses_leaves_its_turns_to_the_others() -> None:
    async with scripted_server() as server:
        what = plan(600, 2, mailboxes=("good@x.test", "bad@x.test"))
        trial = Trial(server, what)
        secrets = {"good@x.test": PASSWORD, "bad@x.test": "wrong"}
        logins = [
            ClientLogin(one, Mechanism.PLAIN, lambda one=one: secrets[one])  # type: ignore[misc]
            for one in secrets
        ]
        trial.load = LoadGenerator(
            what, Endpoint("127.0.0.1", server.port), logins, trial.messages, trial.recorder
        )
        result = await trial.result()
    assert result.attempted == 600
    assert 1 <= codes(result)["535"] <= 6 + 5 * result.wall_seconds  # five a second at most


async def test_arrivals_do_not_wait_for_a_server_that_refuses() -> None:
    what = plan(pace=Pace(num_emails=500, rate=Rate(per_second=5000)), concurrent=1)
    trial, bound = trial_at_nobody(what)
    with bound:
        result = await trial.result()
    assert codes(result) == {"connection refused": 500}
    assert result.wall_seconds < 50  # with pauses it would be a hundred
