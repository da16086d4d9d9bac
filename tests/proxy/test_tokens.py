"""Access tokens: one renewal at a time, and a token that still works while none can be had."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.fragile_store import FragileStore
from tests.support.refreshers import Clock, ScriptedRefresher, signed_in
from tests.support.waiting import until
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from xoauth2_proxy.metrics import Metrics

ACCOUNT = mailbox("Someone@example.com")
OTHER = mailbox("other@example.com")


def refreshes(metrics: Metrics, result: str) -> float:
    labels = {"provider": "mock", "result": result}
    return metrics.registry.get_sample_value("xoauth2_proxy_token_refreshes_total", labels) or 0.0


async def renewed(source: TokenSource, refresher: ScriptedRefresher, requests: int) -> None:
    """Wait until a renewal that nobody waits for has ended."""
    await until(lambda: len(refresher.asked) == requests and not refresher.at_once)
    await asyncio.sleep(0.01)


# One renewal.


async def test_500_concurrent_calls_share_one_renewal(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    calls = [asyncio.create_task(source.token_for(ACCOUNT)) for _ in range(500)]
    await refresher.is_asked.wait()
    refresher.may_answer.set()
    tokens = await asyncio.gather(*calls)
    assert len(refresher.asked) == 1
    assert all(token is tokens[0] for token in tokens)


async def test_a_token_is_renewed_behind_the_scenes_ten_minutes_before_its_end(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    first = await source.token_for(ACCOUNT)
    clock.ahead_seconds = 2990.0
    assert await source.token_for(ACCOUNT) is first
    clock.ahead_seconds = 3010.0
    refresher.may_answer.clear()
    for _ in range(10):
        assert await source.token_for(ACCOUNT) is first, "a client had to wait"
    await until(lambda: len(refresher.asked) == 2)
    refresher.may_answer.set()
    await renewed(source, refresher, 2)
    assert (await source.token_for(ACCOUNT)).value == "token-2"
    assert len(refresher.asked) == 2


async def test_a_token_in_its_last_minute_is_not_given_out_while_another_can_be_had(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    clock.ahead_seconds = 3541.0
    assert (await source.token_for(ACCOUNT)).value == "token-2"


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
    await until(lambda: len(refresher.asked) == 2)
    refresher.may_answer.set()
    await asyncio.gather(*calls)


async def test_cancelling_a_caller_does_not_cancel_the_renewal(
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


async def test_a_renewal_ends_well_although_every_caller_is_gone(
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


async def test_a_failed_renewal_nobody_waits_for_is_no_unhandled_error(
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
    await renewed(source, refresher, 1)
    refresher.fails_with = None
    del call  # its stack frames know the renewal
    gc.collect()
    assert complaints == []


# A token that still works is given out while no new one can be had.


async def test_while_the_endpoint_is_in_trouble_the_old_token_serves_to_its_end(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    first = await source.token_for(ACCOUNT)
    refresher.fails_with = TokenEndpointUnavailable("503")
    for ahead_seconds in (3010.0, 3545.0, 3598.0):
        clock.ahead_seconds = ahead_seconds
        for _ in range(20):
            assert await source.token_for(ACCOUNT) is first
            await asyncio.sleep(0)
    assert len(refresher.asked) == 4
    clock.ahead_seconds = 3601.0
    with pytest.raises(TokenEndpointUnavailable):
        await source.token_for(ACCOUNT)
    refresher.fails_with = None
    clock.ahead_seconds += 10.0
    assert (await source.token_for(ACCOUNT)).value == f"token-{len(refresher.asked)}"


async def test_while_the_store_is_in_trouble_the_old_token_serves_to_its_end(
    refresher: ScriptedRefresher, metrics: Metrics, clock: Clock
) -> None:
    store = FragileStore()
    source = TokenSource({"mock": refresher}, metrics, store, clock)
    first = await source.token_for(signed_in())
    store.is_readable = False
    clock.ahead_seconds = 3598.0
    assert await source.token_for(signed_in()) is first
    clock.ahead_seconds = 3601.0
    with pytest.raises(TokenStoreUnavailable):
        await source.token_for(signed_in())
    store.is_readable = True
    clock.ahead_seconds += 10.0
    assert (await source.token_for(signed_in())).value == "token-2"
    await source.close()


async def test_a_token_that_ended_while_one_waited_is_not_given_out(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    clock.ahead_seconds = 3590.0
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await until(lambda: len(refresher.asked) == 2)
    clock.ahead_seconds = 3601.0
    refresher.fails_with = TokenEndpointUnavailable("timed out")
    refresher.may_answer.set()
    with pytest.raises(TokenEndpointUnavailable):
        await call


async def test_a_token_that_was_refused_while_one_waited_is_not_given_out(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    first = await source.token_for(ACCOUNT)
    clock.ahead_seconds = 3550.0
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await until(lambda: len(refresher.asked) == 2)
    assert source.invalidate(ACCOUNT, first)
    refresher.fails_with = TokenEndpointUnavailable("503")
    refresher.may_answer.set()
    with pytest.raises(TokenEndpointUnavailable):
        await call


@pytest.mark.parametrize("error", [GrantRevoked("invalid_grant"), TokenEndpointRefused("x")])
async def test_a_permanent_error_is_told_in_the_last_minute_of_the_old_token(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock, error: TokenError
) -> None:
    first = await source.token_for(ACCOUNT)
    refresher.fails_with = error
    clock.ahead_seconds = 3010.0
    assert await source.token_for(ACCOUNT) is first
    await renewed(source, refresher, 2)
    clock.ahead_seconds = 3545.0
    with pytest.raises(type(error)):
        await source.token_for(ACCOUNT)


async def test_no_token_outlives_its_end_because_the_date_was_set_back(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    clock.wrong_by_seconds = -7200.0
    clock.ahead_seconds = 3601.0
    assert (await source.token_for(ACCOUNT)).value == "token-2"


# Tokens that the provider refuses.


async def test_a_refused_token_is_given_up_once(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    first = await source.token_for(ACCOUNT)
    other = await source.token_for(OTHER)
    assert source.invalidate(ACCOUNT, first)
    second = await source.token_for(ACCOUNT)
    assert second.value == "token-3"
    assert source.invalidate(ACCOUNT, first)  # another connection reports it late
    assert await source.token_for(ACCOUNT) is second
    assert await source.token_for(OTHER) is other
    assert len(refresher.asked) == 3


async def test_a_crowd_that_reports_a_refused_token_costs_one_request(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    first = await source.token_for(ACCOUNT)

    async def replaced() -> str:
        assert source.invalidate(ACCOUNT, first)
        return (await source.token_for(ACCOUNT)).value

    assert set(await asyncio.gather(*(replaced() for _ in range(100)))) == {"token-2"}
    assert len(refresher.asked) == 2


async def test_a_provider_that_refuses_every_token_costs_one_request_a_minute(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    assert source.invalidate(ACCOUNT, await source.token_for(ACCOUNT))
    second = await source.token_for(ACCOUNT)
    for ahead_seconds in range(0, 60, 5):
        clock.ahead_seconds = float(ahead_seconds)
        assert not source.invalidate(ACCOUNT, second)
        # Perhaps the provider minds something else, and it is mended: it is tried again.
        assert await source.token_for(ACCOUNT) is second
    assert len(refresher.asked) == 2
    clock.ahead_seconds = 61.0
    assert source.invalidate(ACCOUNT, second)
    assert (await source.token_for(ACCOUNT)).value == "token-3"


async def test_a_refused_token_is_not_taken_from_the_store_again(
    refresher: ScriptedRefresher, metrics: Metrics, clock: Clock
) -> None:
    store = FragileStore()
    before, after = (TokenSource({"mock": refresher}, metrics, store, clock) for _ in range(2))
    await before.token_for(signed_in())
    taken = await after.token_for(signed_in())
    assert taken.value == "token-1", "the store's token was not taken"
    assert after.invalidate(signed_in(), taken)
    assert (await after.token_for(signed_in())).value == "token-2"
    # The other process learns of it without a request of its own.
    assert before.invalidate(signed_in(), await before.token_for(signed_in()))
    assert (await before.token_for(signed_in())).value == "token-2"
    for source in (before, after):
        await source.close()


async def test_after_a_refusal_another_processs_token_is_as_suspect(
    refresher: ScriptedRefresher, metrics: Metrics, clock: Clock
) -> None:
    """Who revoked one token, as by a new password, has revoked all of that time."""
    store = FragileStore()
    one, other = (TokenSource({"mock": refresher}, metrics, store, clock) for _ in range(2))
    held = await one.token_for(signed_in())
    await other.refresh(signed_in())
    clock.ahead_seconds += 61.0
    assert one.invalidate(signed_in(), held)
    assert (await one.token_for(signed_in())).value == "token-3"
    for source in (one, other):
        await source.close()


async def test_without_a_new_token_the_refused_one_stays_away(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    first = await source.token_for(ACCOUNT)
    refresher.fails_with = TokenEndpointUnavailable("503")
    assert source.invalidate(ACCOUNT, first)
    for _ in range(5):
        with pytest.raises(TokenEndpointUnavailable):
            await source.token_for(ACCOUNT)
        clock.ahead_seconds += 0.1
    assert len(refresher.asked) == 2


# At the operator's wish.


async def test_an_operators_renewal_asks_the_provider(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    await source.token_for(ACCOUNT)
    assert (await source.refresh(ACCOUNT)).value == "token-2"
    assert (await source.token_for(ACCOUNT)).value == "token-2"


async def test_an_operators_renewal_does_not_settle_for_one_under_way(
    refresher: ScriptedRefresher, metrics: Metrics, clock: Clock
) -> None:
    store = FragileStore()
    before, source = (TokenSource({"mock": refresher}, metrics, store, clock) for _ in range(2))
    await before.token_for(signed_in())
    call = asyncio.create_task(source.token_for(signed_in()))
    await asyncio.sleep(0)
    assert (await source.refresh(signed_in())).value == "token-2"
    assert (await call).value == "token-1"
    for one in (before, source):
        await one.close()


async def test_operators_renewals_at_once_are_one(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    calls = [asyncio.create_task(source.refresh(ACCOUNT)) for _ in range(5)]
    clients = [asyncio.create_task(source.token_for(ACCOUNT)) for _ in range(5)]
    await refresher.is_asked.wait()
    refresher.may_answer.set()
    tokens = await asyncio.gather(*calls, *clients)
    assert {token.value for token in tokens} == {"token-1"}
    assert len(refresher.asked) == 1


async def test_after_operators_renewals_all_goes_on_as_before(
    refresher: ScriptedRefresher, metrics: Metrics, clock: Clock
) -> None:
    store = FragileStore()
    one, other = (TokenSource({"mock": refresher}, metrics, store, clock) for _ in range(2))
    await asyncio.gather(one.refresh(signed_in()), one.refresh(signed_in()))
    clock.ahead_seconds += 3550.0
    await other.token_for(signed_in())
    assert (await one.token_for(signed_in())).value == "token-2", "the other's was not taken"
    for source in (one, other):
        await source.close()


async def test_an_operators_renewal_tries_a_dead_grant_at_once(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.fails_with = GrantRevoked("invalid_grant")
    with pytest.raises(GrantRevoked):
        await source.token_for(ACCOUNT)
    with pytest.raises(GrantRevoked):
        await source.refresh(ACCOUNT)
    refresher.fails_with = None
    assert (await source.refresh(ACCOUNT)).value == "token-3"
    assert (await source.token_for(ACCOUNT)).value == "token-3"


async def test_a_forgotten_account_starts_anew(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.fails_with = TokenEndpointRefused("invalid_client")
    with pytest.raises(TokenEndpointRefused):
        await source.token_for(ACCOUNT)
    refresher.fails_with = None
    source.forget(ACCOUNT.key)
    source.forget("nobody@example.com")
    assert (await source.token_for(ACCOUNT)).value == "token-2"
