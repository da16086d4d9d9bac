"""Access tokens: one refresh at a time, and a token that still works while none can be had."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.refreshers import ScriptedRefresher
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth import source as source_module
from xoauth2_proxy.oauth.grant import AccessToken, Monotonic
from xoauth2_proxy.oauth.source import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ACCOUNT = mailbox("Someone@example.com")
OTHER = mailbox("other@example.com")
WAIT_SECONDS = 5.0


class Clock:
    """Time as the token source sees it, ahead of the real one by as much as a test says."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(source_module, "time", made)
    return made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def refresher() -> ScriptedRefresher:
    return ScriptedRefresher()


@pytest.fixture
async def source(refresher: ScriptedRefresher, metrics: Metrics) -> AsyncIterator[TokenSource]:
    made = TokenSource({"mock": refresher}, metrics)
    yield made
    await made.close()


def refreshes(metrics: Metrics, result: str) -> float:
    labels = {"provider": "mock", "result": result}
    return metrics.registry.get_sample_value("xoauth2_proxy_token_refreshes_total", labels) or 0.0


# One refresh.


async def test_50_concurrent_calls_share_one_refresh(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    calls = [asyncio.create_task(source.token_for(ACCOUNT)) for _ in range(50)]
    await refresher.is_asked.wait()
    refresher.may_answer.set()
    tokens = await asyncio.gather(*calls)
    assert len(refresher.asked) == 1
    assert all(token is tokens[0] for token in tokens)


async def test_a_token_is_kept_until_it_must_be_renewed(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    first = await source.token_for(ACCOUNT)
    clock.ahead_seconds = 3290.0
    assert await source.token_for(ACCOUNT) is first
    clock.ahead_seconds = 3310.0  # less than 5 minutes are left
    assert (await source.token_for(ACCOUNT)).value == "token-2"
    assert len(refresher.asked) == 2


async def test_accounts_have_tokens_of_their_own_whatever_the_letter_case(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    one, other = await source.token_for(ACCOUNT), await source.token_for(OTHER)
    assert one is not other
    assert await source.token_for(mailbox("SOMEONE@EXAMPLE.COM")) is one
    assert refresher.asked == ["Someone@example.com", "other@example.com"]


async def test_accounts_do_not_wait_for_each_other(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    calls = [asyncio.create_task(source.token_for(one)) for one in (ACCOUNT, OTHER)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(refresher.asked) == 2
    refresher.may_answer.set()
    await asyncio.gather(*calls)


async def test_cancelling_a_caller_does_not_cancel_the_refresh(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    first, second = (asyncio.create_task(source.token_for(ACCOUNT)) for _ in range(2))
    await refresher.is_asked.wait()
    first.cancel()
    await asyncio.wait([first])
    refresher.may_answer.set()
    assert (await second).value == "token-1"
    assert refresher.cancelled == 0


async def test_a_refresh_ends_well_although_every_caller_is_gone(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    call.cancel()
    await asyncio.wait([call])
    refresher.may_answer.set()
    assert (await source.token_for(ACCOUNT)).value == "token-1"
    assert len(refresher.asked) == 1


async def test_a_failed_refresh_nobody_waits_for_is_no_unhandled_error(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    call.cancel()
    await asyncio.wait([call])
    refresher.fails_with = GrantRevoked("invalid_grant")
    refresher.may_answer.set()
    with pytest.raises(GrantRevoked):
        await source.token_for(ACCOUNT)
    assert complaints == []


# Errors.


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (GrantRevoked("invalid_grant"), "revoked"),
        (TokenEndpointRefused("invalid_client"), "refused"),
        (TokenEndpointUnavailable("503"), "unavailable"),
        (TokenError("other"), "error"),
        (ValueError("broken"), "error"),
    ],
)
async def test_an_error_reaches_every_caller_and_is_counted_once(
    source: TokenSource,
    refresher: ScriptedRefresher,
    metrics: Metrics,
    error: Exception,
    result: str,
) -> None:
    refresher.may_answer.clear()
    refresher.fails_with = error
    calls = [asyncio.create_task(source.token_for(ACCOUNT)) for _ in range(10)]
    await refresher.is_asked.wait()
    refresher.may_answer.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert ends == [error] * 10
    assert len(refresher.asked) == 1
    assert refreshes(metrics, result) == 1


async def test_an_error_is_not_remembered(
    source: TokenSource, refresher: ScriptedRefresher, metrics: Metrics
) -> None:
    refresher.fails_with = TokenEndpointUnavailable("503")
    with pytest.raises(TokenEndpointUnavailable):
        await source.token_for(ACCOUNT)
    refresher.fails_with = None
    assert (await source.token_for(ACCOUNT)).value == "token-2"
    assert refreshes(metrics, "ok") == 1


async def test_a_refresher_that_is_not_there_is_the_operators_matter(metrics: Metrics) -> None:
    with pytest.raises(TokenEndpointRefused, match="'mock'"):
        await TokenSource({}, metrics).token_for(ACCOUNT)


async def test_while_the_endpoint_is_in_trouble_the_old_token_serves_to_its_end(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    first = await source.token_for(ACCOUNT)
    refresher.fails_with = TokenEndpointUnavailable("503")
    for ahead_seconds in (3310.0, 3590.0):
        clock.ahead_seconds = ahead_seconds
        assert await source.token_for(ACCOUNT) is first
    clock.ahead_seconds = 3601.0
    with pytest.raises(TokenEndpointUnavailable):
        await source.token_for(ACCOUNT)
    assert len(refresher.asked) == 4, "the endpoint was not asked again"


@pytest.mark.parametrize("error", [GrantRevoked("invalid_grant"), TokenEndpointRefused("x")])
async def test_a_permanent_error_is_told_although_the_old_token_is_still_valid(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock, error: TokenError
) -> None:
    await source.token_for(ACCOUNT)
    refresher.fails_with = error
    clock.ahead_seconds = 3310.0
    with pytest.raises(type(error)):
        await source.token_for(ACCOUNT)


# Forgetting, and the end.


async def test_a_refused_token_is_forgotten_once(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    first = await source.token_for(ACCOUNT)
    other = await source.token_for(OTHER)
    source.invalidate(ACCOUNT, first)
    second = await source.token_for(ACCOUNT)
    assert second is not first
    source.invalidate(ACCOUNT, first)  # another connection reports it late
    assert await source.token_for(ACCOUNT) is second
    assert await source.token_for(OTHER) is other
    assert len(refresher.asked) == 3


async def test_closing_cancels_refreshes_and_waits_for_them(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    async with asyncio.timeout(WAIT_SECONDS):
        await source.close()
    assert refresher.cancelled == 1
    await asyncio.wait([call])


@pytest.mark.parametrize(("lifetime", "margin"), [(3600.0, 300.0), (600.0, 60.0), (10.0, 1.0)])
def test_a_token_is_renewed_before_its_end(lifetime: float, margin: float) -> None:
    token = AccessToken.issued("ya29.secret", Monotonic(1000.0), lifetime)
    assert token.expires_at == 1000.0 + lifetime
    assert token.refresh_at == token.expires_at - margin
    assert "secret" not in repr(token)
