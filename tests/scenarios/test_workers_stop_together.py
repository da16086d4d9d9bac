"""A stop of several workers is one stop: drained, with one exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import id_in
from tests.support.smtp_client import message
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.workers import document, health, log_in, pids
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess
    from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.one_loop

CLIENTS = 20
NO_END = 3600.0  # seconds; who waits for so long has not ended by itself
PATIENT = {"relay": {"drain_seconds": NO_END}}


async def send_until_shown_out(proxy: ProxyProcess, acknowledged: list[str]) -> str:
    """Send without end; return what the proxy said last."""
    async with await log_in(proxy) as client:
        with suppress(EOFError, ConnectionError):
            while True:
                for line in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA"):
                    answer = await client.command(line)
                    if answer.code not in {250, 354}:
                        return str(answer)
                client.write(message() + b".\r\n")
                acknowledged.append(id_in(await client.reply()))
    return ""


async def load(proxy: ProxyProcess, acknowledged: list[str]) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(send_until_shown_out(proxy, acknowledged)) for _ in range(CLIENTS)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
async def test_every_acknowledged_message_is_at_the_provider_once(
    start_process: StartProcess, provider: Sandbox, number: signal.Signals
) -> None:
    provider.add_fault(Fault(Step.END, Action.DELAY, nth=None, seconds=0.01))
    proxy = await start_process(document(provider, max_connections=8), "--workers", "2")
    workers = pids(proxy.process.pid)
    acknowledged: list[str] = []
    clients = await load(proxy, acknowledged)
    await provider.received.wait_until(100)
    for pid in (*workers, proxy.process.pid):  # as Ctrl+C in a terminal, or a service manager
        os.kill(pid, number)
    async with asyncio.timeout(PATIENCE_SECONDS):
        farewells = await asyncio.gather(*clients)
    assert await proxy.exit_code() == 0, proxy.stderr
    kept = Counter(one.id for one in provider.received)
    assert set(kept.values()) == {1}
    assert sorted(acknowledged) == sorted(kept)
    assert Counter(farewells) == {"421 4.3.2 Service shutting down; try again": CLIENTS}
    assert "Traceback" not in proxy.stderr
    assert "worker ended" not in proxy.stderr


async def test_while_a_transaction_ends_health_says_draining_and_nobody_is_let_in(
    start_process: StartProcess, provider: Sandbox
) -> None:
    provider.add_fault(Fault(Step.END, Action.DELAY, seconds=NO_END))
    proxy = await start_process(document(provider) | PATIENT, "--workers", "2")
    async with await log_in(proxy) as busy, await log_in(proxy) as idle:
        await busy.envelope("to@example.net")
        assert (await busy.command("DATA")).code == 354
        busy.write(message() + b".\r\n")
        await provider.arrived(Step.END)
        proxy.signal(signal.SIGTERM)
        assert (await idle.reply()).code == 421
        assert (await health(proxy))["status"] == "draining"
        with pytest.raises((ConnectionError, EOFError)):
            await proxy.connect()
        provider.end_delays()
        assert (await busy.reply()).is_positive
    assert await proxy.exit_code() == 0


async def test_a_second_sigint_exits_at_once_and_takes_the_workers_along(
    start_process: StartProcess, provider: Sandbox
) -> None:
    provider.add_fault(Fault(Step.END, Action.STALL))
    proxy = await start_process(document(provider) | PATIENT, "--workers", "2")
    workers = pids(proxy.process.pid)
    async with await log_in(proxy) as busy, await log_in(proxy) as idle:
        await busy.envelope("to@example.net")
        assert (await busy.command("DATA")).code == 354
        busy.write(message() + b".\r\n")
        await provider.arrived(Step.END)
        proxy.signal(signal.SIGINT)
        assert (await idle.reply()).code == 421  # the first one has been heard
        proxy.signal(signal.SIGINT)
        assert await proxy.exit_code() == 130
        with pytest.raises((EOFError, ConnectionError)):
            await busy.reply()
    await until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in workers))
    assert provider.received.total == 0
