"""On an address that is not loopback nobody is asked for a password in clear."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import account
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import encoded, message

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from tests.scenarios.conftest import StartProcess
    from tests.support.smtp_client import Client

pytestmark = pytest.mark.both_loops

NAME = "relay.example"


@pytest.fixture
def listener(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    """The `listener` of a configuration that is open to the network, with a certificate."""
    certificate = authority.issue_cert(NAME)
    certificate.private_key_pem.write_to_path(str(tmp_path / "relay.key"))
    (tmp_path / "relay.key").chmod(0o600)
    with (tmp_path / "relay.pem").open("wb") as chain:
        for pem in certificate.cert_chain_pems:
            chain.write(pem.bytes())
    return {"host": "0.0.0.0", "tls_cert": "relay.pem", "tls_key": "relay.key"}


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    """What a client trusts."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def offered(client: Client) -> set[str]:
    """Return the keywords of EHLO."""
    return {line.partition(" ")[0] for line in (await client.ehlo()).text[1:]}


async def test_auth_is_offered_under_tls_only(
    start_relay: StartRelay, listener: dict[str, object], trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": [account()], "listener": listener})
    assert relay.host == "0.0.0.0"
    relay.host = "127.0.0.1"
    async with await relay.connect() as client:
        words = await offered(client)
        assert "AUTH" not in words
        assert "STARTTLS" in words
        refused = "538 5.7.11 Encryption required; use STARTTLS first"
        assert str(await client.auth_plain(MAILBOX, PASSWORD)) == refused
        assert str(await client.command("AUTH LOGIN")) == refused
        assert str(await client.command(f"AUTH XOAUTH2 {encoded('user=')}")) == refused
        assert (await client.command("MAIL FROM:<a@b>")).code == 530
        await client.start_tls(trust, NAME)
        # Nothing said in clear counts any more.
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 503
        words = await offered(client)
        assert "AUTH" in words
        assert "STARTTLS" not in words
        assert (await client.auth_plain(MAILBOX, "guess")).code == 535
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
        assert (await client.send(message("secure"))).code == 250
        assert (await client.command("STARTTLS")).code == 502
    assert [kept.content for kept in relay.sandbox.received] == [message("secure")]
    assert await relay.metric("xoauth2_proxy_auth_attempts_total") == 2


async def test_what_is_injected_behind_starttls_ends_the_session(
    start_relay: StartRelay, listener: dict[str, object]
) -> None:
    relay = await start_relay({"accounts": [account()], "listener": listener})
    relay.host = "127.0.0.1"
    async with await relay.connect() as client:
        await client.ehlo()
        client.write(b"STARTTLS\r\nEHLO injected.example\r\n")
        assert str(await client.reply()) == "554 5.5.0 Octets after STARTTLS"
        assert await client.closed()


async def test_a_failed_handshake_costs_that_client_only(
    start_relay: StartRelay, listener: dict[str, object], trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": [account()], "listener": listener})
    relay.host = "127.0.0.1"
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.command("STARTTLS")).code == 220
        client.write(b"this is no TLS\r\n" * 10)
        assert await hung_up(client)
    async with await relay.connect() as client:
        await client.ehlo()
        await client.start_tls(trust, NAME)
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235


async def hung_up(client: Client) -> bool:
    """Read whatever comes (an alert of TLS) to the end."""
    try:
        while True:
            await client.reply()
    except (EOFError, ConnectionError, ValueError):
        return True


async def test_a_large_message_passes_under_tls(
    start_relay: StartRelay, listener: dict[str, object], trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": [account()], "listener": listener})
    relay.host = "127.0.0.1"
    content = message("large", size_bytes=2_000_000)
    async with await relay.connect() as client:
        await client.ehlo()
        await client.start_tls(trust, NAME)
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
        assert (await client.send(content)).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [content]


async def test_allow_insecure_auth_offers_it_in_clear(start_relay: StartRelay) -> None:
    listener = {"host": "0.0.0.0", "allow_insecure_auth": True}
    relay = await start_relay({"accounts": [account()], "listener": listener})
    relay.host = "127.0.0.1"
    async with await relay.connect() as client:
        assert "AUTH" in await offered(client)
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
        assert (await client.send(message())).code == 250


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_the_option_allow_insecure_auth_warns(start_process: StartProcess) -> None:
    options = ("--host", "0.0.0.0", "--allow-insecure-auth", "--sandbox")
    proxy = await start_process({"accounts": [account()]}, *options)
    async with await proxy.connect() as client:
        assert "AUTH" in await offered(client)
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
    assert await proxy.stop() == 0
    (warning,) = [line for line in proxy.stderr.splitlines() if "WARNING" in line]
    assert "without TLS" in warning


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_options_give_the_certificate(
    start_process: StartProcess,
    tmp_path: Path,
    listener: dict[str, object],
    trust: ssl.SSLContext,
) -> None:
    files = ("--tls-cert", str(tmp_path / "relay.pem"), "--tls-key", str(tmp_path / "relay.key"))
    proxy = await start_process(None, "--host", "0.0.0.0", "--sandbox", *files)
    async with await proxy.connect() as client:
        assert "AUTH" not in await offered(client)
        await client.start_tls(trust, NAME)
        assert "AUTH" in await offered(client)
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
        assert (await client.send(message())).code == 250
    assert await proxy.stop() == 0
    assert "WARNING" not in proxy.stderr
