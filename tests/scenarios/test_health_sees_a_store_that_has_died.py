"""Health says that the shared store is dead, at once and in bounded time, and when it is back."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.config_files import account
from tests.support.redis_server import redis_server
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess

pytestmark = pytest.mark.outside


async def state(proxy: ProxyProcess) -> tuple[int, str, str]:
    """Return what `/health` says, which it does whatever the store does."""
    async with asyncio.timeout(10):
        code, text = await proxy.get("/health")
    body = json.loads(text)
    return code, body["status"], body.get("problem", "")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("way", ["stopped", "suspended"])
async def test_it_is_told_while_it_lasts(
    start_process: StartProcess, workers: str, way: str
) -> None:
    with redis_server() as server:
        store = {"kind": "redis", "url": server.url}
        document = {"accounts": [account()], "store": store}
        proxy = await start_process(document, "--workers", workers)
        assert await state(proxy) == (200, "healthy", "")
        (server.stop if way == "stopped" else server.suspend)()

        async def is_told() -> bool:
            return (await state(proxy))[:2] == (503, "unhealthy")

        await until(is_told)
        assert server.socket in (await state(proxy))[2]
        assert (await proxy.get("/health/live"))[0] == 200
        assert (await proxy.get("/health/ready"))[0] == 200  # tokens in memory still serve
        (server.start if way == "stopped" else server.resume)()

        async def is_well() -> bool:
            return await state(proxy) == (200, "healthy", "")

        await until(is_well)
    assert proxy.stderr.count("no mailbox can get tokens") == 1


async def test_a_relay_that_starts_without_its_store_is_not_ready(
    start_process: StartProcess,
) -> None:
    with redis_server() as server:
        server.stop()
        store = {"kind": "redis", "url": server.url}
        proxy = await start_process({"accounts": [account()], "store": store})
        assert (await state(proxy))[:2] == (503, "unhealthy")
        assert (await proxy.get("/health/ready"))[0] == 503
