"""From credentials to a login that can also send."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import argon2
import pytest

from tests.support.parts import Parts, parts
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.accounts.local_password import local_password
from xoauth2_proxy.errors import (
    CredentialsRejected,
    GrantRevoked,
    Overloaded,
    TokenEndpointUnavailable,
    TokenError,
    UpstreamAuthRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.smtp.sasl import PasswordLogin, TokenLogin
from xoauth2_proxy.submission import authenticator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.refreshers import ScriptedRefresher

LOGIN = "SOMEONE@example.com"
PASSWORD = "opens sesame"
FOREIGN = "a-token-that-is-not-the-sandboxs"


@pytest.fixture
async def unjudged(tmp_path: Path, refresher: ScriptedRefresher) -> AsyncIterator[Parts]:
    """Parts whose refresher cannot: only the provider tells whether a token is good."""
    async with parts(tmp_path, refresher, max_connections=1, wait_seconds=0.05) as built:
        yield built


# Passwords.


async def test_the_right_password_opens_the_account(made: Parts) -> None:
    login = await made.authenticator.authenticate(PasswordLogin(LOGIN, PASSWORD))
    assert login == Login(made.account, made.account.own_credential)
    assert made.sandbox.counters.connections_opened == 0


@pytest.mark.parametrize(
    ("login", "password"),
    [(LOGIN, "wrong"), (LOGIN, ""), ("nobody@example.com", PASSWORD), ("", "")],
)
async def test_a_wrong_login_or_password_is_rejected(
    made: Parts, login: str, password: str
) -> None:
    with pytest.raises(CredentialsRejected):
        await made.authenticator.authenticate(PasswordLogin(login, password))


@pytest.mark.parametrize("error", [GrantRevoked("x"), TokenEndpointUnavailable("x")])
async def test_a_login_that_could_not_send_is_told_so_at_once(
    unjudged: Parts, refresher: ScriptedRefresher, error: TokenError
) -> None:
    refresher.fails_with = error
    with pytest.raises(type(error)):
        await unjudged.authenticator.authenticate(PasswordLogin(LOGIN, PASSWORD))


async def test_a_wrong_password_asks_for_no_token(
    unjudged: Parts, refresher: ScriptedRefresher
) -> None:
    with pytest.raises(CredentialsRejected):
        await unjudged.authenticator.authenticate(PasswordLogin(LOGIN, "wrong"))
    assert refresher.asked == []


# Tokens that the relay can judge.


async def test_a_good_mock_token_opens_the_account(made: Parts) -> None:
    token = made.sandbox.tokens.mint("someone@example.com")
    login = await made.authenticator.authenticate(TokenLogin(LOGIN, token))
    assert login == Login(made.account)
    assert made.sandbox.counters.connections_opened == 0


@pytest.mark.parametrize("fault", ["expired", "another", "forged"])
async def test_a_mock_token_that_is_not_the_logins_is_rejected(made: Parts, fault: str) -> None:
    token = {
        "expired": made.sandbox.tokens.mint("someone@example.com", ttl_seconds=-1.0),
        "another": made.sandbox.tokens.mint("other@example.com"),
        "forged": made.sandbox.tokens.mint("someone@example.com")[:-2] + "AA",
    }[fault]
    with pytest.raises(CredentialsRejected) as caught:
        await made.authenticator.authenticate(TokenLogin(LOGIN, token))
    assert token not in str(caught.value)


# Tokens that only the provider can judge.


async def test_a_token_the_provider_accepts_opens_the_account_and_a_connection(
    unjudged: Parts, refresher: ScriptedRefresher
) -> None:
    token = unjudged.sandbox.tokens.mint("someone@example.com")
    login = await unjudged.authenticator.authenticate(TokenLogin(LOGIN, token))
    assert (login.account, login.access_token) == (unjudged.account, token)
    assert unjudged.sandbox.counters.auth_accepted == 1
    assert repr(unjudged.pool) == "<Pool 0 leased or opening, 1 idle, 0 waiting>"
    assert refresher.asked == []
    assert token not in repr(login)


async def test_a_token_is_tried_although_a_connection_is_idle(unjudged: Parts) -> None:
    token = unjudged.sandbox.tokens.mint("someone@example.com")
    await unjudged.authenticator.authenticate(TokenLogin(LOGIN, token))
    with pytest.raises(UpstreamAuthRejected):
        await unjudged.authenticator.authenticate(TokenLogin(LOGIN, FOREIGN))
    assert unjudged.sandbox.counters.auth_refused == 1


async def test_a_token_the_provider_refuses_is_rejected(unjudged: Parts) -> None:
    with pytest.raises(UpstreamAuthRejected) as caught:
        await unjudged.authenticator.authenticate(TokenLogin(LOGIN, FOREIGN))
    assert not caught.value.is_transient
    assert repr(unjudged.pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


async def test_a_token_of_an_unknown_login_goes_nowhere(unjudged: Parts) -> None:
    with pytest.raises(CredentialsRejected):
        await unjudged.authenticator.authenticate(TokenLogin("nobody@example.com", "t"))
    assert unjudged.sandbox.counters.connections_opened == 0


@pytest.mark.parametrize("kind", ["clear text", "hash"])
async def test_the_local_password_in_the_place_of_a_token_is_a_password_and_goes_nowhere(
    unjudged: Parts, kind: str
) -> None:
    """Several libraries send `auth=Bearer <password>` when they are told to use XOAUTH2."""
    password = PASSWORD if kind == "clear text" else argon2.PasswordHasher().hash(PASSWORD)
    changed = replace(unjudged.account, password=local_password(password))
    await unjudged.accounts.replace([changed])
    login = await unjudged.authenticator.authenticate(TokenLogin(LOGIN, PASSWORD))
    assert (login.account, login.access_token) == (changed, "")
    for wrong in ("opens Sesame", "opens-sesame-of-another"):
        with pytest.raises((CredentialsRejected, UpstreamAuthRejected)):
            await unjudged.authenticator.authenticate(TokenLogin(LOGIN, wrong))
    assert unjudged.sandbox.counters.auth_accepted == 0


@pytest.mark.parametrize("text", ["x", "hunter2", "correct horse battery staple!", "Grüße" * 9])
async def test_what_has_no_form_of_a_token_goes_nowhere(unjudged: Parts, text: str) -> None:
    with pytest.raises(CredentialsRejected):
        await unjudged.authenticator.authenticate(TokenLogin(LOGIN, text))
    assert unjudged.sandbox.counters.connections_opened == 0


async def test_a_token_cannot_be_judged_while_the_provider_is_away(unjudged: Parts) -> None:
    unjudged.sandbox.add_fault(Fault(Step.CONNECT, Action.DROP))
    with pytest.raises(UpstreamUnavailable):
        await unjudged.authenticator.authenticate(TokenLogin(LOGIN, FOREIGN))


async def test_a_token_cannot_be_judged_while_every_connection_is_busy(unjudged: Parts) -> None:
    good, new = (unjudged.sandbox.tokens.mint("someone@example.com") for _ in range(2))
    login = await unjudged.authenticator.authenticate(TokenLogin(LOGIN, good))

    async def never() -> object:
        raise AssertionError("the kept connection was not taken")

    async with unjudged.pool.lease(
        unjudged.account,
        never,  # type: ignore[arg-type]
        credential=login.token_digest,
    ):
        with pytest.raises(Overloaded):
            await unjudged.authenticator.authenticate(TokenLogin(LOGIN, new))
        # One that was proved needs no connection to be believed.
        await unjudged.authenticator.authenticate(TokenLogin(LOGIN, good))
    assert unjudged.sandbox.counters.auth_accepted == 1


async def test_a_proved_token_is_believed_for_a_while_and_then_tried_again(
    unjudged: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = unjudged.sandbox.tokens.mint("someone@example.com")
    for _ in range(3):
        await unjudged.authenticator.authenticate(TokenLogin(LOGIN, token))
    assert unjudged.sandbox.counters.auth_accepted == 1
    monkeypatch.setattr(authenticator, "_PROOF_SECONDS", -1.0)
    await unjudged.authenticator.authenticate(TokenLogin(LOGIN, token))
    assert unjudged.sandbox.counters.auth_accepted == 2


async def test_a_token_that_was_refused_is_not_believed_afterwards(unjudged: Parts) -> None:
    for _ in range(2):
        with pytest.raises(UpstreamAuthRejected):
            await unjudged.authenticator.authenticate(TokenLogin(LOGIN, FOREIGN))
    assert unjudged.sandbox.counters.auth_refused == 2


async def test_tokens_of_one_account_are_proved_one_at_a_time(
    tmp_path: Path, refresher: ScriptedRefresher
) -> None:
    async with parts(tmp_path, refresher, max_connections=10) as made:
        made.sandbox.add_fault(Fault(Step.AUTH, Action.DELAY, nth=None, seconds=0.02))
        tokens = [made.sandbox.tokens.mint("someone@example.com") for _ in range(4)]
        logins = [made.authenticator.authenticate(TokenLogin(LOGIN, one)) for one in tokens]
        attempts = [asyncio.create_task(login) for login in logins]
        for number in range(1, 5):
            await made.sandbox.arrived(Step.AUTH, number)
            assert made.sandbox.arrivals(Step.CONNECT) == number
        assert [one.access_token for one in await asyncio.gather(*attempts)] == tokens
