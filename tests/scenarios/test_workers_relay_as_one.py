"""Several worker processes are one relay: one port, one health, one set of figures, one limit."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.beside import beside
from tests.support.documents import account, id_in, upstream_at
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox import Sandbox
from tests.support.smtp_client import message
from tests.support.waiting import until
from tests.support.workers import (
    Load,
    document,
    figures,
    health,
    log_in,
    open_files,
    pids,
    started_with,
    total,
)
from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.conftest import StartProcess
    from tests.support.smtp_client import Client


pytestmark = pytest.mark.one_loop

OPENS = "open-sesame-8471"


async def test_every_worker_takes_mail_and_the_figures_are_everyones(
    start_process: StartProcess, provider: Sandbox
) -> None:
    proxy = await start_process(document(provider, max_connections=8), "--workers", "3")
    workers = pids(proxy.process.pid)
    assert len(workers) == 3
    before = {pid: open_files(pid) for pid in workers}
    clients: list[Client] = []

    async def every_worker_has_a_client() -> bool:
        clients.extend(await asyncio.gather(*(log_in(proxy) for _ in range(20))))
        return all(open_files(pid) > before[pid] for pid in workers)

    await until(every_worker_has_a_client)
    number = len(clients)
    answers = await asyncio.gather(*(client.send(message()) for client in clients))
    assert Counter(id_in(one) for one in answers) == Counter(one.id for one in provider.received)
    assert await total(proxy, "xoauth2_proxy_messages_total", reply="2xx") == number
    assert await total(proxy, "xoauth2_proxy_relay_duration_seconds_count") == number
    assert await total(proxy, "xoauth2_proxy_client_connections_total", result="accepted") == number
    assert await total(proxy, "xoauth2_proxy_client_sessions") == number
    await asyncio.gather(*(client.close() for client in clients))

    async def nobody_is_left() -> bool:
        return await total(proxy, "xoauth2_proxy_client_sessions") == 0

    await until(nobody_is_left)
    assert (await health(proxy))["workers"] == {"running": 3, "restarts": 0}
    assert json.loads((proxy.directory / "ready.json").read_text())["pid"] == proxy.process.pid
    assert proxy.stdout.count("is ready on") == 1
    assert await proxy.stop() == 0
    assert "Traceback" not in proxy.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_embedded_sandbox_serves_all_workers(
    start_process: StartProcess, loop: str
) -> None:
    proxy = await start_process(None, "--sandbox", "--workers", "2", "--loop", loop)
    load = Load(proxy, clients=8)
    await load.until_acknowledged(50)
    await load.end()
    assert load.refusals == []
    assert (await health(proxy))["sandbox"]["smtp"].startswith("127.0.0.1:")
    assert await total(proxy, "xoauth2_proxy_messages_total") == len(load.acknowledged)
    assert await proxy.stop() == 0


async def test_workers_that_cannot_start_are_told_with_their_reason(
    start_process: StartProcess, provider: Sandbox
) -> None:
    (provider.state_dir / "slots").touch()
    with pytest.raises(AssertionError, match=r"no worker could start: .*File exists"):
        await start_process(document(provider), "--workers", "2")


# A proxy that three tests share: each leaves it as it was.

WORKERS, MAX_CLIENTS = 2, 10


@pytest.fixture(scope="module")
def shared_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    directory = tmp_path_factory.mktemp("proxy")
    with beside(Sandbox(directory, http_port=None)) as provider:
        accounts = [account(upstream=upstream_at(provider), password=OPENS)]
        settings = {"accounts": accounts, "listener": {"max_connections": MAX_CLIENTS}}
        with beside(ProxyProcess(directory, settings, "--workers", str(WORKERS))) as process:
            yield process


async def test_process_figures_are_sums_under_the_usual_names(shared_proxy: ProxyProcess) -> None:
    found = await figures(shared_proxy)
    processes = [shared_proxy.process.pid, *pids(shared_proxy.process.pid)]
    assert found["xoauth2_proxy_info", (("version", __version__),)] == 1
    assert found["process_open_fds", ()] >= sum(open_files(pid) for pid in processes) - 4
    assert found["process_resident_memory_bytes", ()] > 3 * 20_000_000
    assert found["process_cpu_seconds_total", ()] > 0
    assert not [labels for _, labels in found if "pid" in dict(labels)]


async def test_the_limit_on_clients_holds_for_all_workers_together(
    shared_proxy: ProxyProcess,
) -> None:
    clients = []
    while True:
        client = await shared_proxy.connect()
        if client.greeting.code == 421:
            await client.close()
            break
        clients.append(client)
    assert len(clients) == MAX_CLIENTS
    await clients.pop().close()

    async def there_is_room() -> bool:
        clients.append(await shared_proxy.connect())
        return clients[-1].greeting.code == 220

    await until(there_is_room)
    for client in clients:
        await client.close()


async def test_no_secret_is_in_a_workers_arguments_or_environment(
    shared_proxy: ProxyProcess,
) -> None:
    workers = pids(shared_proxy.process.pid)
    assert len(workers) == WORKERS
    for pid in workers:
        told = started_with(pid)
        assert b"xoauth2_proxy.workers" in told
        assert OPENS.encode() not in told
