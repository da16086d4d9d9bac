from __future__ import annotations

import asyncio
import base64
import contextlib
import smtplib
import ssl
import time
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.settings_document import read_settings
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from xoauth2_proxy.sandbox.provider_settings import ProviderSettings

pytestmark = pytest.mark.both_loops

CONTENT = b"Message-ID: <1@x>\r\nSubject: a\r\n\r\n.\r\n..\r\nb\r\n"
REFUSED = "535 5.7.8 Username and Password not accepted\r\n"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path, http_port=None) as sandbox:
        yield sandbox


def behaving(**overrides: object) -> ProviderSettings:
    return read_settings({"overrides": overrides})


def submit(sandbox: Sandbox) -> None:
    """Submit a message with the standard library's client."""
    context = ssl.create_default_context(cafile=str(sandbox.ca_file))
    token = sandbox.tokens.mint(MAILBOX)
    client: smtplib.SMTP
    if sandbox.behaviour.tls is TlsMode.IMPLICIT:
        client = smtplib.SMTP_SSL(*sandbox.smtp_address, timeout=PATIENCE_SECONDS, context=context)
    else:
        client = smtplib.SMTP(*sandbox.smtp_address, timeout=PATIENCE_SECONDS)
    with client:
        if sandbox.behaviour.tls is TlsMode.STARTTLS:
            client.starttls(context=context)
        client.ehlo()
        client.auth(
            "XOAUTH2",
            lambda _=None: f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01",
            initial_response_ok=False,
        )
        client.sendmail(MAILBOX, ["someone@example.com"], CONTENT)


# A message's way.


@pytest.mark.parametrize("tls", list(TlsMode))
async def test_a_standard_client_delivers_a_message(tmp_path: Path, tls: TlsMode) -> None:
    async with Sandbox(tmp_path, http_port=None, tls=tls) as sandbox:
        await asyncio.to_thread(submit, sandbox)
        (message,) = sandbox.received
    assert message.content == CONTENT
    assert message.mailbox == MAILBOX


@pytest.mark.parametrize("tls", list(TlsMode))
def test_it_works_on_uvloop(tmp_path: Path, tls: TlsMode) -> None:
    async def main() -> None:
        async with Sandbox(tmp_path, tls=tls) as sandbox:
            await asyncio.to_thread(submit, sandbox)
            assert [message.content for message in sandbox.received] == [CONTENT]

    uvloop.run(main())


def test_a_reset_works_on_uvloop(tmp_path: Path) -> None:
    from xoauth2_proxy.sandbox.faults import Action, Fault

    async def main() -> None:
        async with Sandbox(tmp_path, http_port=None) as sandbox, RawSmtp(sandbox) as client:
            await client.log_in()
            sandbox.add_fault(Fault(Step.MAIL, Action.RESET))
            client.send(b"MAIL FROM:<a@b>\r\n")
            with pytest.raises(ConnectionResetError):
                await client.rest()

    uvloop.run(main())


async def test_many_clients_at_once_lose_nothing(sandbox: Sandbox) -> None:
    async def deliver(number: int) -> None:
        mailbox = MOCK_MAILBOXES[number % 4]
        async with RawSmtp(sandbox) as client:
            await client.log_in(mailbox)
            for _ in range(5):
                assert (await client.deliver(CONTENT)).startswith("250 ")

    await asyncio.gather(*(deliver(number) for number in range(20)))
    messages = await sandbox.received.wait_until(100)
    assert len({message.id for message in messages}) == 100
    assert set(sandbox.counters.peak_by_mailbox) == set(MOCK_MAILBOXES)
    assert max(sandbox.counters.peak_by_mailbox.values()) <= 5
    assert sandbox.counters.transactions_accepted == 100


# AUTH.


@pytest.mark.parametrize(
    "token",
    [
        lambda tokens: tokens.mint(MAILBOX, ttl_seconds=-1),
        lambda tokens: tokens.mint(MOCK_MAILBOXES[1]),
        lambda tokens: tokens.mint(MAILBOX)[:-2] + "AA",
        lambda _: MockTokens(b"x" * 32).mint(MAILBOX),
        lambda _: "ya29.a0AfH6SMBx",
    ],
    ids=["expired", "of another mailbox", "tampered with", "of another provider", "invented"],
)
async def test_a_token_that_is_not_good_is_refused(
    sandbox: Sandbox, token: Callable[[MockTokens], str]
) -> None:
    async with RawSmtp(sandbox) as client:
        await client.begin()
        assert await client.authenticate(MAILBOX, token(sandbox.tokens)) == REFUSED
        good = sandbox.tokens.mint(MAILBOX)
        assert (await client.authenticate(MAILBOX.upper(), good)).startswith("235 ")


async def test_a_revoked_token_is_refused_and_another_is_not(sandbox: Sandbox) -> None:
    revoked, other = sandbox.tokens.mint(MAILBOX), sandbox.tokens.mint(MAILBOX)
    sandbox.revoke(revoked)
    sandbox.revoke("no token at all")
    async with RawSmtp(sandbox) as client:
        await client.begin()
        assert await client.authenticate(MAILBOX, revoked) == REFUSED
        assert (await client.authenticate(MAILBOX, other)).startswith("235 ")


async def test_revoking_all_leaves_tokens_minted_later(sandbox: Sandbox) -> None:
    before = sandbox.tokens.mint(MAILBOX)
    sandbox.revoke_all()
    after = sandbox.tokens.mint(MAILBOX)
    async with RawSmtp(sandbox) as client:
        await client.begin()
        assert await client.authenticate(MAILBOX, before) == REFUSED
        assert (await client.authenticate(MAILBOX, after)).startswith("235 ")


async def test_a_token_minted_by_another_process_of_the_same_state_is_good(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    from xoauth2_proxy.sandbox.state_directory import load_signing_key

    token = MockTokens(load_signing_key(tmp_path)).mint(MAILBOX)
    async with RawSmtp(sandbox) as client:
        await client.begin()
        assert (await client.authenticate(MAILBOX, token)).startswith("235 ")


# TLS.


async def test_starttls_forgets_what_was_said_before(tmp_path: Path) -> None:
    async with (
        Sandbox(tmp_path, behaving(auth_without_tls=True), http_port=None) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.connect()
        await client.reply()
        await client.command("EHLO x")
        token = sandbox.tokens.mint(MAILBOX)
        assert (await client.authenticate(MAILBOX, token)).startswith("235 ")
        assert (await client.command("STARTTLS")).startswith("220 ")
        await client.start_tls()
        assert (await client.command("MAIL FROM:<a@b>")).startswith("503 5.5.1 EHLO first")
        answer = await client.command("EHLO x")
        assert "STARTTLS" not in answer
        assert (await client.command("STARTTLS")).startswith("502 ")
        assert (await client.command("MAIL FROM:<a@b>")).startswith("530 ")
        assert sandbox.counters.open_by_mailbox == {}


async def test_plaintext_behind_starttls_is_refused(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.connect()
        await client.reply()
        await client.command("EHLO x")
        client.send(b"STARTTLS\r\nRSET\r\n")
        answer = await client.rest()
    assert answer.startswith(b"554 5.5.0 ")
    assert answer.count(b"\r\n") == 1


async def test_plaintext_after_starttls_never_becomes_a_command(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.connect()
        await client.reply()
        await client.command("EHLO x")
        assert (await client.command("STARTTLS")).startswith("220 ")
        client.send(b"RSET\r\n" * 100)
        with contextlib.suppress(ConnectionError):
            await client.rest()
    assert sandbox.arrivals(Step.RSET) == 0
    assert sandbox.counters.connections_open == 0


async def test_a_client_that_leaves_during_the_handshake_is_forgotten(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.connect()
        await client.reply()
        await client.command("EHLO x")
        await client.command("STARTTLS")
    async with RawSmtp(sandbox) as client:
        await client.begin()
        assert sandbox.counters.connections_open == 1


@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
async def test_stopping_during_a_handshake_leaves_nothing_behind(
    tmp_path: Path, tls: TlsMode
) -> None:
    async with Sandbox(tmp_path, http_port=None, tls=tls) as sandbox, RawSmtp(sandbox) as client:
        await client.connect()
        if tls is TlsMode.STARTTLS:
            await client.reply()
            await client.command("EHLO x")
            await client.command("STARTTLS")
        else:
            client.send(b"\x16\x03")  # the beginning of a ClientHello
            async with RawSmtp(sandbox) as other:
                await other.connect(other.context())
                await other.reply()
        await sandbox.stop()
        assert sandbox.counters.connections_open == 0


# Time and limits.


async def test_every_flight_of_replies_comes_a_round_trip_later(tmp_path: Path) -> None:
    async with (
        Sandbox(tmp_path, behaving(rtt_seconds=0.03), http_port=None) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.log_in()
        turns = sandbox.counters.turns
        started = time.monotonic()
        client.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\nx\r\n")
        assert [reply[:3] for reply in await client.replies(3)] == ["250"] * 3
        assert time.monotonic() - started >= 0.029
        assert sandbox.counters.turns == turns + 1


@pytest.mark.simulated_time
async def test_content_sent_before_its_354_arrived_is_a_violation(tmp_path: Path) -> None:
    async with (
        Sandbox(tmp_path, behaving(rtt_seconds=0.05), http_port=None) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.log_in()
        await client.envelope()
        client.send(b"DATA\r\n")
        await sandbox.arrived(Step.DATA)
        client.send(CONTENT + b".\r\n")
        assert (await client.rest()).splitlines()[-1].startswith(b"503 5.5.0 ")
    assert sandbox.received.total == 0


async def test_a_chunk_that_takes_many_reads_is_one_turn(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        turns = sandbox.counters.turns
        content = b"x" * 3_000_000
        client.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3000000 LAST\r\n" + content)
        assert [reply[:3] for reply in await client.replies(3)] == ["250"] * 3
        assert sandbox.counters.turns == turns + 1


async def test_one_connection_too_many_is_turned_away(tmp_path: Path) -> None:
    async with (
        Sandbox(tmp_path, behaving(max_connections=1), http_port=None) as sandbox,
        RawSmtp(sandbox) as first,
        RawSmtp(sandbox) as second,
    ):
        await first.connect()
        await first.reply()
        await second.connect()
        assert (await second.rest()).startswith(b"421 4.3.2 ")
        assert (await first.command("NOOP")).startswith("250 ")


async def test_an_idle_connection_is_ended(tmp_path: Path) -> None:
    async with (
        Sandbox(tmp_path, behaving(idle_seconds=0.02), http_port=None) as sandbox,
        RawSmtp(sandbox) as client,
    ):
        await client.connect()
        assert (await client.rest()).splitlines()[-1].startswith(b"421 4.4.2 ")


async def test_a_client_that_reads_no_replies_is_read_no_further(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        assert not await client.can_push(32_000_000, 0.5, b"HELP\r\n")
        for _ in range(50_000):  # and it goes on when they are read
            assert (await client.reply()).startswith("214 ")


async def test_connections_can_be_closed_as_a_provider_does(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.close_connections()
        assert await client.rest() == b"421 4.4.2 Timeout, closing connection\r\n"
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        sandbox.close_connections("")
        assert await client.rest() == b""


# Start and stop.


async def test_stopping_ends_every_connection(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as plain, RawSmtp(sandbox) as encrypted:
        await plain.connect()
        await plain.reply()
        await encrypted.log_in()
        await encrypted.envelope()
        await sandbox.stop()
        assert sandbox.counters.connections_open == 0
        assert sandbox.counters.open_by_mailbox == {}
    await sandbox.stop()


async def test_it_comes_back_on_the_same_port_with_its_memory(sandbox: Sandbox) -> None:
    address = sandbox.smtp_address
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        await client.deliver(CONTENT)
    await sandbox.stop()
    with pytest.raises(ConnectionRefusedError):
        await RawSmtp(sandbox).connect()
    await sandbox.start()
    assert sandbox.smtp_address == address
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        assert (await client.deliver(CONTENT)).startswith("250 ")
    assert sandbox.received.total == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "example.com"])
def test_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match=r"loopback|IPv4"):
        Sandbox(tmp_path, host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
async def test_any_loopback_address_will_do(tmp_path: Path, host: str) -> None:
    async with Sandbox(tmp_path, host=host) as sandbox, RawSmtp(sandbox) as client:
        await client.connect()
        assert (await client.reply()).startswith("220 ")


async def test_before_the_start_there_is_nothing_to_ask(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        Sandbox(tmp_path).revoke_all()


async def test_no_secret_is_in_a_repr(sandbox: Sandbox) -> None:
    from xoauth2_proxy.sandbox.smtp.auth import read_xoauth2

    assert "secret" not in repr(read_xoauth2(b"user=a@b\x01auth=Bearer secret\x01\x01"))
    key = (sandbox.state_dir / "sandbox" / "signing-key").read_bytes()
    assert repr(key) not in repr(sandbox)
    assert base64.b64encode(key).decode() not in repr(sandbox)
