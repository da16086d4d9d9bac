"""Faults as the client on the other end of a socket sees them."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp, xoauth2
from tests.support.sandbox import Sandbox, reply_fault
from xoauth2_proxy.sandbox.behaviour import Behaviour, ProviderProfile
from xoauth2_proxy.sandbox.faults import Action, Fault, FaultScript, Step
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings
from xoauth2_proxy.sandbox.settings_document import read_settings
from xoauth2_proxy.sandbox.tokens.token_factory import TokenKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.both_loops

CONTENT = b"Subject: a\r\n\r\nb\r\n"
FLIGHT = (
    b"MAIL FROM:<%s>\r\nRCPT TO:<someone@example.com>\r\nBDAT %d LAST\r\n"
    % (MAILBOX.encode(), len(CONTENT))
    + CONTENT
)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path, http_port=None) as sandbox:
        yield sandbox


# The script.


def test_the_nth_matching_arrival_meets_the_fault() -> None:
    faults: FaultScript[Fault] = FaultScript()
    faults.add(Fault(Step.RCPT, Action.DROP, nth=2, mailbox="A@b", matching="c@d"))
    arrivals = [("a@b", "<c@d>"), ("x@b", "<c@d>"), ("a@b", "<e@f>"), ("a@b", "<c@d>")]
    met = [faults.next(Step.RCPT, *arrival) is not None for arrival in arrivals]
    assert met == [False, False, False, True]
    assert faults.next(Step.RCPT, "a@b", "<c@d>") is None
    assert faults.next(Step.MAIL, "a@b", "<c@d>") is None


def test_without_nth_every_arrival_meets_the_fault_until_it_is_cleared() -> None:
    faults: FaultScript[Fault] = FaultScript()
    faults.add(Fault(Step.MAIL, Action.DROP, nth=None))
    assert all(faults.next(Step.MAIL, "", "") for _ in range(3))
    faults.clear()
    assert faults.next(Step.MAIL, "", "") is None


def test_the_first_fault_that_is_due_is_met_and_all_count() -> None:
    faults: FaultScript[Fault] = FaultScript()
    first, second = Fault(Step.MAIL, Action.DROP), Fault(Step.MAIL, Action.STALL, nth=2)
    faults.add(first)
    faults.add(second)
    assert faults.next(Step.MAIL, "", "") is first
    assert faults.next(Step.MAIL, "", "") is second


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="text"):
        Fault(Step.MAIL, Action.REPLY)
    with pytest.raises(ValueError, match="end"):
        Fault(Step.MAIL, Action.ACCEPT_THEN_DROP)
    for action in (Action.EXPIRED, Action.REVOKED, Action.TAMPERED, Action.WRONG_MAILBOX):
        with pytest.raises(ValueError, match=f"action {action} is for the step auth only"):
            Fault(Step.MAIL, action)


# reply


async def test_a_reply_takes_the_place_of_the_greeting(sandbox: Sandbox) -> None:
    sandbox.add_fault(reply_fault(Step.CONNECT, "421 4.3.2 Try again later"))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        assert await client.rest() == b"421 4.3.2 Try again later\r\n"


@pytest.mark.parametrize(
    ("step", "command"),
    [
        (Step.EHLO, "EHLO x"),
        (Step.MAIL, "MAIL FROM:<a@b>"),
        (Step.RSET, "RSET"),
        (Step.QUIT, "QUIT"),
    ],
)
async def test_a_reply_takes_the_place_of_a_command(
    sandbox: Sandbox, step: Step, command: str
) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(reply_fault(step, "451-4.3.0 No,\n451 4.3.0 not now"))
        assert await client.command(command) == "451-4.3.0 No,\r\n451 4.3.0 not now\r\n"
        assert await client.command("RCPT TO:<a@b>") == "503 5.5.1 MAIL first\r\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(Step.CONNECT, Action.REFUSE), "554 5.7.1 "),
        (Fault(Step.CONNECT, Action.TEMPFAIL), "451 "),
        (reply_fault(Step.CONNECT, "550 5.7.1 Go away"), "550 5.7.1 Go away"),
    ],
)
async def test_whom_the_greeting_refuses_may_only_quit(
    sandbox: Sandbox, fault: Fault, said: str
) -> None:
    sandbox.add_fault(fault)
    async with RawSmtp(sandbox) as client:
        await client.connect()
        assert (await client.reply()).startswith(said)
        for line in ("EHLO x", "STARTTLS", "AUTH XOAUTH2", "MAIL FROM:<a@b>", "NOOP", "BDAT 0"):
            assert (await client.command(line)).startswith("503 5.5.1 ")
        assert (await client.command("quit")).startswith("221 ")
        assert await client.rest() == b""


async def test_who_is_greeted_with_garbage_may_go_on(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.CONNECT, Action.GARBAGE))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        await client.reply()
        assert (await client.command("EHLO x")).startswith("250")


async def test_starttls_can_be_refused(sandbox: Sandbox) -> None:
    sandbox.add_fault(reply_fault(Step.STARTTLS, "454 4.7.0 TLS not available"))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        await client.reply()
        await client.command("EHLO x")
        assert await client.command("STARTTLS") == "454 4.7.0 TLS not available\r\n"
        assert (await client.command("NOOP")).startswith("250 ")


async def test_one_mailboxs_auth_can_be_refused(sandbox: Sandbox) -> None:
    text = "454 4.7.0 Too many login attempts"
    sandbox.add_fault(reply_fault(Step.AUTH, text, nth=None, mailbox=MOCK_MAILBOXES[1]))
    async with RawSmtp(sandbox) as client:
        await client.begin()
        token = sandbox.tokens.mint(MOCK_MAILBOXES[1])
        assert await client.authenticate(MOCK_MAILBOXES[1], token) == text + "\r\n"
        token = sandbox.tokens.mint(MAILBOX)
        assert (await client.authenticate(MAILBOX, token)).startswith("235 ")
    assert (sandbox.counters.auth_accepted, sandbox.counters.auth_refused) == (1, 1)


async def test_one_recipient_can_be_refused(sandbox: Sandbox) -> None:
    sandbox.add_fault(
        reply_fault(Step.RCPT, "550 5.1.1 No such user", nth=None, matching="nobody@")
    )
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        await client.command("MAIL FROM:<a@b>")
        assert await client.command("RCPT TO:<nobody@x>") == "550 5.1.1 No such user\r\n"
        assert (await client.command("RCPT TO:<somebody@x>")).startswith("250 ")
        assert (await client.command("DATA")).startswith("354 ")
        client.send(CONTENT + b".\r\n")
        assert (await client.reply()).startswith("250 ")
    (message,) = sandbox.received
    assert message.forward_paths == ("somebody@x",)


async def test_a_refused_data_command_leaves_the_transaction(sandbox: Sandbox) -> None:
    sandbox.add_fault(reply_fault(Step.DATA, "451 4.3.0 Not now"))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        await client.envelope()
        assert await client.command("DATA") == "451 4.3.0 Not now\r\n"
        assert (await client.command("DATA")).startswith("354 ")


@pytest.mark.parametrize("step", [Step.BDAT, Step.CONTENT, Step.END])
async def test_a_refused_chunk_is_read_to_its_end(sandbox: Sandbox, step: Step) -> None:
    sandbox.add_fault(reply_fault(step, "432 4.3.2 Concurrent connections limit exceeded"))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT + FLIGHT)
        replies = await client.replies(6)
    assert [reply[:3] for reply in replies] == ["250", "250", "432", "250", "250", "250"]
    assert sandbox.received.total == 1
    assert sandbox.counters.transactions_refused == 1


@pytest.mark.parametrize("step", [Step.CONTENT, Step.END])
async def test_refused_data_is_read_to_its_end(sandbox: Sandbox, step: Step) -> None:
    sandbox.add_fault(reply_fault(step, "552 5.7.0 Illegal attachment"))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        assert await client.deliver(CONTENT) == "552 5.7.0 Illegal attachment\r\n"
        assert (await client.deliver(CONTENT)).startswith("250 2.0.0 OK ")
    assert sandbox.received.total == 1


async def test_a_421_closes_the_connection(sandbox: Sandbox) -> None:
    sandbox.add_fault(reply_fault(Step.MAIL, "421 4.7.0 Try again later"))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT)
        assert await client.rest() == b"421 4.7.0 Try again later\r\n"
    assert sandbox.received.total == 0


# drop and reset


@pytest.mark.parametrize("step", [Step.MAIL, Step.BDAT, Step.CONTENT, Step.END])
async def test_a_dropped_connection_ends_after_the_replies_before(
    sandbox: Sandbox, step: Step
) -> None:
    sandbox.add_fault(Fault(step, Action.DROP))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT)
        answer = await client.rest()
    assert answer.count(b"250 ") == (0 if step is Step.MAIL else 2)
    assert sandbox.received.total == 0


async def test_a_dropped_connection_can_be_the_first_thing(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.CONNECT, Action.DROP))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        assert await client.rest() == b""


@pytest.mark.parametrize("step", [Step.CONNECT, Step.EHLO])
async def test_a_reset_connection_is_lost_with_a_reset(sandbox: Sandbox, step: Step) -> None:
    sandbox.add_fault(Fault(step, Action.RESET))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        client.send(b"" if step is Step.CONNECT else b"EHLO x\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_connection_under_tls_can_be_reset(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(Fault(Step.MAIL, Action.RESET))
        client.send(FLIGHT)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_message_can_be_kept_and_never_answered(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.END, Action.ACCEPT_THEN_DROP))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT)
        assert (await client.rest()).count(b"250 ") == 2
    (message,) = await sandbox.received.wait_until(1)
    assert message.content == CONTENT


# stall, freeze and delay


async def is_silent(client: RawSmtp) -> bool:
    """Whether nothing comes for a moment; the one thing that can only be shown by waiting."""
    try:
        async with asyncio.timeout(0.05):
            await client.reply()
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("action", [Action.STALL, Action.FREEZE])
async def test_a_stalled_command_is_never_answered(sandbox: Sandbox, action: Action) -> None:
    sandbox.add_fault(Fault(Step.END, action))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT + b"NOOP\r\n")
        assert [reply[:3] for reply in await client.replies(2)] == ["250", "250"]
        await sandbox.arrived(Step.END)
        assert await is_silent(client)
    assert sandbox.received.total == 0


async def test_a_stalled_connection_is_read_and_a_frozen_one_is_not(sandbox: Sandbox) -> None:
    for action, is_read in ((Action.STALL, True), (Action.FREEZE, False)):
        sandbox.clear_faults()
        async with RawSmtp(sandbox) as client:
            await client.log_in()
            sandbox.add_fault(Fault(Step.CONTENT, action))
            await client.envelope()
            client.send(b"BDAT 99000000 LAST\r\n")
            assert await client.can_push(32_000_000, 5 if is_read else 0.3) is is_read


async def test_a_stalled_connection_ends_when_the_client_goes(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.EHLO, Action.STALL))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        client.send(b"EHLO x\r\n")
        await sandbox.arrived(Step.EHLO)
        assert sandbox.counters.connections_open == 1
    async with RawSmtp(sandbox) as client:  # a round trip later it is known
        await client.begin()
        assert sandbox.counters.connections_open == 1


@pytest.mark.parametrize("step", [Step.MAIL, Step.CONTENT, Step.END, Step.BDAT])
async def test_a_delayed_reply_comes_later_and_in_order(sandbox: Sandbox, step: Step) -> None:
    sandbox.add_fault(Fault(step, Action.DELAY, seconds=0.05))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        started = time.monotonic()
        client.send(FLIGHT + b"RSET\r\n")
        replies = await client.replies(4)
        assert time.monotonic() - started >= 0.045
    assert [reply[:9] for reply in replies] == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"]


async def test_replies_before_a_delayed_one_are_not_delayed(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=30))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT)
        assert len(await client.replies(2)) == 2
        (message,) = await sandbox.received.wait_until(1)  # kept before it is answered
        assert message.content == CONTENT


async def test_a_delayed_greeting_comes(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.CONNECT, Action.DELAY, seconds=0.02))
    async with RawSmtp(sandbox) as client:
        await client.connect()
        assert (await client.reply()).startswith("220 ")


async def test_tls_starts_after_a_delayed_starttls(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.STARTTLS, Action.DELAY, seconds=0.02))
    async with RawSmtp(sandbox) as client:
        await client.log_in()


async def test_what_is_sent_during_a_delay_is_neither_lost_nor_hoarded(sandbox: Sandbox) -> None:
    content = b"x" * 1_000_000
    sandbox.add_fault(Fault(Step.CONTENT, Action.DELAY, seconds=0.05))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        await client.envelope()
        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
        assert (await client.reply()).startswith("250 2.0.0 OK ")
    (message,) = sandbox.received
    assert message.content == content


# garbage and reply_twice


@pytest.mark.parametrize("text", ["", "250"])
async def test_garbage_takes_the_place_of_a_reply(sandbox: Sandbox, text: str) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(Fault(Step.MAIL, Action.GARBAGE, text=text))
        client.send(b"MAIL FROM:<a@b>\r\nNOOP\r\nQUIT\r\n")
        garbage, noop, _bye = (await client.rest()).split(b"\r\n")[:3]
    assert garbage == (text.encode() or b"\x16\x03\x01 this is no reply")
    assert noop.startswith(b"250 ")


async def test_a_reply_can_come_twice(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(Fault(Step.END, Action.REPLY_TWICE))
        client.send(FLIGHT + b"QUIT\r\n")
        lines = (await client.rest()).splitlines()
    assert [line[:9] for line in lines] == [
        b"250 2.1.0",
        b"250 2.1.5",
        b"250 2.0.0",
        b"250 2.0.0",
        b"221 2.0.0",
    ]
    assert lines[2] == lines[3]
    assert sandbox.received.total == 1


CHUNKS = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\nNOOP\r\n"


@pytest.mark.parametrize(("step", "nth"), [(Step.BDAT, 1), (Step.BDAT, 2), (Step.CONTENT, 1)])
async def test_the_reply_to_a_chunk_can_come_twice(sandbox: Sandbox, step: Step, nth: int) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(Fault(step, Action.REPLY_TWICE, nth=nth))
        client.send(CHUNKS)
        replies = await client.replies(6)
        assert (await client.command("NOOP")).startswith("250 ")
    doubled = 2 if nth == 1 else 3
    assert replies[doubled] == replies[doubled + 1]
    assert len(set(replies)) == 5
    assert sandbox.received.total == 1


@pytest.mark.parametrize(
    ("step", "nth", "count", "total"),
    [(Step.BDAT, 1, 3, 0), (Step.BDAT, 2, 4, 1), (Step.CONTENT, 1, 3, 0)],
)
async def test_the_connection_can_end_behind_the_reply_to_a_chunk(
    sandbox: Sandbox, step: Step, nth: int, count: int, total: int
) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(Fault(step, Action.REPLY_THEN_DROP, nth=nth))
        client.send(CHUNKS)
        lines = (await client.rest()).splitlines()
    assert [line[:4] for line in lines] == [b"250 "] * count
    assert sandbox.received.total == total


@pytest.mark.parametrize(
    ("action", "count"), [(Action.REPLY_TWICE, 2), (Action.REPLY_THEN_DROP, 1)]
)
@pytest.mark.parametrize("delay_seconds", [0.0, 0.05])
async def test_the_reply_to_data_can_be_spoilt_from_its_first_octets_on(
    tmp_path: Path, action: Action, count: int, delay_seconds: float
) -> None:
    settings = ProviderSettings(behaviour=Behaviour(accept_seconds=delay_seconds))
    async with (
        Sandbox(tmp_path, settings, http_port=None) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.log_in()
        sandbox.add_fault(Fault(Step.CONTENT, action))
        await client.envelope()
        await client.command("DATA")
        client.send(CONTENT + b".\r\n" + (b"QUIT\r\n" if action is Action.REPLY_TWICE else b""))
        lines = (await client.rest()).splitlines()
        assert [line[:6] for line in lines[:count]] == [b"250 2."] * count
        assert [line[:3] for line in lines[count:]] == [b"221"] * (count - 1)
        assert sandbox.received.total == 1


async def test_a_stall_at_the_end_outlives_what_else_spoils_the_reply(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.add_fault(Fault(Step.CONTENT, Action.REPLY_THEN_DROP))
        sandbox.add_fault(Fault(Step.END, Action.STALL))
        client.send(FLIGHT)
        await client.replies(2)
        await sandbox.arrived(Step.END)
        assert await is_silent(client)
        assert sandbox.counters.connections_open == 1


async def test_a_chunk_that_had_its_reply_early_counts_no_other(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.BDAT, Action.REFUSE))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        client.send(FLIGHT)
        await client.replies(3)
    assert "garbage" not in sandbox.counters.replies_by_code


# Tokens that are taken for others.

BAD_TOKENS = {
    Action.EXPIRED: TokenKind.EXPIRED,
    Action.REVOKED: TokenKind.REVOKED,
    Action.TAMPERED: TokenKind.TAMPERED,
    Action.WRONG_MAILBOX: TokenKind.WRONG_MAILBOX,
}


def scrubbed(replies: list[str]) -> list[str]:
    """Return replies without their times and identifiers."""
    return [re.sub(r"\d{4}-\d\d-\S+|\b[0-9A-F]{16}\b", "", reply) for reply in replies]


async def exchange(client: RawSmtp, token: str) -> list[str]:
    replies = [await client.command("AUTH XOAUTH2")]
    replies.append(await client.command(xoauth2(MAILBOX, token).decode()))
    if replies[-1].startswith("334"):
        replies.append(await client.command(""))
    return replies


@pytest.mark.parametrize("profile", list(ProviderProfile))
@pytest.mark.parametrize("action", list(BAD_TOKENS))
async def test_a_good_token_can_be_taken_for_a_bad_one(
    tmp_path: Path, profile: ProviderProfile, action: Action
) -> None:
    document = {"profile": profile.value, "overrides": {"refusal_seconds": 0.02}}
    sandbox = Sandbox(tmp_path, read_settings(document))
    async with sandbox, RawSmtp(sandbox) as client, aiohttp.ClientSession() as http:
        await client.begin()
        wanted = {"mailbox": MAILBOX, "kind": BAD_TOKENS[action].value}
        async with http.post(f"{sandbox.http_url}/test/tokens", json=wanted) as answer:
            bad = (await answer.json())["token"]
        really = await exchange(client, bad)
        good = sandbox.tokens.mint(MAILBOX)
        sandbox.add_fault(Fault(Step.AUTH, action, mailbox=MAILBOX))
        taken = await exchange(client, good)
        assert scrubbed(taken) == scrubbed(really)
        assert taken[-1].startswith("535")
        assert (sandbox.counters.auth_accepted, sandbox.counters.auth_refused) == (0, 2)
        assert sandbox.counters.faults_met == {f"auth:{action}": 1}
        assert (await exchange(client, good))[-1].startswith("235 ")


# Words, and the usual reply before the end.


@pytest.mark.parametrize(
    ("action", "said"),
    [(Action.REFUSE, "550 5.7.1 "), (Action.TEMPFAIL, "451 4.3.0 "), (Action.SHUT_DOWN, "421 ")],
)
@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA, Step.END])
async def test_a_refusal_needs_no_text(
    sandbox: Sandbox, step: Step, action: Action, said: str
) -> None:
    sandbox.add_fault(Fault(step, action))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        answer = ""
        for line in (f"MAIL FROM:<{MAILBOX}>", "RCPT TO:<a@b>", "DATA", "Subject: a\r\n."):
            answer = await client.command(line)
            if answer[:3] not in ("250", "354"):
                break
        assert answer.startswith(said)
        if action is Action.SHUT_DOWN:
            assert await client.rest() == b""
        else:
            assert (await client.command("NOOP")).startswith("250 ")
    assert sandbox.received.total == 0
    assert sandbox.counters.faults_met == {f"{step}:{action}": 1}


@pytest.mark.parametrize(
    ("action", "said"), [(Action.REFUSE, "535 5.7.8 "), (Action.TEMPFAIL, "454 4.7.0 ")]
)
async def test_a_refusal_at_auth_is_one_of_auth(
    sandbox: Sandbox, action: Action, said: str
) -> None:
    sandbox.add_fault(Fault(Step.AUTH, action))
    async with RawSmtp(sandbox) as client:
        await client.begin()
        assert (await client.authenticate(MAILBOX, sandbox.tokens.mint(MAILBOX))).startswith(said)


@pytest.mark.parametrize(
    ("step", "said"),
    [(Step.MAIL, b"250 2.1.0 OK\r\n"), (Step.DATA, b"354 Go ahead\r\n"), (Step.QUIT, b"221 ")],
)
async def test_the_connection_can_end_behind_the_usual_reply(
    sandbox: Sandbox, step: Step, said: bytes
) -> None:
    sandbox.add_fault(Fault(step, Action.REPLY_THEN_DROP))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        if step is Step.DATA:
            await client.envelope()
        line = {Step.MAIL: "MAIL FROM:<a@b>", Step.DATA: "DATA", Step.QUIT: "QUIT"}[step]
        client.send(line.encode() + b"\r\n")
        assert (await client.rest()).startswith(said)
    assert sandbox.received.total == 0


async def slow(tmp_path: Path, *faults: Fault) -> Sandbox:
    """Start a provider that takes its time to accept."""
    settings = ProviderSettings(behaviour=Behaviour(accept_seconds=0.1), faults=faults)
    sandbox = Sandbox(tmp_path, settings, http_port=None)
    await sandbox.start()
    return sandbox


@pytest.mark.parametrize(
    ("action", "count", "is_closed"),
    [
        (Action.ACCEPT_THEN_DROP, 0, True),
        (Action.REPLY_THEN_DROP, 1, True),
        (Action.REPLY_TWICE, 2, False),
        (Action.DELAY, 1, False),
    ],
)
async def test_a_fault_meets_a_reply_that_is_late_anyway(
    tmp_path: Path, action: Action, count: int, is_closed: bool
) -> None:
    sandbox = await slow(tmp_path, Fault(Step.END, action, seconds=0.1))
    try:
        async with RawSmtp(sandbox) as client:
            await client.log_in()
            await client.envelope()
            await client.command("DATA")
            began = time.monotonic()
            client.send(CONTENT + b".\r\n")
            if not is_closed:
                replies = await client.replies(count)
                client.send(b"QUIT\r\n")
                assert (await client.rest()).startswith(b"221 ")
            else:
                replies = (await client.rest()).decode().splitlines()
            assert [reply[:3] for reply in replies] == ["250"] * count
            if action is Action.DELAY:
                assert time.monotonic() - began >= 0.19
        assert sandbox.received.total == 1
    finally:
        await sandbox.stop()


async def test_a_share_of_the_arrivals_meets_a_fault_by_chance(sandbox: Sandbox) -> None:
    sandbox.add_fault(Fault(Step.MAIL, Action.TEMPFAIL, rate=0.3))
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        answers = []
        for _ in range(100):
            answers.append((await client.command("MAIL FROM:<a@b>"))[:3])
            await client.command("RSET")
    assert 15 <= answers.count("451") <= 45
    assert sandbox.counters.faults_met == {"mail:tempfail": answers.count("451")}
