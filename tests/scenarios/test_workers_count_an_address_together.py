"""The places of one address are counted over all workers, and freed with a worker that dies."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.proxy_process import ProxyProcess
from tests.support.smtp_client import Client
from tests.support.waiting import until
from tests.support.workers import pids

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

PLACES = 5


async def come(proxy: ProxyProcess, clients: AsyncExitStack, address: str) -> int:
    """Connect as a client of this address; return the code of the greeting."""
    client = Client(*await asyncio.open_connection(proxy.host, proxy.port))
    await clients.enter_async_context(client)
    client.write(f"PROXY TCP4 {address} 192.0.2.250 4000 25\r\n".encode())
    return (await client.reply()).code


async def test_workers_count_an_address_together(tmp_path: Path) -> None:
    listener = {"proxies": ["127.0.0.1"], "max_connections_per_address": PLACES}
    document = one_account() | {"listener": listener}
    async with (
        ProxyProcess(tmp_path, document, "--sandbox", "--workers", "3") as proxy,
        AsyncExitStack() as clients,
    ):
        codes = [await come(proxy, clients, "192.0.2.1") for _ in range(4 * PLACES)]
        assert codes == [220] * PLACES + [421] * 3 * PLACES
        assert await come(proxy, clients, "192.0.2.2") == 220
        for worker in pids(proxy.process.pid):
            os.kill(worker, signal.SIGKILL)

        async def gets_in() -> bool:
            return await come(proxy, clients, "192.0.2.1") == 220

        await until(gets_in)
