"""A mailbox's limits hold for all workers together, and none of them starves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX
from tests.support.smtp_client import message
from tests.support.waiting import until
from tests.support.workers import Load, document, health, log_in, open_files, pids, total

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess
    from tests.support.sandbox import Sandbox
    from tests.support.smtp_client import Client

pytestmark = pytest.mark.one_loop

CAP = 2


def has_at_most(pid: int, files: int) -> bool:
    return open_files(pid) <= files


async def client_of_each(proxy: ProxyProcess) -> dict[int, Client]:
    """Return one client that is logged in for each worker."""
    found: dict[int, Client] = {}
    workers = pids(proxy.process.pid)
    while found.keys() != workers:
        before = {pid: open_files(pid) for pid in workers}
        client = await log_in(proxy)
        (pid,) = [pid for pid in workers if open_files(pid) > before[pid]]
        if pid in found:
            await client.close()
            await until(partial(has_at_most, pid, before[pid]))
        else:
            found[pid] = client
    return found


async def test_cap_holds_and_every_client_gets_through(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider, max_connections=CAP), "--workers", "3")
    load = Load(proxy, clients=40)
    await load.until_acknowledged(200)
    await load.end()
    assert load.refusals == []
    assert provider.counters.peak_by_mailbox == {MAILBOX: CAP}
    kept = [one.id for one in provider.received]
    assert sorted(kept) == sorted(load.acknowledged)
    assert await total(proxy, "xoauth2_proxy_upstream_connections") <= CAP


async def test_cap_holds_after_a_worker_with_connections_was_killed(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider, max_connections=CAP), "--workers", "3")
    load = Load(proxy, clients=40)
    await load.until_acknowledged(100)
    for pid in list(pids(proxy.process.pid))[:2]:
        os.kill(pid, signal.SIGKILL)
        await load.until_acknowledged(len(load.acknowledged) + 100)
    await load.end()
    assert provider.counters.peak_by_mailbox == {MAILBOX: CAP}
    assert set(load.acknowledged) <= {one.id for one in provider.received}

    async def all_are_back() -> bool:
        workers = (await health(proxy))["workers"]
        # On a busy machine one more may have been taken for stuck.
        return bool(workers["running"] == 3 and workers["restarts"] >= 2)

    await until(all_are_back)


async def test_idle_connections_of_one_worker_do_not_starve_another(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider, max_connections=1), "--workers", "2")
    clients = await client_of_each(proxy)
    for client in [*clients.values()] * 2:
        assert (await client.send(message())).is_positive
    assert provider.counters.peak_by_mailbox == {MAILBOX: 1}
    closed = "xoauth2_proxy_upstream_connections_closed_total"
    assert await total(proxy, closed, reason="wanted") == 3
    for client in clients.values():
        await client.close()


async def test_a_worker_is_not_starved_by_another_that_is_busy(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider, max_connections=1), "--workers", "2")
    busy, quiet = (await client_of_each(proxy)).values()
    is_enough = asyncio.Event()

    async def send_without_end() -> int:
        count = 0
        while not is_enough.is_set():
            assert (await busy.send(message())).is_positive
            count += 1
        return count

    sending = asyncio.create_task(send_without_end())
    await provider.received.wait_until(20)
    assert (await quiet.send(message())).is_positive  # while the other one goes on
    is_enough.set()
    assert await sending >= 20
    assert provider.counters.peak_by_mailbox == {MAILBOX: 1}
    for client in (busy, quiet):
        await client.close()


async def test_rate_is_shared(start_process: StartProcess, provider: Sandbox) -> None:
    # A burst of ten seconds' worth is 20 messages, then two a second.
    settings = document(provider, messages_per_minute=120, wait_seconds=1.0)
    proxy = await start_process(settings, "--workers", "2")
    clients = await asyncio.gather(*(log_in(proxy) for _ in range(40)))
    asked = time.monotonic()
    # One after the other, so that none waits for anything but the rate.
    burst = [await client.send(message()) for client in clients[:20]]
    assert all(one.is_positive for one in burst)
    answers = await asyncio.gather(*(client.send(message()) for client in clients[20:]))
    took = time.monotonic() - asked
    assert sum(one.is_positive for one in answers) <= 2 * took + 1
    assert {str(one) for one in answers if not one.is_positive} <= {
        "451 4.3.2 Too many messages at once for this mailbox; try again"
    }
    for client in clients:
        await client.close()
