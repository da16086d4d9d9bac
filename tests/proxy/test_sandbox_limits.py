"""Limits of a mailbox as clients meet them, and the arithmetic behind them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox
from xoauth2_proxy.sandbox import limits as limits_module
from xoauth2_proxy.sandbox.behaviour import Behaviour, ProviderProfile
from xoauth2_proxy.sandbox.counters import Counters
from xoauth2_proxy.sandbox.dialects import DIALECTS
from xoauth2_proxy.sandbox.limits import ProviderLimits, Window
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONTENT = b"Subject: a\r\n\r\nb\r\n"
FULL = "432 4.3.2 Concurrent connections limit exceeded. "
OTHER = MOCK_MAILBOXES[1]
ROUNDING = 0.01  # of timers


def provider(folder: Path, profile: str = "unlimited", **overrides: object) -> Sandbox:
    document = {"profile": profile, "overrides": overrides}
    return Sandbox(folder, read_settings(document), http_port=None)


async def log_in(sandbox: Sandbox, mailbox: str = MAILBOX) -> RawSmtp:
    client = await RawSmtp(sandbox).begin()
    token = sandbox.tokens.mint(mailbox)
    assert (await client.authenticate(mailbox, token)).startswith("235 ")
    return client


class Clients:
    """Logged-in clients that all end with the test."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.all: list[RawSmtp] = []

    async def one(self, mailbox: str = MAILBOX) -> RawSmtp:
        client = await log_in(self.sandbox, mailbox)
        self.all.append(client)
        return client

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *raised: object) -> None:
        for client in self.all:
            await client.close()


@pytest.fixture
async def outlook(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with provider(tmp_path, "outlook", refusal_seconds=0.0) as sandbox:
        yield sandbox


# Connections.


async def test_the_fourth_connections_message_is_refused_behind_its_dot(outlook: Sandbox) -> None:
    async with Clients(outlook) as clients:
        four = [await clients.one() for _ in range(4)]
        answers = [await client.deliver(CONTENT) for client in four]
        assert [answer[:3] for answer in answers] == ["250", "250", "250", "432"]
        assert answers[3].startswith(FULL)
        assert (await (await clients.one(OTHER)).deliver(CONTENT)).startswith("250 ")
    assert outlook.received.total == 4
    assert outlook.counters.refused_by_limit == {"max_connections_per_mailbox": 1}
    assert outlook.counters.transactions_refused == 1


async def test_the_fourth_may_send_once_another_has_gone(outlook: Sandbox) -> None:
    async with Clients(outlook) as clients:
        first, *_, fourth = [await clients.one() for _ in range(4)]
        assert (await fourth.deliver(CONTENT)).startswith(FULL)
        assert (await first.command("QUIT")).startswith("221 ")
        assert await first.rest() == b""
        assert (await fourth.deliver(CONTENT)).startswith("250 ")


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
async def test_the_refusal_can_come_before_the_content(tmp_path: Path, way: str) -> None:
    settings = {"max_connections_per_mailbox": 1, "connections_refused_at": "data"}
    async with provider(tmp_path, "outlook", **settings) as sandbox, Clients(sandbox) as clients:
        await clients.one()
        client = await clients.one()
        await client.envelope()
        if way == "DATA":
            assert (await client.command("DATA")).startswith(FULL)
        else:
            client.send(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
            assert (await client.reply()).startswith(FULL)
        assert (await client.command("RSET")).startswith("250 ")
        assert sandbox.received.total == 0


async def test_gmail_closes_the_connection_too_many(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, "gmail", max_connections_per_mailbox=2) as sandbox,
        Clients(sandbox) as clients,
    ):
        for _ in range(2):
            await clients.one()
        third = await RawSmtp(sandbox).begin()
        clients.all.append(third)
        answer = await third.authenticate(MAILBOX, sandbox.tokens.mint(MAILBOX))
        assert answer.startswith("421 4.7.0 Try again later, closing connection.")
        assert await third.rest() == b""
        await clients.one(OTHER)
        assert sandbox.counters.open_by_mailbox == {MAILBOX: 2, OTHER: 1}


# Rates.


@dataclass
class Clock:
    """What the limits take for the time."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(limits_module, "time", made)
    return made


async def test_too_many_logins_are_told_so(tmp_path: Path, clock: Clock) -> None:
    async with (
        provider(tmp_path, "gmail", logins_per_minute=2) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.begin()
        for _ in range(2):
            assert (await client.authenticate(MAILBOX, "ya29.invented")).startswith("535")
        good = sandbox.tokens.mint(MAILBOX)
        answer = await client.authenticate(MAILBOX, good)
        assert answer.startswith("454-4.7.0 Too many login attempts")
        clock.now += 59.0
        assert (await client.authenticate(MAILBOX, good)).startswith("454-4.7.0")
        clock.now += 2.0
        assert (await client.authenticate(MAILBOX, good)).startswith("235 ")
        assert sandbox.counters.auth_refused == 4


async def test_messages_beyond_the_rate_are_refused(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, "gmail", messages_per_minute=2) as sandbox,
        Clients(sandbox) as clients,
    ):
        client = await clients.one()
        for _ in range(2):
            assert (await client.deliver(CONTENT)).startswith("250 ")
        await client.envelope()
        assert (await client.command("DATA")).startswith("450 4.2.1 ")
        assert (await (await clients.one(OTHER)).deliver(CONTENT)).startswith("250 ")
        assert sandbox.counters.refused_by_limit == {"messages_per_minute": 1}


async def test_messages_under_way_count_already(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, "gmail", messages_per_minute=1) as sandbox,
        Clients(sandbox) as clients,
    ):
        first, second = await clients.one(), await clients.one()
        await first.envelope()
        assert (await first.command("DATA")).startswith("354 ")
        await second.envelope()
        assert (await second.command("DATA")).startswith("450 ")


async def test_outlook_carries_over_what_is_beyond_the_rate(tmp_path: Path, clock: Clock) -> None:
    settings = {"messages_per_minute": 2, "minute_seconds": 0.4}
    async with provider(tmp_path, "outlook", **settings) as sandbox, Clients(sandbox) as clients:
        client = await clients.one()
        began = time.monotonic()
        for _ in range(5):
            assert (await client.deliver(CONTENT)).startswith("250 ")
        assert time.monotonic() - began >= 0.8 - ROUNDING
        assert sandbox.counters.delayed_by_limit == 3
        assert sandbox.received.total == 5


@pytest.mark.parametrize("limit", ["messages_per_day", "recipients_per_day"])
async def test_gmail_tells_a_days_limit_before_the_content(tmp_path: Path, limit: str) -> None:
    async with provider(tmp_path, "gmail", **{limit: 2}) as sandbox, Clients(sandbox) as clients:
        client = await clients.one()
        for _ in range(2):
            assert (await client.deliver(CONTENT)).startswith("250 ")
        await client.envelope()
        answer = await client.command("DATA")
        assert answer.startswith("550-5.4.5 Daily user sending limit exceeded.")
        assert sandbox.counters.refused_by_limit == {limit: 1}


async def test_outlook_tells_a_days_limit_behind_the_content(tmp_path: Path, clock: Clock) -> None:
    async with (
        provider(tmp_path, "outlook", recipients_per_day=1) as sandbox,
        Clients(sandbox) as clients,
    ):
        client = await clients.one()
        assert (await client.deliver(CONTENT)).startswith("250 ")
        answer = await client.deliver(CONTENT)
        assert answer.startswith(
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"
        )
        clock.now += 86_401.0
        assert (await client.deliver(CONTENT)).startswith("250 ")


async def test_a_refused_message_costs_nothing(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, "outlook", recipients_per_day=1) as sandbox,
        Clients(sandbox) as clients,
    ):
        client = await clients.one()
        await client.envelope()
        await client.command("RCPT TO:<another@example.com>")
        await client.command("DATA")
        client.send(CONTENT + b".\r\n")
        assert (await client.reply()).startswith("554 5.2.0 ")
        assert (await client.deliver(CONTENT)).startswith("250 ")


# Time.


async def test_a_failed_login_waits_for_its_reply(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, "outlook", refusal_seconds=0.3) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.begin()
        began = time.monotonic()
        assert (await client.authenticate(MAILBOX, "EwAx")).startswith("535 5.7.3 ")
        assert time.monotonic() - began >= 0.3 - ROUNDING
        good = sandbox.tokens.mint(MAILBOX)
        assert (await client.authenticate(MAILBOX, good)).startswith("235 ")


async def test_the_last_failed_login_waits_and_closes(tmp_path: Path) -> None:
    async with provider(tmp_path, "outlook", refusal_seconds=0.02) as sandbox:
        client = await RawSmtp(sandbox).begin()
        answers = [await client.authenticate(MAILBOX, "EwAx") for _ in range(5)]
        assert [answer[:3] for answer in answers] == ["535"] * 4 + ["421"]
        assert await client.rest() == b""
        await client.close()


@pytest.mark.simulated_time
async def test_an_old_session_is_ended_between_messages(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, "outlook", session_seconds=0.2) as sandbox,
        Clients(sandbox) as clients,
    ):
        client = await clients.one()
        await client.envelope()
        assert (await client.command("DATA")).startswith("354 ")
        await asyncio.sleep(0.5)  # older than it may become, but with a message under way
        client.send(CONTENT + b".\r\n")
        assert (await client.reply()).startswith("250 ")
        assert await client.rest() == b"421 4.4.1 Connection timed out\r\n"
        assert sandbox.counters.refused_by_limit == {"session_seconds": 1}


async def test_a_message_is_kept_before_its_delayed_reply(tmp_path: Path) -> None:
    async with (
        provider(tmp_path, accept_seconds=0.3) as sandbox,
        Clients(sandbox) as clients,
    ):
        client = await clients.one()
        began = time.monotonic()
        reply = asyncio.create_task(client.deliver(CONTENT))
        await sandbox.received.wait_until(1)
        assert not reply.done()
        assert (await reply).startswith("250 ")
        assert time.monotonic() - began >= 0.3 - ROUNDING


# The window.


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3)), max_size=60),
)
def test_no_window_ever_holds_more_than_its_limit(
    limit: int, steps: list[tuple[float, int]]
) -> None:
    window, now, taken = Window(limit, 2.0), 0.0, list[tuple[float, int]]()
    for pause, amount in steps:
        now += pause
        recent = sum(one for at, one in taken if at > now - 2.0)
        assert window.has_room(now, amount) == (recent + amount <= limit)
        if window.has_room(now, amount):
            window.take(now, amount)
            taken.append((now, amount))


@given(limit=st.integers(1, 5), pauses=st.lists(st.floats(0, 3), max_size=60))
def test_whoever_waits_as_told_keeps_the_rate(limit: int, pauses: list[float]) -> None:
    window, now, sent = Window(limit, 2.0), 0.0, list[float]()
    for pause in pauses:
        now += pause
        wait = window.wait_seconds(now)
        assert wait >= 0.0
        sent.append(now + wait)
    assert sent == sorted(sent)
    for first, later in zip(sent, sent[limit:], strict=False):
        assert later - first >= 2.0 - 1e-9


def test_without_a_limit_nobody_waits() -> None:
    window = Window(0, 2.0)
    assert all(window.has_room(0.0, 10**9) and window.wait_seconds(0.0) == 0.0 for _ in range(9))


# Memory.


def test_of_idle_mailboxes_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xoauth2_proxy.sandbox.limits._MAX_MAILBOXES", 2)
    behaviour = Behaviour(logins_per_minute=1, max_connections_per_mailbox=1)
    limits = ProviderLimits(behaviour, DIALECTS[ProviderProfile.UNLIMITED], Counters())
    assert [limits.refuse_login("first") for _ in range(2)] != ["", ""]
    assert limits.refuse_login("second") == limits.refuse_login("third") == ""
    assert limits.refuse_login("first") == "", "the first was forgotten"
    assert limits.enter("first", object()) == ""
    for name in ("second", "third", "fourth"):
        assert limits.refuse_login(name) == ""
    assert limits.refuse_login("second") == "", (
        "the second was forgotten, though the first is older"
    )
    assert limits.enter("first", object()) != "", "who is logged in is never forgotten"
    limits.leave("nobody", object())


def test_garbage_is_counted_as_such() -> None:
    counters = Counters()
    counters.count_replies([b"250 OK", b"250-a", b"\x16\x03\x01", b"", b"2"])
    assert counters.replies_by_code == {"250": 2, "garbage": 3}
