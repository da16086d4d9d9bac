"""The operator's side over HTTP: health, readiness and metrics, and who may see them."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.relay import MAILBOX, OTHER_MAILBOX
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import __version__
from xoauth2_proxy.admin.health import Health, Status, WorkersHealth
from xoauth2_proxy.admin.listener import AdminListener
from xoauth2_proxy.admin.server import AdminServer
from xoauth2_proxy.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

PAGES = ["/health", "/metrics"]  # what needs the token, if there is one
TOKEN = "let me in"


@asynccontextmanager
async def admin(health: Health, token: str = "") -> AsyncIterator[tuple[str, int]]:
    listener = AdminListener(lambda: AdminServer(health, Metrics(), token))
    try:
        yield await listener.start("127.0.0.1", 0)
    finally:
        await listener.stop()


async def get(
    address: tuple[str, int], path: str, authorization: str | None = None
) -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"http://{address[0]}:{address[1]}{path}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        return response.status, await response.text()


# Health.


async def test_health_of_a_running_relay(relay: Relay) -> None:
    status, text = await relay.get("/health")
    body = json.loads(text)
    assert status == 200
    assert body["status"] == "healthy"
    assert body["service"] == "xoauth2-proxy"
    assert body["version"] == __version__
    assert body["accounts"] == {"enabled": 4, "disabled": 0}
    assert 0 <= body["uptime_seconds"] < 60
    assert body["sandbox"]["smtp"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("health", "status", "code"),
    [
        (Health({"enabled": 1}), Status.STARTING, 503),
        (Health({"enabled": 1}, is_ready=True), Status.HEALTHY, 200),
        (Health({"enabled": 0}, is_ready=True), Status.UNHEALTHY, 503),
        (
            Health({"enabled": 1}, is_ready=True, store_problem="no room"),
            Status.UNHEALTHY,
            503,
        ),
        (Health({}, is_ready=True), Status.UNHEALTHY, 503),
        (Health({"enabled": 1}, workers=WorkersHealth(0, 0)), Status.STARTING, 503),
        (Health({"enabled": 1}, workers=WorkersHealth(0, 3)), Status.UNHEALTHY, 503),
        (Health({"enabled": 1}, is_ready=True, is_draining=True), Status.DRAINING, 503),
        (Health({"enabled": 1}, is_draining=True), Status.DRAINING, 503),
    ],
)
async def test_health_and_readiness_in_every_state(
    health: Health, status: Status, code: int
) -> None:
    async with admin(health) as address:
        for path in ("/health", "/health/ready"):
            found, text = await get(address, path)
            assert (found, json.loads(text)["status"]) == (code, status)
        assert await get(address, "/health/live") == (200, '{"status": "alive"}')


async def test_a_store_that_fails_later_is_told_and_takes_no_relay_out_of_service() -> None:
    health = Health({"enabled": 1}, is_ready=True)
    async with admin(health) as address:
        for problem, code in (("", 200), ("redis is gone", 503), ("", 200)):
            health.note_store(problem)
            found, text = await get(address, "/health")
            assert (found, json.loads(text).get("problem", "")) == (code, problem)
            assert await get(address, "/health/ready") == (200, '{"status": "healthy"}')
    health.note_store("redis is gone")
    health.is_draining = True
    assert health.readiness is Status.DRAINING


async def test_that_no_worker_is_left_is_told_as_the_problem() -> None:
    async with admin(Health({"enabled": 1}, workers=WorkersHealth(0, 3))) as address:
        _, text = await get(address, "/health")
    assert json.loads(text)["problem"] == "no worker is running; the log says why"


async def test_while_draining_health_says_so_before_clients_are_gone(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        stopping = asyncio.create_task(relay.app.stop(10.0))
        await asyncio.sleep(0)
        status, text = await relay.get("/health")
        assert (status, json.loads(text)["status"]) == (503, "draining")
        assert (await relay.get("/health/ready"))[0] == 503
        assert (await relay.get("/health/live"))[0] == 200
        assert (await client.data(message())).is_positive
        await stopping


# Who may see it.


@pytest.mark.parametrize("path", PAGES)
async def test_with_a_token_every_page_needs_it(path: str) -> None:
    async with admin(Health({"enabled": 1}, is_ready=True), TOKEN) as address:
        assert (await get(address, path, f"Bearer {TOKEN}"))[0] == 200
        assert (await get(address, path, f"bearer  {TOKEN} "))[0] == 200
        for wrong in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer é"):
            status, text = await get(address, path, wrong)
            assert status == 401
            assert TOKEN not in text


async def test_a_refusal_names_the_scheme() -> None:
    async with (
        admin(Health(), TOKEN) as (host, port),
        aiohttp.ClientSession() as http,
        http.get(f"http://{host}:{port}/nowhere") as response,
    ):
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_that_is_no_text_is_wrong() -> None:
    async with admin(Health(), TOKEN) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /health HTTP/1.0\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await reader.readline()
            await reader.read()
        writer.close()
        await writer.wait_closed()
    assert b" 401 " in line


async def test_the_configured_token_is_asked_for(start_relay: StartRelay) -> None:
    document: dict[str, object] = {
        "accounts": [{"email": MAILBOX, "provider": "mock", "password": "secret"}],
        "admin": {"host": "0.0.0.0", "token": TOKEN},
    }
    relay = await start_relay(document)
    relay.admin_url = relay.admin_url.replace("0.0.0.0", "127.0.0.1")
    assert (await relay.get("/metrics"))[0] == 401
    assert (await relay.get("/metrics", Authorization=f"Bearer {TOKEN}"))[0] == 200


async def test_other_pages_are_not_there(relay: Relay) -> None:
    assert (await relay.get("/nowhere"))[0] == 404


async def test_without_mailboxes_there_are_health_and_metrics_alone() -> None:
    async with admin(Health({"enabled": 1}, is_ready=True)) as address:
        for path in ("/", "/accounts", "/login", "/static/admin.css"):
            assert (await get(address, path))[0] == 404


# Metrics.


async def test_metrics_are_prometheus_text_about_what_happened(relay: Relay) -> None:
    async with await relay.log_in() as client:
        for _ in range(2):
            assert (await client.send(message())).is_positive
        await client.auth_plain(MAILBOX, "wrong")
    status, text = await relay.get("/metrics")
    assert status == 200
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert families["xoauth2_proxy_messages"].type == "counter"
    assert families["xoauth2_proxy_relay_duration_seconds"].type == "histogram"
    assert families["xoauth2_proxy_info"].samples[0].labels == {"version": __version__}
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == 2
    assert await relay.metric("xoauth2_proxy_upstream_connections_opened_total") == 1
    assert await relay.metric("xoauth2_proxy_upstream_connections_reused_total") == 1
    assert await relay.metric("xoauth2_proxy_token_refreshes_total", result="ok") == 1
    assert "process_cpu_seconds" in families


async def test_no_mailbox_no_host_and_no_address_is_a_label(relay: Relay) -> None:
    for login in (MAILBOX, OTHER_MAILBOX):
        async with await relay.log_in(login) as client:
            await client.send(message(), "recipient@example.net")
    _, text = await relay.get("/metrics")
    for secret in ("@", "test.account", "recipient", "example", relay.host, "localhost"):
        assert secret not in text


# Clients that come before the server's library is imported.


@pytest.mark.both_loops
async def test_every_client_that_comes_before_the_server_is_answered() -> None:
    async with admin(Health({"enabled": 1}, is_ready=True)) as address:
        answers = await asyncio.gather(*(get(address, "/health/live") for _ in range(20)))
        assert answers == [(200, '{"status": "alive"}')] * 20
        assert await get(address, "/health/ready") == (200, '{"status": "healthy"}')


@pytest.mark.both_loops
async def test_a_client_is_turned_away_if_the_server_cannot_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def make_server() -> AdminServer:
        raise OSError("no templates")

    listener = AdminListener(make_server)
    address = await listener.start("127.0.0.1", 0)
    try:
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(address, "/health")
    finally:
        await listener.stop()
    assert "the admin server cannot start" in caplog.text


@pytest.mark.both_loops
async def test_a_client_without_a_word_delays_neither_the_server_nor_its_end() -> None:
    async with admin(Health({"enabled": 1}, is_ready=True)) as address:
        reader, writer = await asyncio.open_connection(*address)
        assert await get(address, "/health/live") == (200, '{"status": "alive"}')
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await reader.read() == b""
    writer.close()
