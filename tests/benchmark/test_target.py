from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from bench.client.endpoint import Tls
from bench.process.interruption import Interruption
from bench.targets.target import Target, _endpoint, open_target
from bench.targets.target_request import TargetError, TargetRequest
from tests.benchmark.scripted_server import scripted_server
from tests.support.sandbox import Sandbox
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STATE_DIR = Path("/nonexistent")


@asynccontextmanager
async def admin_server(body: str) -> AsyncIterator[str]:
    """Serve GET /health."""

    async def health(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    application = web.Application()
    application.router.add_get("/health", health)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def target_of(**wishes: Any) -> Target:
    request = TargetRequest(state_dir=STATE_DIR, **wishes)
    async with open_target(request, Interruption(), lambda _: None) as target:
        return target


async def test_a_listening_target_with_its_sandbox() -> None:
    body = json.dumps({"sandbox": {"smtp": "127.0.0.1:1", "http": "http://127.0.0.1:2/"}})
    async with scripted_server() as server, admin_server(body) as url:
        target = await target_of(port=server.port, admin_url=url)
    assert (target.endpoint.host, target.endpoint.port) == ("127.0.0.1", server.port)
    assert (target.sandbox_url, target.no_sandbox_reason) == ("http://127.0.0.1:2", "")
    assert target.admin_url == url
    assert target.state_dir == STATE_DIR


async def test_a_sandbox_that_runs_alone_is_asked_itself(tmp_path: Path) -> None:
    async with Sandbox(tmp_path, ProviderSettings()) as sandbox:
        host, port = sandbox.smtp_address
        target = await target_of(host=host, port=port, admin_url=sandbox.http_url)
    assert (target.sandbox_url, target.no_sandbox_reason) == (sandbox.http_url, "")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"status": "healthy"}', "runs without the sandbox"),
        ('{"sandbox": "yes"}', "runs without the sandbox"),
        ("[]", "no JSON object"),
        ("<html>", "not JSON"),
        ('{"sandbox": {"http": "http://192.0.2.1:1"}}', "not on loopback"),
    ],
)
async def test_why_there_is_no_sandbox(body: str, reason: str) -> None:
    async with scripted_server() as server, admin_server(body) as url:
        target = await target_of(port=server.port, admin_url=url)
    assert target.sandbox_url == ""
    assert reason in target.no_sandbox_reason


async def test_another_port_is_not_reconciled_with_the_default_proxys_sandbox() -> None:
    async with scripted_server() as server:
        target = await target_of(port=server.port)
    assert "--admin-url" in target.no_sandbox_reason


async def test_an_admin_server_elsewhere_is_not_asked() -> None:
    async with scripted_server() as server:
        target = await target_of(port=server.port, admin_url="http://192.0.2.1:9090")
    assert "not on loopback" in target.no_sandbox_reason


async def test_a_refusing_target_gets_a_hint_and_its_health(unused_port: int) -> None:
    async with admin_server('{"status": "draining"}') as url:
        with pytest.raises(TargetError) as caught:
            await target_of(port=unused_port, admin_url=url, may_start_private=True)
    text = str(caught.value)
    assert f"Nothing listens at 127.0.0.1:{unused_port}" in text
    assert f"xoauth2-proxy --sandbox --port {unused_port}" in text
    assert f"{url}/health says draining" in text


async def test_who_wants_another_server_is_not_told_to_start_a_proxy(unused_port: int) -> None:
    with pytest.raises(TargetError, match="Nothing listens") as caught:
        await target_of(
            port=unused_port, admin_url=f"http://127.0.0.1:{unused_port}", has_login=False
        )
    assert "xoauth2-proxy" not in str(caught.value)


async def test_health_that_does_not_answer_is_said(unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    with pytest.raises(TargetError, match=f"nothing listens at {url}/health"):
        await target_of(port=unused_port, admin_url=url)


@pytest.mark.parametrize("host", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"])
async def test_traffic_stays_on_loopback(host: str) -> None:
    with pytest.raises(TargetError, match="--allow-remote"):
        await target_of(host=host)


async def test_a_login_does_not_cross_a_network_in_clear() -> None:
    with pytest.raises(TargetError, match="--tls starttls"):
        await target_of(host="192.0.2.1", allow_remote=True)


async def test_mail_without_a_login_may_cross_a_network_in_clear() -> None:
    request = TargetRequest(
        state_dir=STATE_DIR, host="192.0.2.1", allow_remote=True, has_login=False
    )
    assert (await _endpoint(request)).host == "192.0.2.1"  # nothing was sent there


async def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(TargetError, match="cannot be resolved"):
        await target_of(host="no-such-host.invalid")


async def test_certificates_that_are_none(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("not PEM")
    with pytest.raises(TargetError, match="no usable certificates"):
        await target_of(tls=Tls.STARTTLS, ca_file=ca_file)
