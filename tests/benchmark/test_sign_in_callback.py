from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from bench.sign_in.authorization_server import ProviderError, SignInFailed
from bench.sign_in.callback_server import CallbackServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ISSUER = "http://127.0.0.1:2601"


@pytest.fixture
async def callback() -> AsyncIterator[CallbackServer]:
    async with CallbackServer() as served:
        yield served


async def visit(url: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.text()


async def test_each_user_gets_the_code_that_came_with_their_state(callback: CallbackServer) -> None:
    users = [callback.expect() for _ in range(3)]
    for number in (2, 0, 1):
        status, page = await visit(f"{callback.url}?code=code{number}&state={users[number].state}")
        assert status == 200
        assert "Signed in" in page
        assert "code" not in page
    assert [await one.code(ISSUER) for one in users] == ["code0", "code1", "code2"]


async def test_a_state_is_good_once(callback: CallbackServer) -> None:
    user = callback.expect()
    address = f"{callback.url}?code=first&state={user.state}"
    assert (await visit(address))[0] == 200
    assert (await visit(address.replace("first", "second")))[0] == 400
    assert await user.code(ISSUER) == "first"


@pytest.mark.parametrize(
    "query",
    ["code=c", "code=c&state=", "code=c&state=unknown", "state={0}", "code=c&code=d&state={0}"],
)
async def test_an_answer_without_the_state_or_the_code_counts_for_nobody(
    callback: CallbackServer, query: str
) -> None:
    user = callback.expect()
    assert (await visit(f"{callback.url}?{query.format(user.state)}"))[0] == 400
    assert not user.has_come
    assert (await visit(f"{callback.url}?code=c&state={user.state}"))[0] == 200


async def test_a_state_that_is_no_longer_expected_is_refused(callback: CallbackServer) -> None:
    user = callback.expect()
    callback.forget(user)
    assert (await visit(f"{callback.url}?code=c&state={user.state}"))[0] == 400


async def test_a_refusal_is_the_users_error(callback: CallbackServer) -> None:
    user = callback.expect()
    query = f"error=access_denied&error_description=The%20person%20said%1Bno&state={user.state}"
    status, page = await visit(f"{callback.url}?{query}")
    assert (status, "Not signed in" in page) == (200, True)
    with pytest.raises(SignInFailed, match="access_denied: The person saidno"):
        await user.code(ISSUER)


async def test_the_answer_of_another_issuer_is_refused(callback: CallbackServer) -> None:
    user = callback.expect()
    await visit(f"{callback.url}?code=c&iss=http%3A%2F%2Felsewhere&state={user.state}")
    with pytest.raises(SignInFailed, match="another issuer"):
        await user.code(ISSUER)


async def test_other_paths_and_names_are_not_served(callback: CallbackServer) -> None:
    user = callback.expect()
    for url, headers in (
        (f"http://127.0.0.1:{callback.port}/?code=c&state={user.state}", {}),
        (f"{callback.url}?code=c&state={user.state}", {"Host": "rebound.test"}),
    ):
        assert (await visit(url, **headers))[0] == 404
    assert not user.has_come


async def test_a_port_that_is_taken_is_named_with_the_option() -> None:
    async with CallbackServer() as first:
        with pytest.raises(ProviderError, match=f"Port {first.port} .* --callback-port"):
            async with CallbackServer(first.port):
                pytest.fail("it listens")


async def test_nothing_listens_any_more_afterwards() -> None:
    async with CallbackServer() as served:
        port = served.port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
