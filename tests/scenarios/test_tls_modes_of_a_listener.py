"""How a listener protects connections: STARTTLS, from the first octet, or as the client begins."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import warnings
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, PASSWORD, Relay
from tests.support.smtp_client import Client, encoded, message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy import replies
from xoauth2_proxy.clients.interface import Refused

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from xoauth2_proxy.clients.interface import ConnectedClient

pytestmark = pytest.mark.both_loops

ACCOUNTS = [{"email": MAILBOX, "provider": "mock", "password": PASSWORD}]
NAME = "localhost"


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    """The keys of a listener with a certificate for localhost."""
    issued = authority.issue_cert(NAME)
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    return {"tls_cert": "relay.pem", "tls_key": "relay.pem"}


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    return made


@pytest.fixture
def old_trust(authority: trustme.CA) -> ssl.SSLContext:
    """What a client of 2006 has: TLS 1.0 and nothing newer."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1
    authority.configure_trust(made)
    return made


class Turned:
    """Hears of clients that were turned away."""

    def __init__(self) -> None:
        self.away: list[tuple[Refused | None, str, str]] = []

    def turned_away(self, client: ConnectedClient) -> None:
        self.away.append((client.reason, client.detail, client.address))

    def finished(self, *_: object) -> None:
        """What became of messages is shown elsewhere."""


def heard_of(relay: Relay) -> Turned:
    """Return who hears of the clients that the relay turns away from now on."""
    turned = Turned()
    for listener in relay.app._listeners:
        listener._relay.observer = turned
        listener._arrivals._observer = turned
    return turned


async def by_tls(relay: Relay, context: ssl.SSLContext) -> Client:
    """Return a client that begins with TLS and has read the greeting."""
    return await Client.connect_tls(relay.host, relay.port, context, NAME)


async def sends(client: Client, size_bytes: int = 0) -> None:
    await client.ehlo()
    assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
    assert (await client.send(message(size_bytes=size_bytes))).code == 250
    assert (await client.command("QUIT")).code == 221


def version(client: Client) -> str:
    return str(client.writer.get_extra_info("ssl_object").version())


async def test_implicit_tls_precedes_the_greeting(
    start_relay: StartRelay, certificate: dict[str, object], trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "implicit"}})
    async with await by_tls(relay, trust) as client:
        offered = (await client.ehlo()).text
        assert not any(line.startswith("STARTTLS") for line in offered)
        assert await client.command("STARTTLS") == replies.TLS_NOT_AVAILABLE
        await sends(client, size_bytes=500_000)
    assert relay.sandbox.received.total == 1


async def test_one_port_serves_old_tls_new_tls_starttls_and_clear(
    start_relay: StartRelay,
    certificate: dict[str, object],
    trust: ssl.SSLContext,
    old_trust: ssl.SSLContext,
) -> None:
    keys = {"tls": "auto", "tls_min": "1.0"}
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | keys})
    async with await by_tls(relay, old_trust) as client:
        assert version(client) == "TLSv1"
        await sends(client)
    async with await by_tls(relay, trust) as client:
        assert version(client) == "TLSv1.3"
        await sends(client)
    async with await relay.connect() as client:
        assert "STARTTLS" in (await client.ehlo()).text
        await sends(client)
    for context, expected in ((old_trust, "TLSv1"), (trust, "TLSv1.3")):
        async with await relay.connect() as client:
            await client.start_tls(context, NAME)
            assert version(client) == expected
            await sends(client)
    assert relay.sandbox.received.total == 5


@pytest.mark.outside
async def test_openssl_with_tls_1_0_sends_a_message(
    start_relay: StartRelay, certificate: dict[str, object]
) -> None:
    keys = {"tls": "auto", "tls_min": "1.0"}
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | keys})
    program = shutil.which("openssl")
    assert program is not None
    words = ["s_client", "-quiet", "-tls1", "-cipher", "DEFAULT@SECLEVEL=0", "-connect"]
    client = await asyncio.create_subprocess_exec(
        *(program, *words, f"{relay.host}:{relay.port}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    said = [
        "EHLO old.example",
        "AUTH PLAIN " + encoded(f"\0{MAILBOX}\0{PASSWORD}"),
        "MAIL FROM:<from@example.com>",
        "RCPT TO:<to@example.net>",
        "DATA",
        "Subject: old\r\n\r\nhello\r\n.",
        "QUIT",
    ]
    assert client.stdin is not None
    assert client.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        for line, code in zip(said, (220, 250, 235, 250, 250, 354, 250), strict=True):
            while not (answer := await client.stdout.readline()).startswith(b"%d " % code):
                assert answer, f"closed before {line}"
            client.stdin.write(line.encode() + b"\r\n")
        await client.wait()
    assert relay.sandbox.received.total == 1


async def test_old_tls_is_refused_unless_the_listener_allows_it(
    start_relay: StartRelay, certificate: dict[str, object], old_trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "auto"}})
    turned = heard_of(relay)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await by_tls(relay, old_trust)
    await until(lambda: bool(turned.away))
    assert turned.away == [(Refused.TLS_TOO_OLD, "", "127.0.0.1")]


async def test_a_client_that_looks_around_with_helo_may_begin_with_tls_next(
    start_relay: StartRelay, certificate: dict[str, object], trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "auto"}})
    for _ in range(2):
        async with await relay.connect() as client:
            assert (await client.command("HELO printer")).code == 250
            await client.command("QUIT")
        async with await by_tls(relay, trust) as client:
            await sends(client)


async def test_a_client_known_to_speak_in_clear_is_greeted_at_once(
    start_relay: StartRelay, certificate: dict[str, object]
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "auto"}})
    habits = relay.app._listeners[0]._arrivals.habits
    assert habits.wait_seconds("127.0.0.1") > 0
    async with await relay.connect() as client:
        await sends(client)
    await until(lambda: not relay.sessions())
    assert habits.wait_seconds("127.0.0.1") == 0
    async with await relay.connect() as client:
        await sends(client)


async def test_a_hello_that_comes_after_the_greeting_is_waited_for_longer_the_next_time(
    start_relay: StartRelay, certificate: dict[str, object], trust: ssl.SSLContext
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "auto"}})
    turned = heard_of(relay)
    habits = relay.app._listeners[0]._arrivals.habits
    usual = habits.wait_seconds("127.0.0.1")
    async with await relay.connect() as client:  # greeted, since it was silent so far
        client.write(hello(trust))
        assert await client.reply() == replies.TLS_UNASKED
    await until(lambda: bool(turned.away))
    assert turned.away[0][0] is Refused.TLS_ON_PLAIN_PORT
    await until(lambda: habits.wait_seconds("127.0.0.1") > usual)
    async with await by_tls(relay, trust) as client:
        await sends(client)


def shake_hands(relay: Relay, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection((relay.host, relay.port), PATIENCE_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=NAME),
    ):
        pass


def hello(context: ssl.SSLContext) -> bytes:
    """Return the first octets of a client that speaks TLS."""
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("said", "reason", "detail"),
    [
        (b"EHLO client.example\r\n", Refused.PLAIN_ON_TLS_PORT, ""),
        (b"GET / HTTP/1.1\r\n\r\n", Refused.PLAIN_ON_TLS_PORT, ""),
        (b"\x16\x03\x01\x00\x05hello", Refused.TLS_FAILED, "OpenSSL says"),
        (b"\x80\x00", Refused.TLS_FAILED, ""),
    ],
)
async def test_what_is_no_handshake_ends_and_is_reported_with_the_address(
    start_relay: StartRelay,
    certificate: dict[str, object],
    said: bytes,
    reason: Refused,
    detail: str,
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "implicit"}})
    turned = heard_of(relay)
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        client.write(said)
        client.writer.write_eof()
        await until(lambda: bool(turned.away))
    ((found, words, address),) = turned.away
    assert (found, address) == (reason, "127.0.0.1")
    assert detail in words
    assert not relay.sessions()


async def test_a_client_that_does_not_trust_the_certificate_is_reported(
    start_relay: StartRelay, certificate: dict[str, object]
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "auto"}})
    turned = heard_of(relay)
    # asyncio's own client does not tell the server why it leaves.
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(shake_hands, relay, ssl.create_default_context())
    await until(lambda: bool(turned.away))
    assert [reason for reason, _, _ in turned.away] == [Refused.TLS_NOT_TRUSTED]


@pytest.mark.parametrize("mode", ["implicit", "auto"])
async def test_who_leaves_before_saying_anything_is_no_failure(
    start_relay: StartRelay,
    certificate: dict[str, object],
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": mode}})
    turned = heard_of(relay)
    _, writer = await asyncio.open_connection(relay.host, relay.port)
    writer.close()
    await until(lambda: left(relay))
    assert turned.away == []
    assert not [one for one in caplog.records if one.levelname in {"WARNING", "ERROR"}]


async def left(relay: Relay) -> bool:
    return await relay.metric("xoauth2_proxy_client_connections_total", result="not greeted") == 1


@pytest.mark.parametrize("mode", ["implicit", "auto"])
async def test_a_handshake_that_stalls_is_ended(
    start_relay: StartRelay,
    certificate: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setattr("xoauth2_proxy.submission.arrivals._HANDSHAKE_SECONDS", 0.1)
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": mode}})
    turned = heard_of(relay)
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        client.write(b"\x16")
        assert await client.closed()
    assert turned.away == [
        (Refused.TLS_FAILED, "it did not finish the handshake in time", "127.0.0.1")
    ]


async def test_a_client_that_waits_for_a_greeting_in_clear_is_told_apart(
    start_relay: StartRelay, certificate: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.submission.arrivals._HANDSHAKE_SECONDS", 0.1)
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "implicit"}})
    turned = heard_of(relay)
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        assert await client.closed()
    assert turned.away == [(Refused.PLAIN_ON_TLS_PORT, "", "127.0.0.1")]


async def test_a_client_that_gives_up_waiting_for_a_greeting_is_told_apart_from_a_test_of_the_port(
    start_relay: StartRelay, certificate: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.submission.arrivals._PROBE_SECONDS", 0.0)
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | {"tls": "implicit"}})
    turned = heard_of(relay)
    _, writer = await asyncio.open_connection(relay.host, relay.port)
    writer.close()
    await until(lambda: bool(turned.away))
    assert turned.away == [(Refused.PLAIN_ON_TLS_PORT, "", "127.0.0.1")]


# Behind a load balancer.


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mode", ["implicit", "auto", "starttls"])
@pytest.mark.parametrize("is_together", [True, False])
async def test_a_proxy_header_precedes_tls_or_text(
    start_relay: StartRelay,
    certificate: dict[str, object],
    trust: ssl.SSLContext,
    mode: str,
    version: int,
    is_together: bool,
) -> None:
    keys = {"tls": mode, "proxies": ["127.0.0.1"]}
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | keys})
    header = b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 25\r\n"
    if version == 2:
        addresses = bytes([192, 0, 2, 1, 127, 0, 0, 1]) + b"\x0f\xa0\x00\x19"
        header = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + addresses
    context = None if mode == "starttls" else trust
    with socket.create_connection((relay.host, relay.port), PATIENCE_SECONDS) as connection:
        greeting = await asyncio.to_thread(
            spoken_behind, connection, header, context, is_together=is_together
        )
        assert greeting.startswith(b"220 ")
        assert relay.sessions()[0].client.address == "192.0.2.1"


def spoken_behind(
    connection: socket.socket, header: bytes, context: ssl.SSLContext | None, *, is_together: bool
) -> bytes:
    """Return the greeting to a client behind a balancer that sends `header`; blocks.

    `is_together` sends it with what the client says first, else in two pieces.
    """
    if context is None:
        connection.sendall(header)
        return connection.recv(1000)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
    pending = header if is_together else b""
    if not is_together:
        connection.sendall(header[:9])
        connection.sendall(header[9:])
    while True:
        try:
            found = client.read(1000)
        except ssl.SSLWantReadError:
            connection.sendall(pending + outgoing.read())
            pending = b""
            incoming.write(connection.recv(65_536))
        else:
            connection.sendall(outgoing.read())
            return found


async def test_a_stranger_cannot_name_itself(
    start_relay: StartRelay, certificate: dict[str, object]
) -> None:
    keys = {"tls": "auto", "proxies": ["192.0.2.9"]}
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | keys})
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        client.write(b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 25\r\n")
        assert (await client.reply()).code == 220
        assert (await client.reply()).code == 500
        assert relay.sessions()[0].client.address == "127.0.0.1"


@pytest.mark.parametrize(
    "said",
    [
        b"EHLO client.example\r\n",
        b"PROXY " + b"x" * 2000 + b"\r\n",
        b"PROXY " + b"x" * 2000,
        b"PROXY TCP4 nonsense\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\xff\xff\xff\xff" + b"x" * 40,
    ],
)
async def test_a_balancer_without_a_proper_header_is_refused_without_a_traceback(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": {"proxies": ["127.0.0.1"]}})
    turned = heard_of(relay)
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        client.write(said)
        assert await client.closed()
    assert [reason for reason, _, _ in turned.away] == [Refused.NO_PROXY_HEADER]
    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tls": "implicit"}, b""),
        ({"tls": "implicit"}, b"\x16\x03"),
        ({"tls": "auto"}, b"\x16\x03"),
        ({"tls": "starttls", "proxies": ["127.0.0.1"]}, b"PROXY "),
    ],
)
async def test_a_stop_ends_connections_whose_sessions_have_not_begun(
    start_relay: StartRelay,
    certificate: dict[str, object],
    keys: dict[str, object],
    said: bytes,
) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | keys})
    (listener,) = relay.app._listeners
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        client.write(said)
        await until(lambda: len(listener._admission) == 1)
        assert await listener.drain(PATIENCE_SECONDS) == 0
        assert await client.closed()
        await until(lambda: len(listener._admission) == 0)


@pytest.mark.parametrize("mode", ["implicit", "auto"])
async def test_a_handshake_counts_for_the_places_of_its_address(
    start_relay: StartRelay,
    certificate: dict[str, object],
    trust: ssl.SSLContext,
    mode: str,
) -> None:
    keys = {"tls": mode, "max_connections": 1}
    relay = await start_relay({"accounts": ACCOUNTS, "listener": certificate | keys})
    turned = heard_of(relay)
    (listener,) = relay.app._listeners
    stalled = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with stalled:
        stalled.write(b"\x16\x03")
        await until(lambda: len(listener._admission) == 1)
        other = Client(*await asyncio.open_connection(relay.host, relay.port))
        async with other:
            if mode == "auto":
                assert await other.reply() == replies.TOO_MANY_CONNECTIONS
            assert await other.closed()
        await until(lambda: bool(turned.away))
        assert turned.away[0][0] is Refused.TOO_MANY_CONNECTIONS
    await until(lambda: len(listener._admission) == 0)
    async with await by_tls(relay, trust) as client:
        await sends(client)
