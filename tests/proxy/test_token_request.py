"""One request to a refresher: whatever a plug-in does, an answer or a `TokenError` comes out."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.refreshers import Clock, ScriptedRefresher, signed_in
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import Grant, TokenResponse
from xoauth2_proxy.oauth.token_request import TokenRequests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.grant import Monotonic

ACCOUNT = signed_in()
AT_ONCE = 4


class Plugin:
    """A refresher made of one function."""

    def __init__(self, refresh: Callable[[], Awaitable[Any]]) -> None:
        self._refresh = refresh

    async def refresh(self, grant: Grant) -> TokenResponse:
        return await self._refresh()  # type: ignore[no-any-return]


class Desk:
    """Asks as the renewals do."""

    def __init__(self) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        self.refresher = ScriptedRefresher()
        self.token_requests = TokenRequests({"mock": self.refresher}, self.metrics, self.clock)

    async def ask(self, account: Account = ACCOUNT) -> tuple[TokenResponse, Monotonic]:
        grant = Grant(mailbox=account.email, client=account.oauth, refresh_token="refresh-0")
        return await self.token_requests.ask(account, grant)

    async def ask_plugin(self, refresh: Callable[[], Awaitable[Any]]) -> TokenResponse:
        self.token_requests.refreshers = {"mock": Plugin(refresh)}
        return (await self.ask())[0]

    def requests(self, result: str) -> float:
        labels = {"provider": "mock", "result": result}
        name = "xoauth2_proxy_token_refreshes_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def desk() -> Desk:
    return Desk()


def several(count: int, host: str) -> list[Account]:
    endpoint = f"https://{host}/token"
    return [signed_in(f"{n}@{host}", token_endpoint=endpoint) for n in range(count)]


async def test_four_at_a_time_ask_one_token_host(desk: Desk) -> None:
    desk.refresher.may_answer.clear()
    calls = [asyncio.create_task(desk.ask(one)) for one in several(10, "one.example")]
    other = asyncio.create_task(desk.ask(several(1, "other.example")[0]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.refresher.at_once == AT_ONCE + 1, "another host waits too"
    desk.refresher.may_answer.set()
    await asyncio.gather(*calls, other)
    assert desk.refresher.peak == AT_ONCE + 1
    assert desk.requests("ok") == 11


async def test_providers_without_a_configured_host_are_counted_by_their_refresher(
    desk: Desk,
) -> None:
    desk.refresher.may_answer.clear()
    calls = [asyncio.create_task(desk.ask(signed_in(f"{n}@example.com"))) for n in range(10)]
    await asyncio.sleep(0)
    assert desk.refresher.at_once == AT_ONCE
    desk.refresher.may_answer.set()
    await asyncio.gather(*calls)


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop's clock cannot be moved
async def test_who_waits_too_long_for_a_seat_is_told_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", desk.clock.monotonic)
    desk.refresher.may_answer.clear()
    calls = [asyncio.create_task(desk.ask()) for _ in range(AT_ONCE + 1)]
    await asyncio.sleep(0)
    desk.clock.ahead_seconds += 13.0
    with pytest.raises(TokenEndpointUnavailable, match="too many requests are waiting for mock"):
        await calls.pop()
    desk.refresher.may_answer.set()
    await asyncio.gather(*calls)
    assert (await desk.ask())[0].access_token, "a seat was lost"


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_refresher_that_hangs_is_left_after_half_a_minute(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", desk.clock.monotonic)
    desk.refresher.may_answer.clear()
    call = asyncio.create_task(desk.ask())
    await desk.refresher.is_asked.wait()
    desk.clock.ahead_seconds += 31.0
    with pytest.raises(TokenEndpointUnavailable, match="no answer in time"):
        await call
    assert desk.refresher.cancelled == 1
    assert desk.requests("unavailable") == 1


async def test_a_token_lives_from_the_moment_it_was_asked_for(desk: Desk) -> None:
    desk.refresher.may_answer.clear()
    before = desk.clock.monotonic()
    call = asyncio.create_task(desk.ask())
    await desk.refresher.is_asked.wait()
    desk.clock.ahead_seconds += 20.0
    desk.refresher.may_answer.set()
    _, asked_at = await call
    assert before <= asked_at <= before + 5.0
    name = "xoauth2_proxy_token_refresh_duration_seconds_sum"
    took = desk.metrics.registry.get_sample_value(name, {"provider": "mock"})
    assert took is not None
    assert took >= 20.0


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (GrantRevoked("invalid_grant"), "revoked"),
        (TokenEndpointRefused("invalid_client"), "refused"),
        (TokenEndpointUnavailable("503"), "unavailable"),
        (TokenError("other"), "error"),
    ],
)
async def test_a_refreshers_own_words_pass_and_are_counted(
    desk: Desk, error: TokenError, result: str
) -> None:
    desk.refresher.fails_with = error
    with pytest.raises(TokenError) as caught:
        await desk.ask()
    assert caught.value is error
    assert desk.requests(result) == 1


async def test_a_subclass_of_an_error_is_counted_as_its_family(desk: Desk) -> None:
    class PasswordChanged(GrantRevoked):
        """A plug-in's own."""

    desk.refresher.fails_with = PasswordChanged("yesterday")
    with pytest.raises(PasswordChanged):
        await desk.ask()
    assert desk.requests("revoked") == 1


async def test_what_a_plug_in_throws_is_told_by_its_kind_and_place_alone(desk: Desk) -> None:
    async def broken() -> None:
        raise KeyError("refresh_token=1//secret")

    with pytest.raises(TokenEndpointRefused) as caught:
        await desk.ask_plugin(broken)
    told = r"the refresher failed with KeyError in test_token_request\.py, line \d+"
    assert re.fullmatch(told, str(caught.value))
    assert caught.value.__cause__ is None
    assert desk.requests("refused") == 1


async def test_a_refresher_whose_threads_were_taken_away_cancels_nobody(desk: Desk) -> None:
    async def stopped() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(TokenEndpointUnavailable, match="stopped"):
        await desk.ask_plugin(stopped)


async def test_cancelling_reaches_the_refresher_and_frees_the_seat(desk: Desk) -> None:
    desk.refresher.may_answer.clear()
    calls = [asyncio.create_task(desk.ask()) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert desk.refresher.cancelled == AT_ONCE
    desk.refresher.may_answer.set()
    assert (await desk.ask())[0].access_token == "token-5"


async def test_a_refresher_that_is_not_there_is_the_operators_matter(desk: Desk) -> None:
    desk.token_requests.refreshers = {}
    with pytest.raises(TokenEndpointRefused, match="'mock'"):
        await desk.ask()


async def test_who_waits_for_a_seat_while_the_relay_stops_asks_no_more(desk: Desk) -> None:
    desk.refresher.may_answer.clear()
    calls = [asyncio.create_task(desk.ask()) for _ in range(AT_ONCE + 3)]
    await asyncio.sleep(0)
    desk.token_requests.is_stopping = True
    desk.refresher.may_answer.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert len(desk.refresher.asked) == AT_ONCE
    assert sum(isinstance(end, TokenEndpointUnavailable) for end in ends) == 3
