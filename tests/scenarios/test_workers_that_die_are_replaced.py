"""kill -9 of a worker under load: nothing acknowledged is lost, and soon there is another one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import until
from tests.support.workers import Load, document, figures, health, log_in, pids

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.one_loop


async def test_kill_under_load_loses_nothing_and_counts_on(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider, max_connections=8), "--workers", "2")
    load = Load(proxy, clients=20)
    await load.until_acknowledged(100)
    before = await figures(proxy)
    victim = min(pids(proxy.process.pid))
    os.kill(victim, signal.SIGKILL)

    async def it_is_replaced() -> bool:
        return bool((await health(proxy))["workers"] == {"running": 2, "restarts": 1})

    after_the_kill = await figures(proxy)
    await until(it_is_replaced)
    await load.until_acknowledged(len(load.acknowledged) + 100)
    await load.end()
    after = await figures(proxy)
    for earlier, later in ((before, after_the_kill), (after_the_kill, after)):
        for series, value in earlier.items():
            if series[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert later[series] >= value, series
    kept = Counter(one.id for one in provider.received)
    assert set(kept.values()) == {1}
    assert len(set(load.acknowledged)) == len(load.acknowledged)
    assert set(load.acknowledged) <= kept.keys()
    assert load.refusals == []
    counted = sum(
        value for (name, _), value in after.items() if name == "xoauth2_proxy_messages_total"
    )
    assert counted >= len(load.acknowledged)
    assert victim not in pids(proxy.process.pid)
    assert "worker ended" in proxy.stderr
    assert await proxy.stop() == 0


async def test_without_a_worker_health_is_503_and_clients_wait(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider), "--workers", "2")
    for pid in pids(proxy.process.pid):
        os.kill(pid, signal.SIGKILL)

    async def nobody_is_there() -> bool:
        status, body = await proxy.get("/health")
        return status == 503 and json.loads(body)["workers"]["running"] == 0

    await until(nobody_is_there)
    assert (await proxy.get("/health/live"))[0] == 200
    async with await log_in(proxy):  # not refused: it is served by one of the next workers
        assert (await proxy.get("/health"))[0] == 200


async def test_a_worker_asked_to_end_by_itself_drains_and_is_replaced(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider), "--workers", "2")
    clients = await asyncio.gather(*(log_in(proxy) for _ in range(10)))
    old = pids(proxy.process.pid)
    for pid in old:
        os.kill(pid, signal.SIGTERM)
    for client in clients:
        assert str(await client.reply()) == "421 4.3.2 Service shutting down; try again"
        await client.close()
    # Until both have ended, the port's next client may be accepted by one that is about to drain.
    await until(lambda: not pids(proxy.process.pid) & old)
    async with await log_in(proxy):
        assert proxy.process.returncode is None


async def test_workers_finish_and_end_when_their_parent_is_killed(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider), "--workers", "2")
    workers = pids(proxy.process.pid)
    client = await log_in(proxy)
    await client.envelope("to@example.net")
    proxy.signal(signal.SIGKILL)
    assert await proxy.exit_code() == -signal.SIGKILL
    assert (await client.data(b"Subject: late\r\n\r\n")).is_positive
    assert (await client.reply()).code == 421
    await client.close()
    await until(lambda: not any(is_alive(pid) for pid in workers))
    assert provider.received.total == 1


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
