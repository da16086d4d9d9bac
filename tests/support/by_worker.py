"""What each worker of a proxy does, seen from outside: clients, figures, connections."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.multiprocess import MultiProcessCollector

from tests.support.relay import PASSWORD
from tests.support.waiting import until
from tests.support.workers import Load, health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.proxy_process import ProxyProcess
    from tests.support.smtp_client import Client

CLIENTS = 8  # at one time; two workers that are offered so many have some each, or soon
_ESTABLISHED = "01"


def counted_by(directory: Path, worker: int, name: str, **labels: str) -> float:
    """Return what one worker has counted in this run; `directory` is the proxy's."""
    files = [str(one) for one in directory.glob(f"run-*/figures/counter_{worker}.db")]
    return sum(
        sample.value
        for family in MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def asks(pid: int, port: int) -> bool:
    """Whether a process has a connection to a port of this machine."""
    wanted = f":{port:04X}"
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[2].endswith(wanted) and words[3] == _ESTABLISHED:
                inodes.add(f"socket:[{words[9]}]")
    links = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return not inodes.isdisjoint(links)


def accepted(proxy: ProxyProcess) -> list[float]:
    """Return how many clients each of the two workers has accepted."""
    name = "xoauth2_proxy_client_connections_total"
    return [counted_by(proxy.directory, one, name, result="accepted") for one in (0, 1)]


async def both_run(proxy: ProxyProcess) -> bool:
    return bool((await health(proxy))["workers"]["running"] == 2)


@asynccontextmanager
async def load_on_both(proxy: ProxyProcess) -> AsyncIterator[list[Load]]:
    """Let clients of both workers send until the end of the block."""
    await until(lambda: both_run(proxy))
    loads: list[Load] = []

    def both_have_some() -> bool:
        found = accepted(proxy)
        if not all(found) and sum(found) == CLIENTS * len(loads):
            loads.append(Load(proxy, clients=CLIENTS))
        return all(found)

    await until(both_have_some)
    yield loads
    for load in loads:
        await load.end()


@asynccontextmanager
async def clients_of_both(proxy: ProxyProcess) -> AsyncIterator[list[Client]]:
    """Give clients that have said EHLO; each of the two workers has some of them."""
    await until(lambda: both_run(proxy))
    before = accepted(proxy)
    async with AsyncExitStack() as stack:
        clients: list[Client] = []

        async def both_have_some() -> bool:
            connected = await asyncio.gather(*(proxy.connect() for _ in range(CLIENTS)))
            clients.extend([await stack.enter_async_context(one) for one in connected])
            await asyncio.gather(*(one.ehlo() for one in connected))
            return all(now > then for now, then in zip(accepted(proxy), before, strict=True))

        await until(both_have_some)
        yield clients


async def told_by_both(proxy: ProxyProcess, login: str, password: str = PASSWORD) -> set[str]:
    """Return what both workers answer to a login."""
    async with clients_of_both(proxy) as clients:
        answers = await asyncio.gather(*(one.auth_plain(login, password) for one in clients))
    return {f"{one.code} {one.enhanced}" for one in answers}
