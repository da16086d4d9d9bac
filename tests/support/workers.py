"""The workers of a proxy as the system sees them, and clients that keep all of them busy."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.documents import account, id_in, upstream_at
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import Client, message
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from tests.support.proxy_process import ProxyProcess
    from tests.support.sandbox import Sandbox


def pids(parent: int) -> set[int]:
    """Return the processes that `parent` has started and that run now."""
    return {int(one) for one in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def document(provider: Sandbox, **limits: float) -> dict[str, object]:
    """Return a configuration of one account with these limits."""
    return {"accounts": [account(upstream=upstream_at(provider), limits=limits)]}


def started_with(pid: int) -> bytes:
    """Return what everybody on the machine may see of a process, and what its owner may."""
    process = Path(f"/proc/{pid}")
    return (process / "cmdline").read_bytes() + (process / "environ").read_bytes()


async def health(proxy: ProxyProcess) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((await proxy.get("/health"))[1])
    return body


async def figures(proxy: ProxyProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample of `/metrics` by its name and labels."""
    status, text = await proxy.get("/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def total(proxy: ProxyProcess, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    return sum(
        value
        for (found, pairs), value in (await figures(proxy)).items()
        if found == name and labels.items() <= dict(pairs).items()
    )


async def log_in(proxy: ProxyProcess, mailbox: str = MAILBOX) -> Client:
    client = await proxy.connect()
    await client.ehlo()
    answer = await client.auth_plain(mailbox, PASSWORD)
    assert answer.code == 235, str(answer)
    return client


# Between two messages of a client: without it, a proxy that starts a worker has no time for that.
_PAUSE_SECONDS = 0.1


class Load:
    """Clients that send without end, and come again when their worker is gone.

    What they were told is in `acknowledged` (the sandbox's ids) and `refusals`.
    """

    def __init__(self, proxy: ProxyProcess, clients: int) -> None:
        self.acknowledged: list[str] = []
        self.refusals: list[str] = []
        self._proxy = proxy
        self._enough = False
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(clients)]

    async def until_acknowledged(self, number: int) -> None:
        await until(lambda: len(self.acknowledged) >= number)

    async def end(self) -> None:
        """Let every client finish its message."""
        self._enough = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*self._tasks)

    async def _send(self, number: int) -> None:
        while not self._enough:
            with suppress(OSError, EOFError, AssertionError):
                async with await log_in(self._proxy) as client:
                    await self._send_over(client, number)

    async def _send_over(self, client: Client, number: int) -> None:
        while not self._enough:
            answer = await client.send(message(f"from {number}"))
            if answer.code == 250:
                self.acknowledged.append(id_in(answer))
            else:
                self.refusals.append(str(answer))
            await asyncio.sleep(_PAUSE_SECONDS)
