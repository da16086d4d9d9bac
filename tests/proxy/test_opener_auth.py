"""AUTH XOAUTH2 at the provider: how the token goes out, and what a refusal costs."""

from __future__ import annotations

import asyncio
import base64
import traceback
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.peers import serving
from tests.support.provider import ACCEPTED, CHALLENGE, REFUSED, Provider, Tokens, at, ends, refusal
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.accounts import Account, TlsMode, Upstream
from xoauth2_proxy.errors import (
    ProxyError,
    TokenEndpointUnavailable,
    UpstreamAuthRejected,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.peers import Peer
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.upstream.connector import Connector

pytestmark = pytest.mark.both_loops

TOKEN = "ya29.token"


async def greeted(peer: Peer) -> None:
    """Lead a connection up to its AUTH command, which is not answered."""
    peer.says("220 provider.example")
    await peer.line()
    peer.says("250-provider.example", "250 AUTH XOAUTH2")
    await peer.line()


def token_of_line(length: int) -> str:
    """Return a token whose inline AUTH line has `length` octets, CRLF included."""
    blob = (length - len(b"AUTH XOAUTH2 \r\n")) // 4 * 3
    return "t" * (blob - len(b"user=someone@example.com\x01auth=Bearer \x01\x01"))


async def test_a_short_token_goes_inline(connector: Connector) -> None:
    provider = Provider()
    async with at(provider) as account:
        ends(await connector.open_with(account, token_of_line(511)))
    assert len(provider.heard[1]) + 2 == 511
    assert len(provider.heard) == 2


@pytest.mark.parametrize("token", [token_of_line(515), "t" * 3000])
async def test_a_long_token_goes_in_a_line_of_its_own(connector: Connector, token: str) -> None:
    provider = Provider()
    async with at(provider) as account:
        ends(await connector.open_with(account, token))
    assert provider.heard[1] == b"AUTH XOAUTH2"
    assert f"auth=Bearer {token}\x01\x01".encode() in base64.b64decode(provider.heard[2])


async def test_an_error_challenge_is_acknowledged_and_the_refusal_is_read(
    connector: Connector,
) -> None:
    provider = Provider(answers=[CHALLENGE, REFUSED])
    async with at(provider) as account:
        error = await refusal(connector.open_with(account, TOKEN), UpstreamAuthRejected)
    assert isinstance(error, UpstreamAuthRejected)
    assert (error.reply.code, error.reply.enhanced) == (535, "5.7.8")
    assert not error.is_transient
    assert provider.heard[2:3] == [b""], "the challenge was not answered with an empty line"


async def test_a_refused_token_is_replaced_once(connector: Connector, tokens: Tokens) -> None:
    provider = Provider(answers=[CHALLENGE, REFUSED, ACCEPTED])
    async with at(provider) as account:
        ends(await connector.open(account))
    assert tokens.invalidated == ["token-1"]
    assert [one.split(b" ")[1].strip(b"\x01") for one in provider.responses] == [
        b"token-1",
        b"token-2",
    ]
    assert provider.connections == 2


async def test_a_second_refusal_is_final(connector: Connector, tokens: Tokens) -> None:
    provider = Provider(answers=[REFUSED])
    async with at(provider) as account:
        await refusal(connector.open(account), UpstreamAuthRejected)
    assert provider.connections == 2
    assert tokens.invalidated == ["token-1"]


@pytest.mark.parametrize("answer", ["454 4.7.0 Temporary", "432 4.3.2 busy", "421 4.7.0 rate"])
async def test_a_temporary_refusal_costs_no_token(
    connector: Connector, tokens: Tokens, answer: str
) -> None:
    provider = Provider(answers=[answer])
    async with at(provider) as account:
        error = await refusal(connector.open(account), UpstreamAuthRejected)
    assert error.is_transient
    assert tokens.invalidated == []
    assert provider.connections == 1


@pytest.mark.parametrize("extensions", [["PIPELINING"], ["AUTH PLAIN LOGIN"]])
async def test_a_provider_without_xoauth2_is_sent_no_token(
    connector: Connector, tokens: Tokens, extensions: list[str]
) -> None:
    provider = Provider(extensions=extensions)
    async with at(provider) as account:
        error = await refusal(connector.open(account), UpstreamAuthRejected)
    assert error.is_transient
    assert tokens.invalidated == []
    assert not provider.responses


async def test_a_clients_own_token_is_not_replaced(connector: Connector, tokens: Tokens) -> None:
    provider = Provider(answers=[REFUSED])
    async with at(provider) as account:
        await refusal(connector.open_with(account, TOKEN), UpstreamAuthRejected)
    assert provider.connections == 1
    assert tokens.invalidated == []


async def test_no_token_no_connection(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(_self: Tokens, _account: Account) -> AccessToken:
        raise TokenEndpointUnavailable("down")

    monkeypatch.setattr(Tokens, "token_for", none)
    provider = Provider()
    async with at(provider) as account:
        await refusal(connector.open(account), TokenEndpointUnavailable)
    assert provider.connections == 0


async def test_no_error_shows_the_token(connector: Connector) -> None:
    shown = []
    steps: list[Callable[[], Provider]] = [
        lambda: Provider(answers=[REFUSED]),
        lambda: Provider(answers=["no reply at all"]),
        lambda: Provider(greeting="554 no"),
    ]
    for step in steps:
        async with at(step()) as account:
            with pytest.raises(ProxyError) as caught:
                await connector.open_with(account, TOKEN)
            shown.append(repr(caught.value) + str(caught.value))
    assert len(shown) == 3
    assert TOKEN not in "".join(shown)


async def test_a_cancelled_opening_leaves_no_connection_behind(connector: Connector) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await greeted(peer)
        asked.set()
        assert await peer.rest() == b""
        ended.set()

    async with serving(script) as port, asyncio.timeout(PATIENCE_SECONDS):
        account = mailbox(upstream=Upstream("localhost", port, TlsMode.NONE))
        opening = asyncio.create_task(connector.open_with(account, TOKEN))
        await asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await ended.wait()


LONG_TOKEN = "ya29." + "A1b2-C3d4_" * 30
UNASKED = "with a yes behind"
ECHOES = {
    "the line": lambda line: f"500 5.5.1 Unrecognized: {line}",
    "its argument": lambda line: f"535 5.7.8 Refused {line.split()[-1]} at last",
    "in several lines": lambda line: f"535-5.7.8 Refused\r\n535 5.7.8 {line}",
    "decoded": lambda line: "550 " + base64.b64decode(line.split()[-1]).decode(),
    "as an error in passing": lambda line: f"454 4.7.0 Later: {line}",
    UNASKED: lambda line: f"454 4.7.0 Later: {line}\r\n250 2.0.0 {line}",
}


@pytest.mark.parametrize("token", [TOKEN + "x" * 30, LONG_TOKEN, LONG_TOKEN * 3])
@pytest.mark.parametrize("echo", ECHOES)
async def test_a_provider_that_echoes_credentials_spreads_them_nowhere(
    connector: Connector, token: str, echo: str
) -> None:
    async def script(peer: Peer) -> None:
        peer.says("220 provider.example")
        await peer.line()
        peer.says("250-provider.example", "250 AUTH XOAUTH2")
        line = await peer.line()
        if len(line.split()) < 3:
            peer.says("334 ")
            line = await peer.line()
        peer.says(ECHOES[echo](line.decode()).replace("\x01", " "))
        await peer.rest()

    async with serving(script) as port:
        account = mailbox(upstream=Upstream("localhost", port, TlsMode.NONE))
        with pytest.raises(ProxyError) as caught:
            await connector.open_with(account, token)
    error = caught.value
    shown = f"{error} {error!r} {getattr(error, 'reply', '')!r} {traceback_of(error)}"
    credentials = base64.b64encode(f"user={account.email}\x01auth=Bearer {token}".encode()).decode()
    assert token[5:] not in shown
    assert not [at for at in range(0, 40, 4) if credentials[at : at + 24] in shown]


def traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
