"""Two processes use one grant whose refresh tokens work once; neither costs the other its grant."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.rotating_endpoint import RotatingEndpoint
from tests.support.store_places import REDIS, Place, place_of
from tests.support.token_user import TokenUser, token_user
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.one_loop

LIFETIME_SECONDS = 0.8
RENEWALS = {"tokens": 4, "renewals": 20}


@pytest.fixture(params=["file", REDIS])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(str(request.param), tmp_path) as made:
        yield made


@pytest.fixture
async def endpoint() -> AsyncIterator[RotatingEndpoint]:
    async with RotatingEndpoint(LIFETIME_SECONDS) as running:
        yield running


@pytest.fixture
async def users(
    place: Place, endpoint: RotatingEndpoint
) -> AsyncIterator[tuple[TokenUser, TokenUser]]:
    where = (place.kind, place.where, endpoint.url)
    async with token_user("one", *where) as one, token_user("two", *where) as two:
        yield one, two


async def until_good(user: TokenUser) -> None:
    """Return when it has used a token. `ValueError`: it ended instead."""
    while (line := await user.line()) != "good":
        if not line:
            raise ValueError("it ended")


@pytest.mark.parametrize("what", ["tokens", "renewals"])
async def test_one_at_a_time_asks_and_both_have_tokens(
    users: tuple[TokenUser, TokenUser], endpoint: RotatingEndpoint, what: str
) -> None:
    """`tokens`: as messages ask for them; `renewals`: as fast as two operators can."""

    def is_enough() -> bool:
        return endpoint.requests >= RENEWALS[what] or endpoint.is_revoked

    for user in users:
        user.use(what)
    await until(is_enough)
    results = [await user.end() for user in users]
    assert not endpoint.is_revoked, "a refresh token was used twice"
    assert endpoint.at_one_time == 1
    assert [errors for _, errors in results] == [[], []]
    assert all(good > 0 for good, _ in results)
    if what == "tokens":
        assert {"one", "two"} in endpoint.users.values(), "what one got, the other did not use"


async def test_a_process_killed_while_it_asks_is_stepped_in_for(
    users: tuple[TokenUser, TokenUser], place: Place, endpoint: RotatingEndpoint
) -> None:
    killed, other = users
    endpoint.holds = "before"
    killed.use("tokens")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await endpoint.is_holding.wait()
    other.use("tokens")
    assert await other.line() == "asking"
    await killed.kill()
    await until_good(other)
    good, errors = await other.end()
    assert good > 0
    assert errors == []
    assert not endpoint.is_revoked


async def test_an_answer_that_died_with_its_process_needs_a_person(
    users: tuple[TokenUser, TokenUser], endpoint: RotatingEndpoint
) -> None:
    """No store can keep what never arrived; it is told as what it is, and not tried on and on."""
    killed, other = users
    endpoint.holds = "after"
    killed.use("tokens")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await endpoint.is_holding.wait()
    await killed.kill()
    other.use("tokens")
    assert await other.line() == "asking"
    assert await other.end() == (0, ["GrantRevoked"])
    assert endpoint.requests == 2
