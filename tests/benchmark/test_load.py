from __future__ import annotations

import asyncio
from collections import Counter

from bench.client.submission import Endpoint, Login, Mechanism
from bench.sending.load import Load
from tests.benchmark.runs import MAILBOX, plan
from tests.benchmark.scripted_server import ScriptedServer, scripted_server
from tests.benchmark.trial import Trial, codes


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
        login = Login(MAILBOX, Mechanism.PLAIN, lambda: "wrong")
        trial.load = Load(
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
