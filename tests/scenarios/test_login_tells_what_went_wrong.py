"""What a client hears at AUTH: its own mistake, the mailbox's dead grant, or passing trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.documents import account, one_account
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.smtp_client import encoded, message
from tests.support.token_scripts import WrittenRefresher
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointRefused, TokenEndpointUnavailable
from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.errors import TokenError
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.smtp.protocol import Reply

    LogIn = Callable[[Client, str, str], Awaitable[Reply]]

ATTEMPTS = "xoauth2_proxy_auth_attempts_total"


async def plain_at_once(client: Client, login: str, password: str) -> Reply:
    return await client.auth_plain(login, password)


async def plain_in_two_steps(client: Client, login: str, password: str) -> Reply:
    assert (await client.command("auth plain")).code == 334
    return await client.command(encoded(f"\0{login}\0{password}"))


async def login_at_once(client: Client, login: str, password: str) -> Reply:
    challenge = await client.command(f"AUTH LOGIN {encoded(login)}")
    assert str(challenge) == "334 " + encoded("Password:")
    return await client.command(encoded(password))


async def login_in_two_steps(client: Client, login: str, password: str) -> Reply:
    challenge = await client.command("Auth Login")
    assert str(challenge) == "334 " + encoded("Username:")
    assert str(await client.command(encoded(login))) == "334 " + encoded("Password:")
    return await client.command(encoded(password))


WAYS = (plain_at_once, plain_in_two_steps, login_at_once, login_in_two_steps)


@pytest.mark.parametrize("way", WAYS)
async def test_a_wrong_password_and_an_unknown_login_are_told_alike(
    relay: Relay, way: LogIn
) -> None:
    async with await relay.connect() as client:
        await client.ehlo()
        wrong = await way(client, MAILBOX, "guess")
        unknown = await way(client, "nobody@example.com", PASSWORD)
        empty = await way(client, MAILBOX, "")
        assert str(wrong) == "535 5.7.8 Authentication credentials invalid"
        assert wrong == unknown == empty
        assert str(await client.command("MAIL FROM:<a@b>")) == "530 5.7.0 Authentication required"
        assert (await way(client, MAILBOX, PASSWORD)).code == 235
        assert (await client.send(message())).code == 250
    mechanism = way.__name__.partition("_")[0].upper()
    assert await relay.metric(ATTEMPTS, mechanism=mechanism, result="rejected") == 3
    assert await relay.metric(ATTEMPTS, mechanism=mechanism, result="ok") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_the_login_is_known_in_any_letter_case(relay: Relay, way: LogIn) -> None:
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await way(client, "Test.Account1@GMail.COM", PASSWORD)).code == 235
        assert (await client.send(message())).code == 250
    (kept,) = relay.sandbox.received
    assert kept.mailbox == MAILBOX


async def test_the_password_of_one_mailbox_opens_no_other(start_relay: StartRelay) -> None:
    mine, other = account(password="my own"), account(OTHER_MAILBOX, password="another")
    relay = await start_relay({"accounts": [mine, other]})
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, "another")).code == 535
        assert (await client.auth_plain(OTHER_MAILBOX, "my own")).code == 535
        assert (await client.auth_plain(MAILBOX, "My own")).code == 535
        assert (await client.auth_plain(MAILBOX, "my own")).code == 235


async def test_who_keeps_guessing_is_shown_out(relay: Relay) -> None:
    async with await relay.connect() as client:
        await client.ehlo()
        answers = [await client.auth_plain(MAILBOX, f"guess {number}") for number in range(5)]
        assert {answer.code for answer in answers} == {535}
        assert str(await client.reply()) == "421 4.7.0 Too many authentication failures"
        assert await client.closed()


@pytest.mark.parametrize(
    ("error", "told", "result"),
    [
        (
            TokenEndpointUnavailable("timed out"),
            "454 4.7.0 Temporary authentication failure",
            "unavailable",
        ),
        (
            TokenEndpointRefused("invalid_client"),
            "454 4.7.0 Temporary authentication failure",
            "refused",
        ),
        (
            GrantRevoked("invalid_grant"),
            "535 5.7.8 The mailbox must be signed in at the relay",
            "revoked",
        ),
    ],
)
async def test_a_right_password_without_a_token_is_not_let_in(
    start_relay: StartRelay, error: TokenError, told: str, result: str
) -> None:
    refresher = WrittenRefresher(error)
    relay = await start_relay(one_account(), refreshers={"mock": refresher})
    async with await relay.connect() as client:
        await client.ehlo()
        assert str(await client.auth_plain(MAILBOX, PASSWORD)) == told
        assert (await client.command("MAIL FROM:<a@b>")).code == 530
    assert refresher.requests == 1
    assert relay.sandbox.counters.connections_opened == 0
    assert await relay.metric("xoauth2_proxy_token_refreshes_total", result=result) == 1


async def test_a_wrong_password_asks_for_no_token(start_relay: StartRelay) -> None:
    refresher = WrittenRefresher(GrantRevoked("invalid_grant"))
    relay = await start_relay(one_account(), refreshers={"mock": refresher})
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, "guess")).code == 535
    assert refresher.requests == 0


async def test_a_mailbox_with_a_dead_grant_holds_up_no_other(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    document: dict[str, object] = {
        "accounts": [account(), account("dead@example.com", provider="dead")],
        "providers": {"dead": {"refresher": "dead", "upstream": {"host": "localhost", "port": 1}}},
    }
    refreshers: dict[str, Refresher] = {
        "mock": MockRefresher(MockTokens(load_signing_key(tmp_path))),
        "dead": WrittenRefresher(GrantRevoked("invalid_grant")),
    }
    relay = await start_relay(document, refreshers=refreshers)
    async with await relay.connect() as unlucky:
        await unlucky.ehlo()
        assert (await unlucky.auth_plain("dead@example.com", PASSWORD)).code == 535
    async with await relay.log_in() as client:
        assert (await client.send(message())).code == 250
