from __future__ import annotations

import asyncio

from bench.client.endpoint import Endpoint
from bench.client.login import ClientLogin, Mechanism
from bench.client.submission import ClientBehaviour
from bench.load.idle_clients import IdleClients
from bench.measurement.result import IdleClientFigures
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.waiting import PATIENCE_SECONDS, until


def idle_clients_at(
    server: ScriptedServer,
    clients: int,
    password: str = PASSWORD,
    behaviour: ClientBehaviour | None = None,
) -> IdleClients:
    logins = [
        ClientLogin(mailbox, Mechanism.PLAIN, lambda: password)
        for mailbox in ("a@x.test", "b@x.test")
    ]
    return IdleClients(Endpoint("127.0.0.1", server.port), logins, clients, behaviour)


async def test_they_log_in_stay_and_leave() -> None:
    async with scripted_server() as server, idle_clients_at(server, 120) as idle_clients:
        await idle_clients.open(asyncio.Event())
        assert (server.logged_in, server.open_now) == (120, 120)
        assert await idle_clients.close() == IdleClientFigures(clients=120, refused=0, lost=0)
        assert server.commands.count(b"QUIT") == 120


async def test_those_the_server_ends_are_lost() -> None:
    async with scripted_server() as server, idle_clients_at(server, 5) as idle_clients:
        await idle_clients.open(asyncio.Event())
        await server.end_sessions()
        await server.happened(lambda: server.open_now == 0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            # The clients notice in their own time, and have no event for it.
            while (figures := await idle_clients.close()).lost < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    assert figures == IdleClientFigures(clients=5, refused=0, lost=5)


async def test_those_it_does_not_let_in_are_refused() -> None:
    async with scripted_server() as server, idle_clients_at(server, 5, "wrong") as idle_clients:
        await idle_clients.open(asyncio.Event())
        assert await idle_clients.close() == IdleClientFigures(clients=5, refused=5, lost=0)


async def test_a_request_to_stop_keeps_the_rest_out() -> None:
    stop = asyncio.Event()
    async with scripted_server() as server, idle_clients_at(server, 500) as idle_clients:
        task = asyncio.create_task(idle_clients.open(stop))
        await server.happened(lambda: server.logged_in > 0)
        stop.set()
        await task
        assert server.logged_in < 200
        await idle_clients.close()


async def test_a_request_to_stop_turns_those_back_that_nobody_greets() -> None:
    stop = asyncio.Event()
    async with scripted_server() as server, idle_clients_at(server, 5) as idle_clients:
        server.stall()
        task = asyncio.create_task(idle_clients.open(stop))
        await until(lambda: server.connections == 5)
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task
            assert await idle_clients.close() == IdleClientFigures(clients=5, refused=0, lost=0)


async def test_nobody_comes_in_after_a_request_to_stop() -> None:
    stop = asyncio.Event()
    stop.set()
    async with scripted_server() as server, idle_clients_at(server, 5) as idle_clients:
        await idle_clients.open(stop)
        await idle_clients.close()
        assert server.connections == 0


async def test_a_cancelled_opening_leaves_nobody_on_the_way() -> None:
    async with scripted_server() as server, idle_clients_at(server, 5) as idle_clients:
        server.stall()
        task = asyncio.create_task(idle_clients.open(asyncio.Event()))
        await until(lambda: server.connections == 5)
        task.cancel()
        await asyncio.wait((task,), timeout=PATIENCE_SECONDS)
        assert task.cancelled()
        server.go_on()
        await until(lambda: server.open_now == 0)


async def test_they_wait_for_replies_as_long_as_they_are_told() -> None:
    async with (
        scripted_server() as server,
        idle_clients_at(server, 5, behaviour=ClientBehaviour(reply_seconds=0.05)) as idle_clients,
    ):
        server.stall()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await idle_clients.open(asyncio.Event())
        assert await idle_clients.close() == IdleClientFigures(clients=5, refused=5, lost=0)


async def test_leaving_without_a_word_ends_the_connections_all_the_same() -> None:
    async with scripted_server() as server:
        async with idle_clients_at(server, 10) as idle_clients:
            await idle_clients.open(asyncio.Event())
        await server.happened(lambda: server.open_now == 0)
        assert b"QUIT" not in server.commands


async def test_nobody_is_no_crowd() -> None:
    async with scripted_server() as server, idle_clients_at(server, 0) as idle_clients:
        await idle_clients.open(asyncio.Event())
        assert await idle_clients.close() == IdleClientFigures(clients=0, refused=0, lost=0)
        assert server.connections == 0
