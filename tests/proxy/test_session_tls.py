"""STARTTLS: what it protects, what it forgets, and what may not slip in before it."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.provider import Provider
from tests.fuzz.session import Door, Gate
from tests.fuzz.wire import Wire
from tests.support.accounts import mailbox
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import message
from tests.support.turned_away import turned_away
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy import replies
from xoauth2_proxy.relay import Relay as MessageRelay
from xoauth2_proxy.submission.policy import SessionPolicy
from xoauth2_proxy.submission.session import ClientSession

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.upstream.pool import Pool

pytestmark = pytest.mark.both_loops

ACCOUNTS = [{"email": MAILBOX, "provider": "mock", "password": PASSWORD}]


@pytest.fixture
def listener(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    """The settings of a listener with a certificate for localhost."""
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    return {"tls_cert": "cert.pem", "tls_key": "key.pem"}


@pytest.fixture
async def with_tls(start_relay: StartRelay, listener: dict[str, object]) -> Relay:
    """A relay on loopback, where logging in in clear is allowed too."""
    return await start_relay({"accounts": ACCOUNTS, "listener": listener})


@pytest.fixture
async def on_network(start_relay: StartRelay, listener: dict[str, object]) -> Relay:
    """A relay that is not on loopback only."""
    relay = await start_relay({"accounts": ACCOUNTS, "listener": listener | {"host": "0.0.0.0"}})
    relay.host = "127.0.0.1"
    return relay


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    return made


async def keywords(client: Client) -> set[str]:
    return {line.split()[0] for line in (await client.ehlo()).text[1:]}


async def test_a_message_by_tls(with_tls: Relay, context: ssl.SSLContext) -> None:
    async with await with_tls.connect() as client:
        assert "STARTTLS" in await keywords(client)
        await client.start_tls(context, "localhost")
        found = await keywords(client)
        assert "STARTTLS" not in found
        assert "AUTH" in found
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTHENTICATED
        content = message(size_bytes=500_000)
        assert (await client.send(content)).is_positive
        assert await client.command("QUIT") == replies.GOODBYE
    assert next(iter(with_tls.sandbox.received)).content == content


async def test_everything_said_in_clear_is_forgotten(
    with_tls: Relay, context: ssl.SSLContext
) -> None:
    async with await with_tls.connect() as client:
        await client.ehlo()
        await client.auth_plain(MAILBOX, PASSWORD)
        await client.envelope("to@example.net")
        await client.start_tls(context, "localhost")
        assert await client.command("MAIL FROM:<a@b>") == replies.HELLO_FIRST
        assert await client.command("RCPT TO:<a@b>") == replies.AUTH_REQUIRED
        await client.ehlo()
        assert await client.command("MAIL FROM:<a@b>") == replies.AUTH_REQUIRED
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTHENTICATED


async def test_tls_is_started_once(with_tls: Relay, context: ssl.SSLContext) -> None:
    async with await with_tls.connect() as client:
        assert await client.command("STARTTLS now") == replies.ARGUMENT_MALFORMED
        await client.start_tls(context, "localhost")
        assert await client.command("STARTTLS") == replies.TLS_NOT_AVAILABLE


async def test_logging_in_needs_tls_off_loopback(
    on_network: Relay, context: ssl.SSLContext
) -> None:
    async with await on_network.connect() as client:
        assert "AUTH" not in await keywords(client)
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTH_NEEDS_TLS
        for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            assert await client.command(command) == replies.STARTTLS_FIRST
        await client.start_tls(context, "localhost")
        assert "AUTH" in await keywords(client)
        assert await client.command("MAIL FROM:<a@b.example>") == replies.AUTH_REQUIRED
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTHENTICATED


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r\r\n"])
@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"\x16\x03\x01", b"E"])
async def test_octets_behind_starttls_end_the_session(
    with_tls: Relay, line_end: bytes, behind: bytes
) -> None:
    async with await with_tls.connect() as client:
        client.write(b"STARTTLS" + line_end + behind)
        assert await client.reply() == replies.OCTETS_AFTER_STARTTLS
        assert await client.closed()


async def test_starttls_may_end_in_lf(with_tls: Relay, context: ssl.SSLContext) -> None:
    async with await with_tls.connect() as client:
        client.write(b"STARTTLS\n")
        assert await client.reply() == replies.START_TLS
        await client.writer.start_tls(context, server_hostname="localhost")
        assert "AUTH" in await keywords(client)


@pytest.mark.parametrize(
    ("has_tls", "words"), [(True, "it expects STARTTLS"), (False, "it offers no TLS")]
)
async def test_a_client_that_speaks_tls_from_the_first_octet_is_named_in_the_log(
    start_relay: StartRelay,
    listener: dict[str, object],
    context: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    has_tls: bool,
    words: str,
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": listener if has_tls else {}})
    with pytest.raises(ssl.SSLError) as caught:
        await asyncio.open_connection(
            relay.host, relay.port, ssl=context, server_hostname="localhost"
        )
    assert caught.value.reason == "WRONG_VERSION_NUMBER"  # what clients show, for the greeting

    await until(lambda: bool(turned_away(caplog)))
    (told,) = turned_away(caplog)
    assert told["reason"] == "tls_on_plain_port"
    assert f"TLS from the first octet, and the listener default does not: {words}" in told["cause"]
    assert told["client"] == "127.0.0.1"


async def test_starttls_ends_a_group(with_tls: Relay, context: ssl.SSLContext) -> None:
    async with await with_tls.connect() as client:
        client.write(b"EHLO client.example\r\nNOOP\r\nSTARTTLS\r\n")
        assert [(await client.reply()).code for _ in range(3)] == [250, 250, 220]
        await client.writer.start_tls(context, server_hostname="localhost")
        assert await client.command("NOOP") == replies.OK


async def test_a_handshake_that_is_none_ends_the_session(with_tls: Relay) -> None:
    async with await with_tls.connect() as client:
        assert await client.command("STARTTLS") == replies.START_TLS
        client.write(b"EHLO client.example\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = await client._reader.read()
        assert b"250" not in said
    async with await with_tls.connect() as client:
        assert client.greeting.code == 220


async def test_tls_below_1_2_is_refused(with_tls: Relay, context: ssl.SSLContext) -> None:
    context.check_hostname = False
    with pytest.warns(DeprecationWarning, match="TLSv1 "):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with await with_tls.connect() as client:
        with pytest.raises(OSError, match=r"(?i)ssl|reset|closed"):
            await client.start_tls(context, "localhost")


def hello_and_starttls(relay: Relay, context: ssl.SSLContext) -> str:
    """Shake hands as a blocking client does, which sends its alert; return why it failed."""
    with smtplib.SMTP(relay.host, relay.port, timeout=PATIENCE_SECONDS) as client:
        try:
            client.starttls(context=context)
        except ssl.SSLError as error:
            return str(error.reason)
        return ""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (ssl.TLSVersion.TLSv1, "tls_too_old"),
        (ssl.TLSVersion.TLSv1_1, "tls_too_old"),
        (ssl.TLSVersion.TLSv1_2, "tls_not_trusted"),
        (ssl.TLSVersion.TLSv1_3, "tls_not_trusted"),
    ],
)
async def test_failed_handshake_is_told_with_its_reason(
    with_tls: Relay, caplog: pytest.LogCaptureFixture, version: ssl.TLSVersion, reason: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it knows no authority at all
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    assert await asyncio.to_thread(hello_and_starttls, with_tls, context)
    await until(lambda: bool(turned_away(caplog)))
    (told,) = turned_away(caplog)
    assert (told["client"], told["reason"]) == ("127.0.0.1", reason)


async def test_a_message_received_whole_by_tls_is_relayed_although_the_client_left(
    with_tls: Relay, context: ssl.SSLContext
) -> None:
    client = await with_tls.connect()
    await client.start_tls(context, "localhost")
    await client.ehlo()
    await client.auth_plain(MAILBOX, PASSWORD)
    client.write(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 3 LAST\r\na\r\n")
    await client.close()
    (arrived,) = await with_tls.sandbox.received.wait_until(1)
    assert arrived.content == b"a\r\n"


async def test_a_session_cut_in_its_handshake_is_not_counted_any_more(with_tls: Relay) -> None:
    listener = with_tls.app._listeners[0]
    async with await with_tls.connect() as client:
        assert await client.command("STARTTLS") == replies.START_TLS
        assert await listener.drain(0.05) == 1
        assert await with_tls.metric("xoauth2_proxy_client_sessions") == 0


async def test_a_client_that_does_not_read_its_replies_cannot_start_tls(
    context: ssl.SSLContext, metrics: Metrics, pool: Pool
) -> None:
    # Its transport would pass to TLS, and the session not hear when the client reads again.
    policy = SessionPolicy(
        hostname="relay.example",
        max_message_bytes=1000,
        max_recipients=1,
        buffer_bytes=1000,
        idle_seconds=300.0,
        tls_context=context,
        may_auth_in_clear=True,
    )
    relay = MessageRelay(pool, Provider({}), metrics)  # type: ignore[arg-type]
    gate, door = Gate(mailbox()), Door()
    session = ClientSession(policy, gate, relay, metrics, door)  # type: ignore[arg-type]

    def hears(octets: bytes) -> None:
        if octets.startswith(b"220 2.0.0"):
            session.pause_writing()

    wire = Wire(hears)
    wire.set_protocol(session)
    session.connection_made(wire)
    wire.feed(b"STARTTLS\r\n")
    assert session.has_ended
    assert wire.is_closing()
