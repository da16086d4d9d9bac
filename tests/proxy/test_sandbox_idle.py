"""When the provider's patience with an idle client runs, and when it does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.raw_smtp import RawSmtp
from tests.support.sandbox import Sandbox
from tests.support.waiting import until
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.simulated_time

CONTENT = b"Subject: a\r\n\r\nb\r\n"
IDLE_SECONDS = 0.1
BYE = b"421 4.4.2 Timeout, closing connection\r\n"
FLIGHT = (
    b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT %d LAST\r\n" % len(CONTENT) + CONTENT + b"NOOP\r\n"
)


def provider(folder: Path, profile: str = "unlimited", **overrides: object) -> Sandbox:
    overrides = {"idle_seconds": IDLE_SECONDS, "tls": "none"} | overrides
    document = {"profile": profile, "overrides": overrides}
    return Sandbox(folder, read_settings(document), http_port=None)


async def log_in(client: RawSmtp) -> None:
    await client.connect()
    assert (await client.reply()).startswith("220 ")
    await client.command("EHLO client.example")
    mailbox = "test.account1@gmail.com"
    token = client.sandbox.tokens.mint(mailbox)
    assert (await client.authenticate(mailbox, token)).startswith("235 ")


async def patience_has_ended(sandbox: Sandbox) -> None:
    """Return when another client, who came later, was told that it was idle for too long."""
    async with RawSmtp(sandbox) as other:
        await other.connect()
        assert (await other.rest()).splitlines()[-1].startswith(b"421 ")


# Replies that are owed.


async def test_a_message_that_is_accepted_late_is_answered(tmp_path: Path) -> None:
    async with provider(tmp_path, accept_seconds=0.4) as sandbox, RawSmtp(sandbox) as client:
        await log_in(client)
        assert (await client.deliver(CONTENT)).startswith("250 2.0.0 OK ")


async def test_a_delayed_reply_comes_however_long_it_takes(tmp_path: Path) -> None:
    async with provider(tmp_path) as sandbox, RawSmtp(sandbox) as client:
        await log_in(client)
        sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=0.4))
        assert (await client.deliver(CONTENT)).startswith("250 2.0.0 OK ")


async def test_what_outlook_carries_over_is_answered(tmp_path: Path) -> None:
    rate: dict[str, Any] = {"messages_per_minute": 1, "minute_seconds": 0.4}
    async with provider(tmp_path, "outlook", **rate) as sandbox, RawSmtp(sandbox) as client:
        await log_in(client)
        for _ in range(2):
            assert (await client.deliver(CONTENT)).startswith("250 2.0.0 OK ")
        assert sandbox.counters.delayed_by_limit == 1


async def test_replies_far_away_arrive(tmp_path: Path) -> None:
    async with provider(tmp_path, rtt_seconds=0.3) as sandbox, RawSmtp(sandbox) as client:
        await client.connect()
        assert (await client.reply()).startswith("220 ")
        assert (await client.command("NOOP")).startswith("250 ")


async def test_an_old_session_gets_its_last_reply_from_far_away(tmp_path: Path) -> None:
    overrides: dict[str, Any] = {"session_seconds": 0.1, "idle_seconds": 60.0, "rtt_seconds": 0.4}
    async with provider(tmp_path, **overrides) as sandbox, RawSmtp(sandbox) as client:
        await client.connect()
        lines = (await client.rest()).splitlines()
    assert [line[:3] for line in lines] == [b"220", b"421"]


async def test_the_clock_starts_again_when_the_reply_has_left(tmp_path: Path) -> None:
    async with provider(tmp_path, accept_seconds=0.3) as sandbox, RawSmtp(sandbox) as client:
        await log_in(client)
        assert (await client.deliver(CONTENT)).startswith("250 2.0.0 OK ")
        loop = asyncio.get_running_loop()
        answered = loop.time()
        assert await client.rest() == BYE
        assert loop.time() - answered >= IDLE_SECONDS
    assert sandbox.counters.replies_by_code["421"] == 1


async def test_content_that_was_held_up_may_go_on(tmp_path: Path) -> None:
    async with provider(tmp_path) as sandbox, RawSmtp(sandbox) as client:
        await log_in(client)
        sandbox.add_fault(Fault(Step.CONTENT, Action.DELAY, seconds=0.3))
        await client.envelope()
        await client.command("DATA")
        client.send(CONTENT)
        await patience_has_ended(sandbox)
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250 ")


# Silence for good.


@pytest.mark.parametrize("action", [Action.STALL, Action.FREEZE])
@pytest.mark.parametrize("step", [Step.CONNECT, Step.EHLO, Step.MAIL, Step.END])
async def test_a_stall_is_silent_for_good(tmp_path: Path, step: Step, action: Action) -> None:
    overrides: dict[str, Any] = {"session_seconds": 0.15, "rtt_seconds": 0.01}
    async with provider(tmp_path, **overrides) as sandbox, RawSmtp(sandbox) as client:
        if step is Step.CONNECT:
            sandbox.add_fault(Fault(step, action))
            await client.connect()
            await sandbox.arrived(step)
            said = 0
        else:
            await log_in(client)
            sandbox.add_fault(Fault(step, action))
            before = sandbox.arrivals(step)
            client.send({Step.EHLO: b"EHLO x\r\n", Step.MAIL: FLIGHT, Step.END: FLIGHT}[step])
            await sandbox.arrived(step, before + 1)
            said = 2 if step is Step.END else 0
        assert len(await client.replies(said)) == said
        for _ in range(2):
            await patience_has_ended(sandbox)
        assert sandbox.counters.connections_open == 1
        sandbox.close_connections()
        assert await client.rest() == b""


async def test_a_stalled_client_that_goes_on_hears_nothing(tmp_path: Path) -> None:
    async with provider(tmp_path, rtt_seconds=0.1) as sandbox, RawSmtp(sandbox) as client:
        await client.connect()
        assert (await client.reply()).startswith("220 ")
        sandbox.add_fault(Fault(Step.EHLO, Action.STALL))
        client.send(b"NOOP\r\nEHLO x\r\n")
        await sandbox.arrived(Step.EHLO)
        client.send(b"EHLO x\r\n")  # before the reply to NOOP has arrived: no protocol violation
        assert (await client.reply()).startswith("250 ")
        await patience_has_ended(sandbox)
        sandbox.close_connections()
        assert await client.rest() == b""


async def test_a_frozen_connection_ends_when_the_client_goes(tmp_path: Path) -> None:
    async with provider(tmp_path) as sandbox:
        async with RawSmtp(sandbox) as client:
            sandbox.add_fault(Fault(Step.CONNECT, Action.FREEZE))
            await client.connect()
            client.send(b"EHLO x\r\n")
            await sandbox.arrived(Step.CONNECT)
            await patience_has_ended(sandbox)
            assert sandbox.counters.connections_open == 1
        await until(lambda: sandbox.counters.connections_open == 0)
