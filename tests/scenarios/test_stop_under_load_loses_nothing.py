"""SIGTERM or SIGINT under load: what was acknowledged is at the provider, exactly once.

The real process, with its provider outside of it.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import account, id_in, upstream_at
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.smtp_client import Client, message
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess
    from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.one_loop

CLIENTS = 20
NO_END = 3600.0  # seconds; who waits for so long has not ended by itself
EACH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)


def document(provider: Sandbox, **relay: object) -> dict[str, object]:
    mailboxes = (MAILBOX, OTHER_MAILBOX)
    accounts = [
        account(mailbox, upstream=upstream_at(provider), limits={"max_connections": 5})
        for mailbox in mailboxes
    ]
    return {"accounts": accounts, "relay": relay}


async def log_in(proxy: ProxyProcess, mailbox: str = MAILBOX) -> Client:
    client = await proxy.connect()
    await client.ehlo()
    assert (await client.auth_plain(mailbox, PASSWORD)).code == 235
    return client


async def send_until_shown_out(proxy: ProxyProcess, number: int, acknowledged: list[str]) -> str:
    """Send without end; return how the proxy ended the session: what it said last."""
    said = ""
    async with await log_in(proxy, (MAILBOX, OTHER_MAILBOX)[number % 2]) as client:
        with suppress(EOFError, ConnectionError):
            while True:
                for line in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA"):
                    answer = await client.command(line)
                    said = str(answer)
                    if answer.code not in {250, 354}:
                        return said
                client.write(message(f"from {number}") + b"..\r\n.\r\n")
                answer = await client.reply()
                said = str(answer)
                if answer.code == 250:
                    acknowledged.append(id_in(answer))
    return said


@EACH
async def test_every_acknowledged_message_is_at_the_provider_once(
    start_process: StartProcess, provider: Sandbox, number: signal.Signals
) -> None:
    provider.add_fault(Fault(Step.END, Action.DELAY, nth=None, seconds=0.01))
    proxy = await start_process(document(provider))
    acknowledged: list[str] = []
    clients = [
        asyncio.create_task(send_until_shown_out(proxy, client, acknowledged))
        for client in range(CLIENTS)
    ]
    await provider.received.wait_until(100)
    proxy.signal(number)
    async with asyncio.timeout(PATIENCE_SECONDS):
        farewells = await asyncio.gather(*clients)
    assert await proxy.exit_code() == 0, proxy.stderr
    assert len(acknowledged) >= 80
    kept = Counter(one.id for one in provider.received)
    assert set(kept.values()) == {1}
    assert sorted(acknowledged) == sorted(kept)
    assert Counter(farewells) == {"421 4.3.2 Service shutting down; try again": CLIENTS}


@EACH
async def test_a_transaction_in_flight_is_finished_and_idle_clients_are_told(
    start_process: StartProcess, provider: Sandbox, number: signal.Signals
) -> None:
    provider.add_fault(Fault(Step.END, Action.DELAY, seconds=NO_END))
    proxy = await start_process(document(provider, drain_seconds=NO_END))
    async with await log_in(proxy) as busy, await log_in(proxy) as idle:
        await busy.envelope("to@example.net")
        assert (await busy.command("DATA")).code == 354
        busy.write(message()[:-2] + b"\r\n.\r\n")
        await provider.arrived(Step.END)
        proxy.signal(number)
        assert str(await idle.reply()) == "421 4.3.2 Service shutting down; try again"
        assert await idle.closed()
        status, body = await proxy.get("/health")
        assert (status, json.loads(body)["status"]) == (503, "draining")
        assert (await proxy.get("/health/ready"))[0] == 503
        assert (await proxy.get("/health/live"))[0] == 200
        with pytest.raises((ConnectionError, EOFError)):
            await proxy.connect()
        provider.end_delays()
        answer = await busy.reply()
        assert [one.id for one in provider.received] == [id_in(answer)]
        assert (await busy.reply()).code == 421
    assert await proxy.exit_code() == 0
    assert "stopping" in proxy.stderr


@EACH
async def test_a_client_in_the_middle_of_a_transaction_may_finish_it(
    start_process: StartProcess, provider: Sandbox, number: signal.Signals
) -> None:
    proxy = await start_process(document(provider))
    idle = await log_in(proxy)
    async with await log_in(proxy) as at_mail, await log_in(proxy) as at_data:
        for client in (at_mail, at_data):
            await client.envelope("to@example.net")
        assert (await at_data.command("DATA")).code == 354
        at_data.write(b"Subject: half\r\n\r\nha")
        proxy.signal(number)
        assert (await idle.reply()).code == 421  # the signal has been heard
        at_data.write(b"lf\r\n.\r\n")
        ids = {id_in(await at_data.reply()), id_in(await at_mail.data(message("whole")))}
        for client in (at_mail, at_data):
            assert (await client.reply()).code == 421
    await idle.close()
    assert await proxy.exit_code() == 0
    assert {one.id for one in provider.received} == ids
    assert len(ids) == 2


async def test_what_is_not_done_by_the_deadline_is_not_acknowledged(
    start_process: StartProcess, provider: Sandbox
) -> None:
    provider.add_fault(Fault(Step.END, Action.STALL))
    proxy = await start_process(document(provider, drain_seconds=0.3))
    async with await log_in(proxy) as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"Subject: stuck\r\n\r\nstuck\r\n.\r\n")
        await provider.arrived(Step.END)
        proxy.signal(signal.SIGTERM)
        assert str(await client.reply()) == "421 4.3.2 Service shutting down; try again"
    assert await proxy.exit_code() == 0
    assert provider.received.total == 0


async def test_a_second_sigint_exits_at_once(
    start_process: StartProcess, provider: Sandbox
) -> None:
    provider.add_fault(Fault(Step.END, Action.STALL))
    proxy = await start_process(document(provider, drain_seconds=NO_END))
    async with await log_in(proxy) as busy, await log_in(proxy) as idle:
        await busy.envelope("to@example.net")
        assert (await busy.command("DATA")).code == 354
        busy.write(b"Subject: stuck\r\n\r\nstuck\r\n.\r\n")
        await provider.arrived(Step.END)
        proxy.signal(signal.SIGINT)
        assert (await idle.reply()).code == 421  # the first one has been heard
        proxy.signal(signal.SIGINT)
        assert await proxy.exit_code() == 130
        with pytest.raises((EOFError, ConnectionError)):
            await busy.reply()
    assert provider.received.total == 0


@EACH
async def test_an_idle_proxy_stops_at_once(
    start_process: StartProcess, provider: Sandbox, number: signal.Signals
) -> None:
    proxy = await start_process(document(provider, drain_seconds=NO_END))
    async with await log_in(proxy) as client:
        proxy.signal(number)
        assert (await client.reply()).code == 421
        assert await proxy.exit_code() == 0
