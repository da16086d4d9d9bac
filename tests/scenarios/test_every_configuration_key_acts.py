"""Every key of the configuration changes what the relay does; none is only read.

Each test names the keys it shows; the last one compares them with the schema. The OAuth
keys have a file of their own, `test_every_oauth_key_acts.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import argon2
import pytest
from aiohttp import web

from tests.support.components import TestComponents
from tests.support.documents import account, one_account, upstream_at
from tests.support.keyrings import Keyring, keyring_in_use
from tests.support.redis_server import redis_server
from tests.support.refreshers import ScriptedRefresher
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD, Relay
from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import Client, encoded, message
from tests.support.turned_away import turned_away
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.config.account_sections import OAuthSection
from xoauth2_proxy.config.schema import json_schema
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
from xoauth2_proxy.oauth.stores import StoredGrant, StoreKind
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.service.components import open_configured_store
from xoauth2_proxy.upstream import connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from xoauth2_proxy.smtp.protocol import Reply

Test = TypeVar("Test")

UNTOLD_SECONDS = 30.0  # what the configuration waits for where it does not say

SHOWN: set[str] = {
    # The sections themselves.
    *("accounts", "providers", "relay", "listener", "listeners", "admin", "store", "alerts"),
    *("account.limits", "account.upstream", "provider.limits", "provider.upstream"),
}
OAUTH_KEYS = {*OAuthSection.model_fields, "refresh_token", "sign_in_as"}
SECTIONS = {
    "FileSection": "",
    "AccountSection": "account.",
    "FromSection": "from.",
    "CredentialSection": "credential.",
    "ProviderSection": "provider.",
    "UpstreamSection": "upstream.",
    "LimitsSection": "limits.",
    "RelaySection": "relay.",
    "ListenerSection": "listener.",
    "AdminSection": "admin.",
    "StoreSection": "store.",
    "AlertsSection": "alerts.",
}


def shows(*keys: str) -> Callable[[Test], Test]:
    """Note that a test shows what these keys do."""
    SHOWN.update(keys)
    return lambda test: test


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def taken(client: Client) -> bool:
    return (await client.send(message())).code == 250


async def accepted_password(relay: Relay, password: str) -> bool:
    async with await relay.connect() as client:
        await client.ehlo()
        return (await client.auth_plain(MAILBOX, password)).code == 235


# Accounts.


@shows("account.email", "account.provider")
async def test_email_is_the_login_and_the_mailbox(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account(email="My.Own@Example.com"))
    async with await relay.log_in("my.own@example.COM") as client:
        assert await taken(client)
    (kept,) = relay.sandbox.received
    assert kept.mailbox == "my.own@example.com"


@shows("account.account_id")
async def test_account_id_names_the_account_in_problems(start_relay: StartRelay) -> None:
    with pytest.raises(ConfigError, match="account_id payroll"):
        await start_relay(one_account(account_id="payroll", password="${NOT_SET}"))


@shows("account.enabled")
async def test_an_account_that_is_not_enabled_cannot_log_in(start_relay: StartRelay) -> None:
    off = account(OTHER_MAILBOX, enabled=False, password="${NOT_SET}")
    relay = await start_relay({"accounts": [account(), off]})
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(OTHER_MAILBOX, PASSWORD)).code == 535
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
    assert '"enabled": 1, "disabled": 1' in (await relay.get("/health"))[1]


@shows("account.password")
@pytest.mark.parametrize("form", ["text", "file", "hash"])
async def test_password_is_what_opens_the_account(
    start_relay: StartRelay, tmp_path: Path, form: str
) -> None:
    (tmp_path / "password").write_text("opens sesame\n")
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    password = {
        "text": "opens sesame",
        "file": {"file": "password"},
        "hash": hasher.hash("opens sesame"),
    }[form]
    relay = await start_relay(one_account(password=password))
    for _ in range(2):
        assert await accepted_password(relay, "opens sesame")
        assert not await accepted_password(relay, "open sesame")


@shows("account.allow_any_password")
async def test_allow_any_password_takes_any(start_relay: StartRelay) -> None:
    anyone = {"email": MAILBOX, "provider": "mock", "allow_any_password": True}
    relay = await start_relay({"accounts": [anyone]})
    assert await accepted_password(relay, "this")
    assert await accepted_password(relay, "that")


async def sent_as(relay: Relay, sender: str) -> Reply:
    async with await relay.log_in() as client:
        answer = await client.command(f"MAIL FROM:<{sender}>")
        if not answer.is_positive:
            return answer
        await client.command("RCPT TO:<to@example.net>")
        return await client.data(f"From: {sender}\r\n\r\nx\r\n".encode())


@shows("account.senders")
async def test_senders_are_those_that_may_send(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account(senders=["a@x.example", "*@y.example"]))
    assert (await sent_as(relay, "A@x.example")).code == 250
    assert (await sent_as(relay, "b@y.example")).code == 250
    assert (await sent_as(relay, "b@x.example")).code == 550


@shows("account.from", "from.rewrite")
async def test_rewrite_is_who_sends_in_the_place_of_others(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account(**{"from": {"rewrite": "a@x.example"}}))
    assert (await sent_as(relay, "b@x.example")).code == 250
    (kept,) = relay.sandbox.received
    assert kept.reverse_path == "a@x.example"
    assert kept.content == b"From: a@x.example\r\n\r\nx\r\n"


@shows("from.reply_to", "from.display_name")
async def test_reply_to_keeps_who_was_the_sender(start_relay: StartRelay) -> None:
    rule = {"rewrite": "a@x.example", "reply_to": True, "display_name": "Scanner"}
    relay = await start_relay(one_account(**{"from": rule}))
    assert (await sent_as(relay, "b@x.example")).code == 250
    (kept,) = relay.sandbox.received
    assert kept.content == (b"From: Scanner <a@x.example>\r\nReply-To: b@x.example\r\n\r\nx\r\n")


@shows("account.allow_remote_mock")
async def test_allow_remote_mock_lets_a_mock_account_leave_the_machine(
    start_relay: StartRelay,
) -> None:
    remote = {"host": "192.0.2.1"}  # RFC 5737: nobody's
    with pytest.raises(ConfigError, match="allow_remote_mock"):
        await start_relay(one_account(upstream=remote))
    relay = await start_relay(one_account(upstream=remote, allow_remote_mock=True))
    assert await accepted_password(relay, PASSWORD)


# Where a message goes.


@shows("upstream.host", "upstream.port", "upstream.ca_file")
@pytest.mark.parametrize("place", ["account", "provider", "a provider of one's own"])
async def test_upstream_is_where_the_mail_goes(
    start_relay: StartRelay, provider: Sandbox, tmp_path: Path, place: str
) -> None:
    (tmp_path / "authority.pem").write_bytes(provider.ca_file.read_bytes())
    upstream = upstream_at(provider) | {"ca_file": "authority.pem"}
    documents: dict[str, dict[str, object]] = {
        "account": one_account(upstream=upstream),
        "provider": one_account() | {"providers": {"mock": {"upstream": upstream}}},
        "a provider of one's own": one_account(provider="own")
        | {"providers": {"own": {"upstream": upstream, "refresher": "mock"}}},
    }
    relay = await start_relay(documents[place])
    async with await relay.log_in() as client:
        assert await taken(client)
    assert (provider.received.total, relay.sandbox.received.total) == (1, 0)


@shows("upstream.tls")
@pytest.mark.parametrize("spoken", ["starttls", "implicit", "none"])
@pytest.mark.parametrize("written", ["starttls", "implicit", "none"])
async def test_tls_is_required_as_written_and_never_downgraded(
    start_relay: StartRelay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoken: str,
    written: str,
) -> None:
    if spoken == "implicit" != written:
        # Each waits for the other to speak first.
        monkeypatch.setattr(connector, "_CONNECT_SECONDS", 0.3)
    async with Sandbox(tmp_path, http_port=None, tls=spoken) as provider:  # type: ignore[arg-type]
        upstream = upstream_at(provider) | {"tls": written}
        relay = await start_relay(one_account(upstream=upstream))
        async with await relay.log_in() as client:
            answer = await client.send(message())
        assert answer.is_positive == (written == spoken), str(answer)
        if not answer.is_positive:
            assert answer.code == 451
            assert provider.counters.auth_accepted == provider.counters.auth_refused == 0


@shows("upstream.ca_file")
async def test_a_provider_of_another_authority_is_not_trusted(
    start_relay: StartRelay, provider: Sandbox, tmp_path: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    relay = await start_relay(
        one_account(upstream=upstream_at(provider) | {"ca_file": "other.pem"})
    )
    async with await relay.log_in() as client:
        answer = str(await client.send(message()))
    assert answer == "451 4.7.5 No secure connection to the provider"
    assert provider.arrivals(Step.AUTH) == 0


@shows("provider.refresher")
async def test_a_providers_refresher_gets_its_tokens(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    upstream = upstream_at(provider)
    document: dict[str, object] = {
        "accounts": [account(provider="own"), account(OTHER_MAILBOX, provider="other")],
        "providers": {
            "own": {"upstream": upstream, "refresher": "mock"},
            "other": {"upstream": upstream, "refresher": "outlook"},
        },
    }
    relay = await start_relay(document)
    async with await relay.log_in() as client:
        assert await taken(client)
        await client.command("RSET")
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(OTHER_MAILBOX, PASSWORD)).code == 534


# How much of the provider a mailbox may take.


@shows("limits.max_connections")
@pytest.mark.parametrize("place", ["account", "provider"])
async def test_max_connections_is_the_most_there_ever_are(
    start_relay: StartRelay, place: str
) -> None:
    limits = {"limits": {"max_connections": 2}}
    document = one_account(**limits) if place == "account" else one_account()
    if place == "provider":
        document["providers"] = {"mock": limits}
    relay = await start_relay(document)
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, nth=None, seconds=0.02))
    clients = [await relay.log_in() for _ in range(8)]
    assert all(await asyncio.gather(*(taken(client) for client in clients)))
    assert relay.sandbox.counters.peak_by_mailbox == {MAILBOX: 2}
    for client in clients:
        await client.close()


@shows("limits.max_messages_per_connection")
async def test_a_connection_carries_max_messages_per_connection(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account(limits={"max_messages_per_connection": 2}))
    async with await relay.log_in() as client:
        for _ in range(5):
            assert await taken(client)
    assert relay.sandbox.counters.connections_opened == 3


@shows("limits.max_connection_age_seconds")
async def test_a_connection_of_max_connection_age_takes_no_further_message(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(one_account(limits={"max_connection_age_seconds": 0.01}))
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, nth=None, seconds=0.02))
    async with await relay.log_in() as client:
        for _ in range(3):
            assert await taken(client)
    assert relay.sandbox.counters.connections_opened == 3
    closed = await relay.metric("xoauth2_proxy_upstream_connections_closed_total", reason="age")
    assert closed == 3


@shows("limits.idle_seconds")
async def test_a_connection_unused_for_idle_seconds_is_closed(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account(limits={"idle_seconds": 0.05}))
    async with await relay.log_in() as client:
        assert await taken(client)

        async def is_closed() -> bool:
            return await relay.metric("xoauth2_proxy_upstream_connections") == 0

        await until(is_closed)
    closed = await relay.metric("xoauth2_proxy_upstream_connections_closed_total", reason="idle")
    assert closed == 1


@shows("limits.messages_per_minute")
async def test_messages_beyond_a_mailboxs_rate_wait_or_are_put_off(
    start_relay: StartRelay,
) -> None:
    limits = {"messages_per_minute": 6, "wait_seconds": 0}
    relay = await start_relay(one_account(limits=limits))
    async with await relay.log_in() as client:
        assert await taken(client)
        answer = str(await client.send(message()))
        assert answer == "451 4.3.2 Too many messages at once for this mailbox; try again"
    assert relay.sandbox.received.total == 1


@shows("limits.max_message_bytes")
async def test_a_message_that_the_provider_would_not_take_is_refused_before_it_is_sent(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(one_account(limits={"max_message_bytes": 70_000}))
    async with await relay.log_in() as client:
        answer = await client.command("MAIL FROM:<from@example.com> SIZE=70001")
        assert answer == replies.TOO_LARGE
        assert (await client.send(message(size_bytes=69_000))).code == 250
        assert await client.send(message(size_bytes=71_000)) == replies.TOO_LARGE
    assert relay.sandbox.received.total == 1


@shows("account.recipients")
@pytest.mark.parametrize("recipients", ["deferred", "verified"])
async def test_recipients_are_judged_with_the_message_or_at_once(
    start_relay: StartRelay, recipients: str
) -> None:
    relay = await start_relay(one_account(recipients=recipients))
    relay.sandbox.add_fault(reply_fault(Step.RCPT, "550 5.1.1 No such user"))
    async with await relay.log_in() as client:
        assert (await client.command("MAIL FROM:<a@example.com>")).code == 250
        answer = await client.command("RCPT TO:<b@example.net>")
        if recipients == "deferred":
            assert answer.code == 250
            answer = await client.data(message())
        assert str(answer) == "550 5.1.1 No such user"


@shows("limits.wait_seconds")
@pytest.mark.parametrize("seconds", [0, 0.1])
async def test_a_message_waits_for_wait_seconds(start_relay: StartRelay, seconds: float) -> None:
    limits = {"max_connections": 1, "wait_seconds": seconds}
    relay = await start_relay(one_account(limits=limits))
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    async with await relay.log_in() as first, await relay.log_in() as second:
        await first.envelope("to@example.net")
        assert (await first.command("DATA")).code == 354
        first.write(b"Subject: stuck\r\n\r\nstuck\r\n.\r\n")
        await relay.sandbox.arrived(Step.END)
        started = time.monotonic()
        answer = str(await second.send(message()))
        assert answer == "451 4.3.2 Too many messages at once for this mailbox; try again"
        assert seconds <= time.monotonic() - started < UNTOLD_SECONDS


# The listener.


@shows("listener.host", "listener.port", "admin.host", "admin.port")
async def test_hosts_and_ports_are_where_it_listens(tmp_path: Path) -> None:
    smtp, admin = free_port(), free_port()
    file = tmp_path / "accounts.json"
    file.write_text(
        f'{{"accounts": [{{"email": "{MAILBOX}", "provider": "mock", "password": "secret"}}], '
        f'"listener": {{"host": "127.0.0.2", "port": {smtp}}}, '
        f'"admin": {{"host": "127.0.0.3", "port": {admin}}}}}'
    )
    source = ConfigSource(file, Overrides(sandbox=True), tmp_path)
    config = source.load(BUILT_IN_REFRESHERS, {})
    refresher = MockRefresher(MockTokens(load_signing_key(tmp_path)))
    components = TestComponents(source, config, {"mock": refresher})
    async with Relay(config, components, Sandbox(tmp_path)) as relay:
        assert (relay.host, relay.port) == ("127.0.0.2", smtp)
        assert relay.admin_url == f"http://127.0.0.3:{admin}"
        async with await relay.log_in() as client:
            assert await taken(client)
        assert (await relay.get("/health"))[0] == 200


@shows("listener.name")
async def test_the_name_is_what_the_listener_is_called(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account() | {"listener": {"name": "hall"}})
    assert list(relay.addresses) == ["hall"]


@shows("listener.tls", "listener.tls_cert", "listener.tls_key")
async def test_a_certificate_offers_starttls(
    start_relay: StartRelay, tmp_path: Path, authority: trustme.CA
) -> None:
    certificate = authority.issue_cert("relay.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    listener = {"tls_cert": "relay.pem", "tls_key": "relay.pem"}
    relay = await start_relay(one_account() | {"listener": listener})
    async with await relay.connect() as client:
        assert "STARTTLS" in (await client.ehlo()).text
        assert (await client.command("STARTTLS")).code == 220
    relay = await start_relay(one_account())
    async with await relay.connect() as client:
        assert "STARTTLS" not in (await client.ehlo()).text
        assert (await client.command("STARTTLS")).code == 502


@shows("listener.tls_min")
@pytest.mark.parametrize(("oldest", "is_taken"), [("1.0", True), ("1.2", True), ("1.3", False)])
async def test_tls_older_than_tls_min_is_refused(
    start_relay: StartRelay, tmp_path: Path, authority: trustme.CA, oldest: str, is_taken: bool
) -> None:
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    listener = {"tls_cert": "relay.pem", "tls_key": "relay.pem", "tls_min": oldest}
    relay = await start_relay(one_account() | {"listener": listener})
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with await relay.connect() as client:
        if is_taken:
            await client.start_tls(context, "localhost")
            assert (await client.ehlo()).code == 250
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await client.start_tls(context, "localhost")


@shows("listener.allow_insecure_auth")
async def test_allow_insecure_auth_is_needed_off_loopback(start_relay: StartRelay) -> None:
    with pytest.raises(ConfigError, match="allow_insecure_auth"):
        await start_relay(one_account() | {"listener": {"host": "0.0.0.0"}})
    listener = {"host": "0.0.0.0", "allow_insecure_auth": True}
    relay = await start_relay(one_account() | {"listener": listener})
    relay.host = "127.0.0.1"
    assert await accepted_password(relay, PASSWORD)


@shows("listener.proxies")
@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_listed_balancer_names_its_client(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture, is_listed: bool
) -> None:
    proxies = ["127.0.0.1"] if is_listed else ["192.0.2.9"]
    relay = await start_relay(one_account() | {"listener": {"proxies": proxies}})
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    async with client:
        client.write(b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 25\r\n")
        assert (await client.reply()).code == 220
        if not is_listed:
            assert (await client.reply()).code == 500  # like any word that is no command
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, "wrong")).code == 535
    await until(lambda: bool(turned_away(caplog)))
    (told,) = turned_away(caplog)
    assert told["client"] == ("192.0.2.1" if is_listed else "127.0.0.1")


@shows("listener.proxies")
@pytest.mark.parametrize("said", [b"", b"PRO", b"PROXY TCP4 192.0"])
async def test_a_balancer_that_only_checks_the_port_leaves_no_error(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    relay = await start_relay(one_account() | {"listener": {"proxies": ["127.0.0.1"]}})
    _, writer = await asyncio.open_connection(relay.host, relay.port)
    writer.write(said)
    writer.close()
    await writer.wait_closed()
    await until(lambda: is_done(relay))
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


async def is_done(relay: Relay) -> bool:
    """Whether the one client has come and gone."""
    return await relay.metric("xoauth2_proxy_client_connections_total", result="not greeted") == 1


@shows("listener.strict")
async def test_a_strict_listener_refuses_bare_line_ends(start_relay: StartRelay) -> None:
    for strict, code in ((False, 250), (True, 550)):
        relay = await start_relay(one_account() | {"listener": {"strict": strict}})
        async with await relay.log_in() as client:
            assert (await client.send(b"a\nb\r\n")).code == code


@shows("listener.networks")
@pytest.mark.parametrize("mode", [None, "auto", "implicit"])
async def test_only_listed_networks_may_connect(
    start_relay: StartRelay,
    tmp_path: Path,
    authority: trustme.CA,
    caplog: pytest.LogCaptureFixture,
    mode: str | None,
) -> None:
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    listener: dict[str, object] = {"networks": ["192.0.2.0/24"], "proxies": ["127.0.0.2/31"]}
    if mode is not None:
        listener |= {"tls": mode, "tls_cert": "relay.pem", "tls_key": "relay.pem"}
    relay = await start_relay(one_account() | {"listener": listener})
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    for source, header, is_admitted in (
        ("127.0.0.1", b"", False),
        ("127.0.0.2", b"PROXY TCP4 198.51.100.1 127.0.0.1 4000 25\r\n", False),
        ("127.0.0.3", b"PROXY TCP4 192.0.2.77 127.0.0.1 4000 25\r\n", True),
    ):
        streams = await asyncio.open_connection(relay.host, relay.port, local_addr=(source, 0))
        async with Client(*streams) as client:
            client.write(header)
            if mode == "implicit" and is_admitted:
                await client.writer.start_tls(trust, server_hostname="localhost")
            if is_admitted:
                assert (await client.reply()).code == 220
            elif mode != "implicit":
                assert await client.reply() == replies.NETWORK_NOT_ALLOWED
            if not is_admitted:
                assert await client.closed()


@shows("listener.mechanisms", "listener.auth_equals_line")
async def test_mechanisms_are_what_is_offered_and_taken(start_relay: StartRelay) -> None:
    listener = {"mechanisms": ["LOGIN", "PLAIN"], "auth_equals_line": True}
    relay = await start_relay(one_account() | {"listener": listener})
    async with await relay.connect() as client:
        lines = (await client.ehlo()).text
        assert lines[-2:] == ("AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN")
        assert await client.command("AUTH XOAUTH2") == replies.AUTH_MECHANISM_UNKNOWN
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
    relay = await start_relay(one_account() | {"listener": {"mechanisms": ["OAUTHBEARER"]}})
    async with await relay.connect() as client:
        lines = (await client.ehlo()).text
        assert [one for one in lines if one.startswith("AUTH")] == ["AUTH OAUTHBEARER"]
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTH_MECHANISM_UNKNOWN


@shows("listener.mechanisms")
@pytest.mark.parametrize(
    ("account_keys", "is_offered"),
    [
        ({"provider": "gmail", "client_id": "c", "client_secret": "s"}, False),
        ({"provider": "gmail"}, True),
        ({"provider": "mock"}, True),
    ],
)
async def test_tokens_are_offered_where_an_account_takes_clients_tokens(
    start_relay: StartRelay, account_keys: dict[str, object], *, is_offered: bool
) -> None:
    refresher = ScriptedRefresher()
    relay = await start_relay(
        {"accounts": [account() | account_keys]}, refreshers={"gmail": refresher, "mock": refresher}
    )
    async with await relay.connect() as client:
        lines = (await client.ehlo()).text
        expected = "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER" if is_offered else "AUTH PLAIN LOGIN"
        assert lines[-1] == expected
        # A client that does not look at what is offered is served as before.
        assert str(await client.command("AUTH XOAUTH2")).startswith("334")


@shows("listener.mechanisms")
async def test_a_reload_changes_what_is_offered(start_relay: StartRelay, tmp_path: Path) -> None:
    own = account(provider="gmail", client_id="c", client_secret="s")
    relay = await start_relay({"accounts": [own]}, refreshers={"gmail": ScriptedRefresher()})
    async with await relay.connect() as client:
        assert (await client.ehlo()).text[-1] == "AUTH PLAIN LOGIN"
    brings_tokens = account(OTHER_MAILBOX, provider="gmail")
    (tmp_path / "accounts.json").write_text(json.dumps({"accounts": [own, brings_tokens]}))
    await relay.app.reload()
    async with await relay.connect() as client:
        assert (await client.ehlo()).text[-1] == "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER"


@shows("listener.max_connections")
async def test_one_more_than_max_connections_is_turned_away(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account() | {"listener": {"max_connections": 2}})
    async with await relay.connect(), await relay.connect() as second:
        async with await relay.connect() as third:
            assert str(third.greeting) == "421 4.3.2 Too many connections; try again later"
            assert await third.closed()
        assert (await second.command("QUIT")).code == 221
        await until(lambda: has_room(relay))
    assert await relay.metric("xoauth2_proxy_client_connections_total", result="refused") >= 1


async def has_room(relay: Relay) -> bool:
    async with await relay.connect() as client:
        return client.greeting.code == 220


@shows("listener.idle_seconds")
@pytest.mark.simulated_time
@pytest.mark.parametrize("said", [b"", b"EH", b"AUTH LOGIN\r\n", b"NOOP\r\n"])
async def test_a_silent_client_is_shown_out(start_relay: StartRelay, said: bytes) -> None:
    relay = await start_relay(one_account() | {"listener": {"idle_seconds": 0.2}})
    async with await relay.connect() as client:
        await client.ehlo()
        client.write(said)
        if said.endswith(b"\r\n"):
            assert (await client.reply()).code in {250, 334}
        assert str(await client.reply()) == "421 4.4.2 No login in time"
        assert await client.closed()


@shows("listener.max_connections_per_address")
async def test_one_address_gets_max_connections_per_address(start_relay: StartRelay) -> None:
    listener = {"max_connections_per_address": 1, "proxies": ["127.0.0.1"]}
    relay = await start_relay(one_account() | {"listener": listener})

    async def greeting_of(address: str) -> int:
        client = Client(*await asyncio.open_connection(relay.host, relay.port))
        clients.append(client)
        client.write(f"PROXY TCP4 {address} 127.0.0.1 4000 25\r\n".encode())
        return (await client.reply()).code

    clients: list[Client] = []
    codes = [await greeting_of(one) for one in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
    assert codes == [220, 421, 220]
    for client in clients:
        await client.close()


@shows("listener.login_seconds")
@pytest.mark.simulated_time
async def test_a_client_that_does_not_log_in_is_shown_out(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account() | {"listener": {"login_seconds": 0.2}})
    async with await relay.connect() as client:
        assert str(await client.reply()) == "421 4.4.2 No login in time"
        assert await client.closed()


@shows("listener.message_seconds")
@pytest.mark.simulated_time
@pytest.mark.parametrize("said", ["", "RCPT TO:<a@example.net>", "BDAT 9"])
async def test_a_message_that_takes_too_long_is_not_waited_for(
    start_relay: StartRelay, said: str
) -> None:
    relay = await start_relay(one_account() | {"listener": {"message_seconds": 0.2}})
    async with await relay.log_in() as client:
        assert await taken(client)
        assert (await client.command("MAIL FROM:<a@example.com>")).code == 250
        client.write(f"{said}\r\n".encode() if said else b"")
        while (answer := await client.reply()).code != 421:
            pass
        assert str(answer) == "421 4.4.2 The message took too long"
        assert await client.closed()


@shows("relay.buffer_total_bytes")
async def test_messages_together_may_be_so_large(start_relay: StartRelay) -> None:
    limits = {"relay": {"buffer_bytes": 65_536, "buffer_total_bytes": 1_048_576}}
    relay = await start_relay(one_account(limits={"max_connections": 1}) | limits)
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    async with AsyncExitStack() as stack:
        for _ in range(30):
            client = await stack.enter_async_context(await relay.log_in())
            await client.envelope("to@example.net")
            if (await client.command("DATA")).code == 452:
                break
            client.write(message(size_bytes=60_000) + b".\r\n")
            await until(lambda: waits_for_the_provider(relay))
        else:
            pytest.fail("there was always room")
        assert relay.app._budget.used_bytes <= 1_048_576
    relay.sandbox.end_delays()


def waits_for_the_provider(relay: Relay) -> bool:
    return all(session._in_flight_bytes for session in relay.sessions())


@shows("listener.max_commands", "listener.max_bad_commands")
@pytest.mark.parametrize(
    ("key", "limit", "command"), [("max_commands", 10, "NOOP"), ("max_bad_commands", 2, "FOO")]
)
async def test_a_client_may_say_so_many_commands(
    start_relay: StartRelay, key: str, limit: int, command: str
) -> None:
    relay = await start_relay(one_account() | {"listener": {key: limit}})
    async with await relay.connect() as client:
        answers = [await client.command(command) for _ in range(limit)]
        if key == "max_commands":
            answers.append(await client.command(command))
        assert [answer.code == 421 for answer in answers] == [False] * (len(answers) - 1) + [True]
        assert await client.closed()


# The admin server.


@shows("admin.token")
async def test_the_admin_token_is_asked_for(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account() | {"admin": {"token": "let me see"}})
    for page in ("/health/live", "/health/ready"):  # for orchestrators, which have none
        assert (await relay.get(page))[0] == 200
    for page in ("/health", "/metrics"):
        assert (await relay.get(page))[0] == 401
        assert (await relay.get(page, Authorization="Bearer let me"))[0] == 401
        assert (await relay.get(page, Authorization="Basic let me see"))[0] == 401
        assert (await relay.get(page, Authorization="Bearer let me see"))[0] == 200


@shows("admin.serves_tokens")
async def test_tokens_are_served_only_where_that_is_written(start_relay: StartRelay) -> None:
    for is_on, status in {False: 403, True: 200}.items():
        admin = {"token": "let me see", "serves_tokens": is_on}
        relay = await start_relay(one_account() | {"admin": admin})
        answer = await relay.get(f"/accounts/{MAILBOX}/token", Authorization="Bearer let me see")
        assert (answer[0], "access_token" in answer[1]) == (status, is_on)


@shows("admin.public_url")
async def test_the_public_url_is_a_name_that_browsers_may_use(start_relay: StartRelay) -> None:
    known = {"admin": {"public_url": "https://relay.example.com"}}
    relay = await start_relay(one_account() | known)
    assert (await relay.get("/", Host="relay.example.com"))[0] == 200
    assert (await relay.get("/", Host="elsewhere.example.com"))[0] == 403


# Alerts.


@asynccontextmanager
async def webhook() -> AsyncIterator[tuple[str, asyncio.Queue[dict[str, object]]]]:
    """Give the address of a webhook, and what it was told."""
    told: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def hear(request: web.Request) -> web.Response:
        told.put_nowait(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/told", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/told", told
    finally:
        await runner.cleanup()


@shows("alerts.webhook", "alerts.warn_days")
@pytest.mark.parametrize(("warn_days", "state"), [(8, "attention"), (6, "unused")])
async def test_the_webhook_is_told_so_many_days_ahead(
    start_relay: StartRelay, warn_days: int, state: str
) -> None:
    in_testing = account(
        provider="gmail", client_id="id", refresh_token="1//token", refresh_token_days=7
    )
    async with webhook() as (url, told):
        alerts = {"webhook": url, "warn_days": warn_days}
        relay = await start_relay({"accounts": [in_testing], "alerts": alerts})
        gauge = {"provider": "gmail", "state": state}
        await until(lambda: _is_one(relay.metric("xoauth2_proxy_mailboxes", **gauge)))
        if state == "unused":
            assert told.empty()
        else:
            async with asyncio.timeout(PATIENCE_SECONDS):
                notice = await told.get()
            assert notice["mailbox"] == MAILBOX
            assert notice["event"] == "needs_a_person"


async def _is_one(value: Awaitable[float]) -> bool:
    return await value == 1.0


# What one message may be.


@shows("relay.max_message_bytes")
async def test_max_message_bytes_is_announced_and_kept(start_relay: StartRelay) -> None:
    limit = 65_536
    relay = await start_relay(one_account() | {"relay": {"max_message_bytes": limit}})
    exact = b"x" * (limit - 2) + b"\r\n"
    async with await relay.log_in() as client:
        assert f"SIZE {limit}" in (await client.ehlo()).text
        refused = "552 5.3.4 Message size exceeds the limit"
        declared = f"MAIL FROM:<a@example.com> SIZE={limit + 1}"
        assert str(await client.command(declared)) == refused
        assert str(await client.send(b"x" + exact)) == refused
        assert (await client.send(exact)).code == 250
        await client.envelope("to@example.net")
        client.write(b"BDAT %d LAST\r\nx" % (limit + 1) + exact)
        assert str(await client.reply()) == refused
        await client.envelope("to@example.net")
        client.write(b"BDAT %d LAST\r\n" % limit + exact)
        assert (await client.reply()).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [exact, exact]


@shows("relay.buffer_bytes")
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
async def test_content_beyond_buffer_bytes_is_sent_on_while_it_arrives(
    start_relay: StartRelay, verb: str
) -> None:
    relay = await start_relay(one_account() | {"relay": {"buffer_bytes": 4096}})
    content = message(size_bytes=5000).replace(b"\r\n.", b"\r\n")
    async with await relay.log_in() as client:
        # As much as fits is held until the end of it is there.
        await begin_content(client, verb, 4096)
        client.write(b"x" * 4094 + b"\r\n.\r\n"[: None if verb == "DATA" else 2])
        assert (await client.reply()).code == 250
        assert relay.sandbox.arrivals(Step.DATA) == 0
        await begin_content(client, verb, len(content))
        client.write(content[:4900])
        await relay.sandbox.arrived(Step.DATA)
        await relay.sandbox.arrived(Step.CONTENT, 2)
        client.write(content[4900:] + (b".\r\n" if verb == "DATA" else b""))
        assert (await client.reply()).code == 250
    assert [kept.via for kept in relay.sandbox.received] == ["BDAT", "DATA"]
    assert list(relay.sandbox.received)[1].content == content


async def begin_content(client: Client, verb: str, size_bytes: int) -> None:
    await client.envelope("to@example.net")
    if verb == "DATA":
        assert (await client.command("DATA")).code == 354
    else:
        client.write(b"BDAT %d LAST\r\n" % size_bytes)


COPIER: dict[str, object] = {"name": "copier", "password": "of the copier"}
HALL: dict[str, object] = {"name": "hall", "networks": ["127.0.0.1"]}


async def answer_to(start_relay: StartRelay, credential: dict[str, object], *lines: str) -> str:
    """Return the last answer to a client that says EHLO and these lines."""
    relay = await start_relay(one_account(credentials=[credential]))
    async with await relay.connect() as client:
        answer = await client.ehlo()
        for line in lines:
            answer = await client.command(line)
        return f"{answer.code} {answer.enhanced}"


def plain(login: str, password: str = "of the copier") -> str:
    return "AUTH PLAIN " + encoded(f"\0{login}\0{password}")


MAIL = "MAIL FROM:<a@example.com>"


@shows("account.credentials", "credential.name", "credential.login", "credential.password")
@pytest.mark.parametrize(
    ("keys", "line", "answer"),
    [
        ({}, plain("copier"), "235 2.7.0"),
        ({}, plain("copier", "wrong"), "535 5.7.8"),
        ({"login": "Copier 2"}, plain("copier 2"), "235 2.7.0"),
        ({"login": "Copier 2"}, plain("copier"), "535 5.7.8"),
    ],
)
async def test_a_credential_is_what_a_device_logs_in_with(
    start_relay: StartRelay, keys: dict[str, object], line: str, answer: str
) -> None:
    assert await answer_to(start_relay, COPIER | keys, line) == answer


@shows("credential.networks", "credential.allow_public_networks")
@pytest.mark.parametrize(
    ("credential", "line", "answer"),
    [
        (COPIER | {"networks": ["10.0.0.0/8"]}, plain("copier"), "535 5.7.8"),
        (COPIER | {"networks": ["127.0.0.0/8"]}, plain("copier"), "235 2.7.0"),
        (HALL, MAIL, "250 2.1.0"),
        (HALL | {"networks": ["10.0.0.0/8"]}, MAIL, "530 5.7.0"),
        (HALL | {"networks": ["0.0.0.0/1"], "allow_public_networks": True}, MAIL, "250 2.1.0"),
    ],
)
async def test_networks_are_where_a_credential_is_used_from(
    start_relay: StartRelay, credential: dict[str, object], line: str, answer: str
) -> None:
    assert await answer_to(start_relay, credential, line) == answer


@shows(
    *("credential.senders", "credential.from", "credential.messages_per_minute"),
    *("credential.messages_per_day", "credential.max_connections", "credential.expires"),
    "credential.enabled",
)
@pytest.mark.parametrize(
    ("keys", "lines", "answer"),
    [
        ({"senders": ["b@example.com"]}, [plain("copier"), MAIL], "550 5.7.1"),
        (
            {"senders": ["b@example.com"], "from": {"rewrite": "b@example.com"}},
            [plain("copier"), MAIL],
            "250 2.1.0",
        ),
        ({"messages_per_minute": 1}, [plain("copier"), MAIL, "RSET", MAIL], "451 4.7.1"),
        ({"messages_per_day": 1}, [plain("copier"), MAIL, "RSET", MAIL], "452 4.7.1"),
        ({"expires": "2020-01-01"}, [plain("copier")], "535 5.7.8"),
        ({"enabled": False}, [plain("copier")], "535 5.7.8"),
    ],
)
async def test_a_credential_is_held_to_its_limits(
    start_relay: StartRelay, keys: dict[str, object], lines: list[str], answer: str
) -> None:
    assert await answer_to(start_relay, COPIER | keys, *lines) == answer
    relay = await start_relay(one_account(credentials=[COPIER | {"max_connections": 1}]))
    async with await relay.log_in("copier", "of the copier"), await relay.connect() as second:
        await second.ehlo()
        assert (await second.auth_plain("copier", "of the copier")).code == 421


@shows("account.client_tokens")
@pytest.mark.parametrize(("taken", "code"), [(True, 235), (False, 334)])
async def test_client_tokens_are_taken_or_not(
    start_relay: StartRelay, taken: bool, code: int
) -> None:
    relay = await start_relay(one_account(client_tokens=taken))
    token = relay.sandbox.tokens.mint(MAILBOX)
    async with await relay.connect() as client:
        await client.ehlo()
        response = encoded(f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01")
        assert (await client.command(f"AUTH XOAUTH2 {response}")).code == code


@shows("relay.max_failed_logins")
@pytest.mark.parametrize(("most", "code"), [(1, 421), (2, 535), (0, 535)])
async def test_logins_are_turned_away_after_max_failed_logins(
    start_relay: StartRelay, most: int, code: int
) -> None:
    relay = await start_relay(one_account() | {"relay": {"max_failed_logins": most}})
    relay.app._authenticator.guessing.failed("127.0.0.1", "anybody", "a guess")
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, "wrong")).code == code


@shows("relay.max_recipients")
async def test_one_more_than_max_recipients_is_refused(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account() | {"relay": {"max_recipients": 3}})
    paths = tuple(f"to{number}@example.net" for number in range(3))
    async with await relay.log_in() as client:
        await client.envelope(*paths)
        answer = await client.command("RCPT TO:<one@toomany.example>")
        assert str(answer) == "452 4.5.3 Too many recipients"
        assert (await client.data(message())).code == 250
    (kept,) = relay.sandbox.received
    assert kept.forward_paths == paths


@shows("relay.drain_seconds")
async def test_a_stop_takes_drain_seconds_at_most(start_relay: StartRelay) -> None:
    relay = await start_relay(one_account() | {"relay": {"drain_seconds": 0.2}})
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"Subject: stuck\r\n\r\nstuck\r\n.\r\n")
        await relay.sandbox.arrived(Step.END)
        started = time.monotonic()
        stop = asyncio.create_task(relay.app.stop())
        assert (await client.reply()).code == 421
        assert 0.2 <= time.monotonic() - started < UNTOLD_SECONDS
        await stop


# Where grants are kept.


async def keep_a_grant(place: Path, **store: object) -> Path:
    """Keep a grant as the configuration says; return the directory that its file would be in."""
    file = place / "accounts.json"
    file.write_text(json.dumps(one_account() | {"store": store}))
    config = ConfigSource(file, Overrides(), place).load(BUILT_IN_REFRESHERS, {}).store
    first = open_configured_store(config)
    await first.save(MAILBOX, StoredGrant(refresh_token="PLANTED"))
    await first.close()
    second = open_configured_store(config)
    is_kept = await second.load(MAILBOX) is not None
    await second.close()
    assert is_kept is (config.kind is not StoreKind.MEMORY)
    return config.directory


@shows("store.kind", "store.directory")
@pytest.mark.parametrize("kind", ["file", "memory"])
async def test_grants_are_kept_in_the_directory_or_nowhere(tmp_path: Path, kind: str) -> None:
    directory = await keep_a_grant(tmp_path, kind=kind)
    assert directory == tmp_path / "tokens"
    assert directory.exists() is (kind == "file")
    if kind == "file":
        directory = await keep_a_grant(tmp_path, directory="elsewhere")
        assert "PLANTED" in written_in(tmp_path / "elsewhere")


@shows("store.key", "store.keyring")
@pytest.mark.parametrize("key", [{"key": "sixteen-letters."}, {"keyring": True}])
async def test_grants_are_encrypted_with_the_key(tmp_path: Path, key: dict[str, object]) -> None:
    with keyring_in_use(Keyring()):
        directory = await keep_a_grant(tmp_path, **key)
    assert "sealed" in written_in(directory)
    assert "PLANTED" not in written_in(directory)


@shows("store.url")
@pytest.mark.outside
async def test_grants_are_kept_at_the_url(tmp_path: Path) -> None:
    with redis_server() as server:
        directory = await keep_a_grant(tmp_path, kind="redis", url=server.url)
    assert not directory.exists()


def written_in(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.glob("*.json"))


# The forms of the file.


@shows("accounts")
async def test_a_key_that_does_not_exist_is_an_error(start_relay: StartRelay) -> None:
    with pytest.raises(ConfigError) as caught:
        await start_relay(one_account(limit={}) | {"relays": {}, "relay": {"max_bytes": 1}})
    assert {path for path, _ in caught.value.problems} == {
        "accounts[0].limit",
        "relays",
        "relay.max_bytes",
    }


async def test_every_key_of_the_schema_is_shown() -> None:
    sections = json_schema([])["$defs"]
    assert isinstance(sections, dict)
    keys = {
        prefix + key
        for name, prefix in SECTIONS.items()
        for key in sections[name]["properties"]
        if prefix not in {"account.", "provider."} or key not in OAUTH_KEYS
    }
    assert keys == SHOWN
    assert set(sections) - set(SECTIONS) == {
        *("TlsMode", "GrantType", "StoreKind", "ListenerTls", "TlsVersion")
    }
