"""Opening connections to providers: greeting, extensions, and TLS that is never left out."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.peers import serving
from tests.support.provider import Provider, at, ends, refusal
from xoauth2_proxy.accounts.accounts import TlsMode, Upstream
from xoauth2_proxy.errors import (
    UpstreamInsecure,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.upstream import connector as opener_module

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.support.peers import Peer
    from xoauth2_proxy.upstream.connector import Connector

pytestmark = pytest.mark.both_loops

TOKEN = "ya29.token"


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


# A connection that works.


async def test_open_says_ehlo_and_auth_and_no_more(connector: Connector) -> None:
    provider = Provider()
    async with at(provider) as account:
        connection = await connector.open(account)
        assert connection.dialogue.extensions == {
            "PIPELINING": "",
            "CHUNKING": "",
            "AUTH": "LOGIN XOAUTH2",
        }
        ends(connection)
    assert provider.heard[0] == b"EHLO relay.example"
    assert provider.heard[1].startswith(b"AUTH XOAUTH2 ")
    assert provider.responses == [b"user=someone@example.com\x01auth=Bearer token-1\x01\x01"]
    assert len(provider.heard) == 2


async def test_after_starttls_everything_is_asked_again(
    connector: Connector, authority: trustme.CA, ca_file: Path
) -> None:
    # What was said in clear is not believed (RFC 3207 §4.2).
    provider = Provider(server_context(authority), in_clear=["X-IN-CLEAR", "AUTH PLAIN"])
    async with at(provider, TlsMode.STARTTLS, ca_file) as account:
        connection = await connector.open(account)
        assert "X-IN-CLEAR" not in connection.dialogue.extensions
        assert connection.dialogue.extensions["AUTH"] == "LOGIN XOAUTH2"
        ends(connection)
    verbs = [line.split()[0] for line in provider.heard]
    assert verbs == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH"]


async def test_implicit_tls(connector: Connector, authority: trustme.CA, ca_file: Path) -> None:
    provider = Provider()
    context = server_context(authority)
    async with at(provider, TlsMode.IMPLICIT, ca_file, context) as account:
        ends(await connector.open(account))
    assert [line.split()[0] for line in provider.heard] == [b"EHLO", b"AUTH"]


@pytest.mark.parametrize(
    ("line", "keyword", "parameters"),
    [
        ("8 BITMIME", "8BITMIME", ""),
        ("size 35882577", "SIZE", "35882577"),
        ("AUTH=PLAIN XOAUTH2", "AUTH", "LOGIN XOAUTH2 PLAIN XOAUTH2"),
    ],
)
async def test_extensions_are_understood_as_providers_write_them(
    connector: Connector, line: str, keyword: str, parameters: str
) -> None:
    async with at(Provider(extensions=["AUTH LOGIN XOAUTH2", line])) as account:
        connection = await connector.open(account)
        assert connection.dialogue.extensions[keyword] == parameters
        ends(connection)


# No connection, or none that is safe.


@pytest.mark.parametrize("in_clear", [[], ["AUTH XOAUTH2"]])
async def test_without_starttls_not_an_octet_of_auth_is_sent(
    connector: Connector, ca_file: Path, in_clear: list[str]
) -> None:
    provider = Provider(extensions=[*in_clear, "PIPELINING"])
    async with at(provider, TlsMode.STARTTLS, ca_file) as account:
        await refusal(connector.open(account), UpstreamInsecure)
    assert not any(line.upper().startswith(b"AUTH") for line in provider.heard)
    assert not provider.responses


@pytest.mark.parametrize("answer", ["454 4.7.0 TLS not available", "502 5.5.1 no", "250 ok"])
async def test_starttls_refused_is_no_reason_to_go_on_in_clear(
    connector: Connector, authority: trustme.CA, ca_file: Path, answer: str
) -> None:
    provider = Provider(server_context(authority), starttls=answer, in_clear=["AUTH XOAUTH2"])
    async with at(provider, TlsMode.STARTTLS, ca_file) as account:
        await refusal(connector.open(account), UpstreamInsecure)
    assert not any(line.startswith(b"AUTH") for line in provider.heard)


@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
@pytest.mark.parametrize("fault", ["name", "authority"])
async def test_a_certificate_that_proves_nothing_is_refused(
    connector: Connector, authority: trustme.CA, ca_file: Path, tls: TlsMode, fault: str
) -> None:
    name = "other.example" if fault == "name" else "localhost"
    context = server_context(authority, name)
    provider = Provider(context if tls is TlsMode.STARTTLS else None)
    implicit = context if tls is TlsMode.IMPLICIT else None
    trusted = ca_file if fault == "name" else None
    async with at(provider, tls, trusted, implicit) as account:
        error = await refusal(connector.open(account), UpstreamInsecure)
    assert "certificate" in str(error).lower()
    assert not any(line.startswith(b"AUTH") for line in provider.heard)


async def test_a_missing_ca_file_is_told(connector: Connector, tmp_path: Path) -> None:
    account = mailbox(upstream=Upstream("localhost", 1, TlsMode.STARTTLS, tmp_path / "nowhere.pem"))
    error = await refusal(connector.open(account), UpstreamInsecure)
    assert "nowhere.pem" in str(error)


async def test_a_host_that_does_not_resolve(connector: Connector) -> None:
    account = mailbox(upstream=Upstream("no-such-host.invalid", 587, TlsMode.NONE))
    await refusal(connector.open(account), UpstreamNotFound)


async def test_a_port_where_nobody_listens(connector: Connector) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        account = mailbox(upstream=Upstream("127.0.0.1", port, TlsMode.NONE))
        await refusal(connector.open(account), UpstreamUnavailable)


async def test_a_provider_that_says_nothing(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opener_module, "_CONNECT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        account = mailbox(upstream=Upstream("127.0.0.1", port, TlsMode.NONE))
        await refusal(connector.open(account), UpstreamUnavailable)


async def test_a_port_that_greets_in_clear_is_told_from_a_bad_certificate(
    connector: Connector,
) -> None:
    async def greets(peer: Peer) -> None:
        peer.says("220 provider.example ESMTP")
        await peer.rest()

    async with serving(greets) as port:
        account = mailbox(upstream=Upstream("localhost", port, TlsMode.IMPLICIT))
        error = await refusal(connector.open(account), UpstreamInsecure)
    assert "greets in clear, not in TLS: upstream.tls must be starttls" in str(error)


@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.NONE])
async def test_a_port_that_does_not_greet_may_expect_tls(
    connector: Connector, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tls: TlsMode
) -> None:
    monkeypatch.setattr(opener_module, "_CONNECT_SECONDS", 0.3)
    context = server_context(authority)
    async with at(Provider(), tls, None, context) as account:
        error = await refusal(connector.open(account), UpstreamUnavailable)
    assert "upstream.tls must be implicit" in str(error)


@pytest.mark.parametrize("greeting", ["421 4.3.2 Too busy", "450 4.7.1 Try later"])
async def test_a_greeting_that_says_later_is_the_providers_word(
    connector: Connector, greeting: str
) -> None:
    async with at(Provider(greeting=greeting)) as account:
        error = await refusal(connector.open(account), UpstreamRejected)
    assert error.is_transient
    assert str(error) == greeting


async def test_a_greeting_that_says_never_does_not_bounce_mail(connector: Connector) -> None:
    async with at(Provider(greeting="554 5.7.1 Go away")) as account:
        error = await refusal(connector.open(account), UpstreamUnavailable)
    assert error.is_transient
    assert "Go away" in str(error)


async def test_a_provider_that_hangs_up_at_auth(connector: Connector) -> None:
    async def hangs_up(peer: Peer) -> None:
        await greeted(peer)

    async with serving(hangs_up) as port:
        account = mailbox(upstream=Upstream("localhost", port, TlsMode.NONE))
        await refusal(connector.open(account), UpstreamUnavailable)


async def greeted(peer: Peer) -> None:
    """Lead a connection up to its AUTH command, which is not answered."""
    peer.says("220 provider.example")
    await peer.line()
    peer.says("250-provider.example", "250 AUTH XOAUTH2")
    await peer.line()
