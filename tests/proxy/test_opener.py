"""Opening connections to providers: TLS that is never left out, and AUTH XOAUTH2."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.peers import serving
from tests.support.provider import ACCEPTED, CHALLENGE, REFUSED, Provider
from xoauth2_proxy.accounts import Account, TlsMode, Upstream
from xoauth2_proxy.errors import (
    ProxyError,
    TokenEndpointUnavailable,
    UpstreamAuthRejected,
    UpstreamInsecure,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.oauth.grant import AccessToken, Monotonic
from xoauth2_proxy.upstream import opener as opener_module
from xoauth2_proxy.upstream.opener import Opener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import trustme

    from tests.support.peers import Peer

    from xoauth2_proxy.upstream.connection import Connection

TOKEN = "ya29.token"


class Tokens:
    """Gives out token-1, then token-2 once it is invalidated, and so on."""

    def __init__(self) -> None:
        self.invalidated: list[str] = []
        self._current = self._token(1)

    async def token_for(self, account: Account) -> AccessToken:
        assert account.email == "someone@example.com"
        return self._current

    def invalidate(self, account: Account, token: AccessToken) -> None:
        assert token is self._current
        self.invalidated.append(token.value)
        self._current = self._token(len(self.invalidated) + 1)

    @staticmethod
    def _token(number: int) -> AccessToken:
        return AccessToken.issued(f"token-{number}", Monotonic(time.monotonic()), 3600.0)


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def opener(tokens: Tokens) -> Opener:
    return Opener(tokens, "relay.example")


@asynccontextmanager
async def at(
    provider: Provider,
    tls: TlsMode = TlsMode.NONE,
    ca_file: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Account]:
    """Run the provider; give an account whose upstream it is."""
    async with serving(provider, context) as port:
        yield mailbox(upstream=Upstream("localhost", port, tls, ca_file))


async def refusal(opening: Awaitable[object], kind: type[ProxyError]) -> ProxyError:
    """Return the error that opening ends with, which is of `kind` and no other."""
    with pytest.raises(kind) as caught:
        await opening
    assert caught.type is kind
    return caught.value


def ends(connection: Connection) -> None:
    assert connection.is_usable
    connection.abort()


# A connection that works.


async def test_open_says_ehlo_and_auth_and_no_more(opener: Opener) -> None:
    provider = Provider()
    async with at(provider) as account:
        connection = await opener.open(account)
        assert connection.extensions == {
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
    opener: Opener, authority: trustme.CA, ca_file: Path
) -> None:
    # What was said in clear is not believed (RFC 3207 §4.2).
    provider = Provider(server_context(authority), in_clear=["X-IN-CLEAR", "AUTH PLAIN"])
    async with at(provider, TlsMode.STARTTLS, ca_file) as account:
        connection = await opener.open(account)
        assert "X-IN-CLEAR" not in connection.extensions
        assert connection.extensions["AUTH"] == "LOGIN XOAUTH2"
        ends(connection)
    verbs = [line.split()[0] for line in provider.heard]
    assert verbs == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH"]


async def test_implicit_tls(opener: Opener, authority: trustme.CA, ca_file: Path) -> None:
    provider = Provider()
    context = server_context(authority)
    async with at(provider, TlsMode.IMPLICIT, ca_file, context) as account:
        ends(await opener.open(account))
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
    opener: Opener, line: str, keyword: str, parameters: str
) -> None:
    async with at(Provider(extensions=["AUTH LOGIN XOAUTH2", line])) as account:
        connection = await opener.open(account)
        assert connection.extensions[keyword] == parameters
        ends(connection)


# No connection, or none that is safe.


@pytest.mark.parametrize("in_clear", [[], ["AUTH XOAUTH2"]])
async def test_without_starttls_not_an_octet_of_auth_is_sent(
    opener: Opener, ca_file: Path, in_clear: list[str]
) -> None:
    provider = Provider(extensions=[*in_clear, "PIPELINING"])
    async with at(provider, TlsMode.STARTTLS, ca_file) as account:
        await refusal(opener.open(account), UpstreamInsecure)
    assert not any(line.upper().startswith(b"AUTH") for line in provider.heard)
    assert not provider.responses


@pytest.mark.parametrize("answer", ["454 4.7.0 TLS not available", "502 5.5.1 no", "250 ok"])
async def test_starttls_refused_is_no_reason_to_go_on_in_clear(
    opener: Opener, authority: trustme.CA, ca_file: Path, answer: str
) -> None:
    provider = Provider(server_context(authority), starttls=answer, in_clear=["AUTH XOAUTH2"])
    async with at(provider, TlsMode.STARTTLS, ca_file) as account:
        await refusal(opener.open(account), UpstreamInsecure)
    assert not any(line.startswith(b"AUTH") for line in provider.heard)


@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.IMPLICIT])
@pytest.mark.parametrize("fault", ["name", "authority"])
async def test_a_certificate_that_proves_nothing_is_refused(
    opener: Opener, authority: trustme.CA, ca_file: Path, tls: TlsMode, fault: str
) -> None:
    name = "other.example" if fault == "name" else "localhost"
    context = server_context(authority, name)
    provider = Provider(context if tls is TlsMode.STARTTLS else None)
    implicit = context if tls is TlsMode.IMPLICIT else None
    trusted = ca_file if fault == "name" else None
    async with at(provider, tls, trusted, implicit) as account:
        error = await refusal(opener.open(account), UpstreamInsecure)
    assert "certificate" in str(error).lower()
    assert not any(line.startswith(b"AUTH") for line in provider.heard)


async def test_a_missing_ca_file_is_told(opener: Opener, tmp_path: Path) -> None:
    account = mailbox(
        upstream=Upstream("localhost", 1, TlsMode.STARTTLS, tmp_path / "nowhere.pem")
    )
    error = await refusal(opener.open(account), UpstreamInsecure)
    assert "nowhere.pem" in str(error)


async def test_a_host_that_does_not_resolve(opener: Opener) -> None:
    account = mailbox(upstream=Upstream("no-such-host.invalid", 587, TlsMode.NONE))
    await refusal(opener.open(account), UpstreamNotFound)


async def test_a_port_where_nobody_listens(opener: Opener) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        account = mailbox(upstream=Upstream("127.0.0.1", port, TlsMode.NONE))
        await refusal(opener.open(account), UpstreamUnavailable)


async def test_a_provider_that_says_nothing(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opener_module, "_CONNECT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        account = mailbox(upstream=Upstream("127.0.0.1", port, TlsMode.NONE))
        await refusal(opener.open(account), UpstreamUnavailable)


@pytest.mark.parametrize("greeting", ["421 4.3.2 Too busy", "450 4.7.1 Try later"])
async def test_a_greeting_that_says_later_is_the_providers_word(
    opener: Opener, greeting: str
) -> None:
    async with at(Provider(greeting=greeting)) as account:
        error = await refusal(opener.open(account), UpstreamRejected)
    assert error.is_transient
    assert str(error) == greeting


async def test_a_greeting_that_says_never_does_not_bounce_mail(opener: Opener) -> None:
    async with at(Provider(greeting="554 5.7.1 Go away")) as account:
        error = await refusal(opener.open(account), UpstreamUnavailable)
    assert error.is_transient
    assert "Go away" in str(error)


async def test_a_provider_that_hangs_up_at_auth(opener: Opener) -> None:
    async def hangs_up(peer: Peer) -> None:
        await greeted(peer)

    async with serving(hangs_up) as port:
        account = mailbox(upstream=Upstream("localhost", port, TlsMode.NONE))
        await refusal(opener.open(account), UpstreamUnavailable)


async def greeted(peer: Peer) -> None:
    """Lead a connection up to its AUTH command, which is not answered."""
    peer.says("220 provider.example")
    await peer.line()
    peer.says("250-provider.example", "250 AUTH XOAUTH2")
    await peer.line()


# AUTH.


def token_of_line(length: int) -> str:
    """Return a token whose inline AUTH line has `length` octets, CRLF included."""
    blob = (length - len(b"AUTH XOAUTH2 \r\n")) // 4 * 3
    return "t" * (blob - len(b"user=someone@example.com\x01auth=Bearer \x01\x01"))


async def test_a_short_token_goes_inline(opener: Opener) -> None:
    provider = Provider()
    async with at(provider) as account:
        ends(await opener.open_with(account, token_of_line(511)))
    assert len(provider.heard[1]) + 2 == 511
    assert len(provider.heard) == 2


@pytest.mark.parametrize("token", [token_of_line(515), "t" * 3000])
async def test_a_long_token_goes_in_a_line_of_its_own(opener: Opener, token: str) -> None:
    provider = Provider()
    async with at(provider) as account:
        ends(await opener.open_with(account, token))
    assert provider.heard[1] == b"AUTH XOAUTH2"
    assert f"auth=Bearer {token}\x01\x01".encode() in base64.b64decode(provider.heard[2])


async def test_an_error_challenge_is_acknowledged_and_the_refusal_is_read(
    opener: Opener,
) -> None:
    provider = Provider(answers=[CHALLENGE, REFUSED])
    async with at(provider) as account:
        error = await refusal(opener.open_with(account, TOKEN), UpstreamAuthRejected)
    assert isinstance(error, UpstreamAuthRejected)
    assert (error.reply.code, error.reply.enhanced) == (535, "5.7.8")
    assert not error.is_transient
    assert provider.heard[2:3] == [b""], "the challenge was not answered with an empty line"


async def test_a_refused_token_is_replaced_once(opener: Opener, tokens: Tokens) -> None:
    provider = Provider(answers=[CHALLENGE, REFUSED, ACCEPTED])
    async with at(provider) as account:
        ends(await opener.open(account))
    assert tokens.invalidated == ["token-1"]
    assert [one.split(b" ")[1].strip(b"\x01") for one in provider.responses] == [
        b"token-1",
        b"token-2",
    ]
    assert provider.connections == 2


async def test_a_second_refusal_is_final(opener: Opener, tokens: Tokens) -> None:
    provider = Provider(answers=[REFUSED])
    async with at(provider) as account:
        await refusal(opener.open(account), UpstreamAuthRejected)
    assert provider.connections == 2
    assert tokens.invalidated == ["token-1"]


@pytest.mark.parametrize("answer", ["454 4.7.0 Temporary", "432 4.3.2 busy", "421 4.7.0 rate"])
async def test_a_temporary_refusal_costs_no_token(
    opener: Opener, tokens: Tokens, answer: str
) -> None:
    provider = Provider(answers=[answer])
    async with at(provider) as account:
        error = await refusal(opener.open(account), UpstreamAuthRejected)
    assert error.is_transient
    assert tokens.invalidated == []
    assert provider.connections == 1


@pytest.mark.parametrize("extensions", [["PIPELINING"], ["AUTH PLAIN LOGIN"]])
async def test_a_provider_without_xoauth2_is_sent_no_token(
    opener: Opener, tokens: Tokens, extensions: list[str]
) -> None:
    provider = Provider(extensions=extensions)
    async with at(provider) as account:
        error = await refusal(opener.open(account), UpstreamAuthRejected)
    assert error.is_transient
    assert tokens.invalidated == []
    assert not provider.responses


async def test_a_clients_own_token_is_not_replaced(opener: Opener, tokens: Tokens) -> None:
    provider = Provider(answers=[REFUSED])
    async with at(provider) as account:
        await refusal(opener.open_with(account, TOKEN), UpstreamAuthRejected)
    assert provider.connections == 1
    assert tokens.invalidated == []


async def test_no_token_no_connection(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(_self: Tokens, _account: Account) -> AccessToken:
        raise TokenEndpointUnavailable("down")

    monkeypatch.setattr(Tokens, "token_for", none)
    provider = Provider()
    async with at(provider) as account:
        await refusal(opener.open(account), TokenEndpointUnavailable)
    assert provider.connections == 0


async def test_no_error_shows_the_token(opener: Opener) -> None:
    shown = []
    steps: list[Callable[[], Provider]] = [
        lambda: Provider(answers=[REFUSED]),
        lambda: Provider(answers=["no reply at all"]),
        lambda: Provider(greeting="554 no"),
    ]
    for step in steps:
        async with at(step()) as account:
            with pytest.raises(ProxyError) as caught:
                await opener.open_with(account, TOKEN)
            shown.append(repr(caught.value) + str(caught.value))
    assert len(shown) == 3
    assert TOKEN not in "".join(shown)


async def test_a_cancelled_opening_leaves_no_connection_behind(opener: Opener) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await greeted(peer)
        asked.set()
        assert await peer.rest() == b""
        ended.set()

    async with serving(script) as port, asyncio.timeout(5):
        account = mailbox(upstream=Upstream("localhost", port, TlsMode.NONE))
        opening = asyncio.create_task(opener.open_with(account, TOKEN))
        await asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await ended.wait()
