from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from bench.measurement.result import ProviderFigures
from bench.reconciliation.provider_counters import ProviderCounters, difference, read
from bench.targets import http_client
from bench.targets.http_client import FetchFailed, fetch_object
from tests.benchmark.scripted_server import ScriptedServer
from tests.benchmark.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAILBOXES = ("Someone@Example.org",)


async def test_the_difference_of_two_readings() -> None:
    server = ScriptedServer(connections=3, logged_in=2, contents=5)
    async with stand_in(server, token_refreshes=4) as url:
        before = await read(url, url)
        server.connections, server.logged_in, server.contents = 8, 6, 9
        after = await read(url, url)
    assert before is not None
    assert before.token_requests == 5
    assert difference(before, after, MAILBOXES) == ProviderFigures(
        connections_opened=5,
        peak_connections_per_mailbox=8,
        auth_accepted=4,
        auth_refused=0,
        transactions_accepted=0,
        transactions_refused=4,
        turns=0,
        token_requests=0,
    )


async def test_without_an_admin_server_there_are_no_token_requests() -> None:
    async with stand_in(ScriptedServer()) as url:
        reading = await read(url, "")
        gone = await read(url, "http://127.0.0.1:1")
    assert (reading and reading.token_requests, gone and gone.token_requests) == (None, None)


async def test_without_a_sandbox_there_are_no_figures() -> None:
    async with stand_in(ScriptedServer()) as url:
        assert await read("", url) is None
        reading = await read(url, url)
    assert await read(url, url) is None
    assert difference(reading, None, MAILBOXES) is None
    assert difference(None, reading, MAILBOXES) is None


def test_counters_of_another_form_are_not_trusted() -> None:
    assert difference(ProviderCounters({}, 1), ProviderCounters({}, 2), MAILBOXES) is None


@asynccontextmanager
async def answering(body: bytes, status: int = 200) -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{}", 500, "does not answer"),
        (b"<html>", 200, "not JSON"),
        (b"[]", 200, "not a JSON object"),
        (b"x" * 2000, 200, "too long"),
    ],
)
async def test_answers_that_are_of_no_use(
    body: bytes, status: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "_MAX_BYTES", 1000)
    async with answering(body, status) as url:
        with pytest.raises(FetchFailed, match=reason):
            await fetch_object(url)
