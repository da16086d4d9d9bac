"""A program's token manager and a proxy that runs use one grant, whose refresh tokens work once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.rotating_endpoint import RotatingEndpoint
from tests.support.waiting import until
from xoauth2_proxy.errors import GrantRevoked
from xoauth2_proxy.token_manager import BlockingTokenManager, TokenManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess

pytestmark = pytest.mark.one_loop

MAILBOX = "me@example.com"
BEARER = {"Authorization": "Bearer a token of the admin"}
LIFETIME_SECONDS = 0.8
ENOUGH = 12  # requests at the token endpoint


@pytest.fixture
async def endpoint() -> AsyncIterator[RotatingEndpoint]:
    async with RotatingEndpoint(LIFETIME_SECONDS) as running:
        yield running


def document(endpoint: RotatingEndpoint) -> dict[str, object]:
    """Return a proxy's configuration with one mailbox, into which somebody has signed in."""
    return {
        "accounts": [
            {
                "email": MAILBOX,
                "provider": "oidc",
                "password": "p",
                "client_id": "tests",
                "refresh_token": "rt-0",
                "oauth_token_url": f"{endpoint.url}/token",
                "upstream": {"host": "localhost", "port": 2600, "tls": "none"},
            }
        ],
        "admin": {"token": "a token of the admin", "serves_tokens": True},
    }


async def use(endpoint: RotatingEndpoint, http: aiohttp.ClientSession, name: str, at: str) -> None:
    """Use an access token at the mail server, which notes who did."""
    headers = {"Authorization": f"Bearer {at}", "X-Name": name}
    async with http.get(f"{endpoint.url}/mail", headers=headers) as response:
        assert response.status == 200, f"{name} has a token that does not work"


async def test_both_refresh_it_and_neither_costs_the_other_its_grant(
    start_process: StartProcess, endpoint: RotatingEndpoint, tmp_path: Path
) -> None:
    proxy = await start_process(document(endpoint))
    tokens = TokenManager.open(tmp_path / "proxy.json", tmp_path)

    def is_over() -> bool:
        return endpoint.requests >= ENOUGH or endpoint.is_revoked

    async with tokens, aiohttp.ClientSession() as http:

        async def by_proxy() -> None:
            while not is_over():
                url = f"{proxy.admin_url}/accounts/{MAILBOX}/token"
                async with http.get(url, headers=BEARER) as response:
                    answer = await response.json()
                    assert response.status == 200, answer
                await use(endpoint, http, "proxy", answer["access_token"])

        async def by_manager() -> None:
            while not is_over():
                token = await tokens.get_token(MAILBOX)
                await use(endpoint, http, "manager", token.access_token)

        async def by_force() -> None:
            while not is_over():
                token = await tokens.get_token(MAILBOX, force_refresh=True)
                await use(endpoint, http, "manager", token.access_token)
                await asyncio.sleep(LIFETIME_SECONDS / 3)  # the others are to have their turn

        await asyncio.gather(by_proxy(), by_manager(), by_force())
    assert not endpoint.is_revoked, "a refresh token was used twice"
    assert endpoint.at_one_time == 1
    assert {"proxy", "manager"} in endpoint.users.values(), "what one got, the other did not use"
    (file,) = (tmp_path / "tokens").glob(f"{MAILBOX}-*.json")
    assert json.loads(file.read_text())["grant"]["refresh_token"] == endpoint.newest
    assert await proxy.stop() == 0


async def test_what_the_proxy_learns_of_a_grant_the_manager_knows_and_the_other_way_round(
    start_process: StartProcess, endpoint: RotatingEndpoint, tmp_path: Path
) -> None:
    endpoint.lifetime_seconds = 3600.0
    proxy = await start_process(document(endpoint))

    def program() -> str:
        with BlockingTokenManager.open(tmp_path / "proxy.json", tmp_path) as tokens:
            return tokens.get_token("ME@example.com").access_token

    url = f"/accounts/{MAILBOX}/token"
    first = await asyncio.to_thread(program)
    assert json.loads((await proxy.get(url, **BEARER))[1])["access_token"] == first
    assert endpoint.requests == 1
    endpoint.is_revoked = True
    async with TokenManager.open(tmp_path / "proxy.json", tmp_path) as tokens:
        with pytest.raises(GrantRevoked):
            await tokens.get_token(MAILBOX, force_refresh=True)
        assert (await tokens.token_info(MAILBOX)).last_error != ""

    async def is_known() -> bool:
        status, text = await proxy.get(f"/accounts/{MAILBOX}", **BEARER)
        return status == 200 and json.loads(text)["account"]["state"] == "sign_in_needed"

    await until(is_known)
    assert endpoint.requests == 2
