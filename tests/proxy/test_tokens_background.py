"""What the token source does of itself: the next token, idle grants, another configuration."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.refreshers import FIRST_REFRESH_TOKEN, Clock, ScriptedRefresher, signed_in
from tests.support.waiting import until
from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from tests.support.fragile_store import FragileStore
    from xoauth2_proxy.accounts.accounts import Account

# Days pass at once, so the event loop's own clock must be a test's: uvloop's cannot be.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

ACCOUNT = signed_in()
NEIGHBOUR = signed_in("neighbour@example.com")
APPLICATION = signed_in("app@example.com", grant_type=GrantType.CLIENT_CREDENTIALS)
DAY = 86_400.0


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", made.monotonic)
    return made


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def pass_seconds(clock: Clock, seconds: float, step: float = 30.0) -> None:
    """Let time pass, not faster than what happens in it."""
    while seconds > 0:
        clock.ahead_seconds += min(step, seconds)
        seconds -= step
        await settle()


# The next token.


async def test_the_next_token_is_there_before_anyone_asks(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    await pass_seconds(clock, 2850.0)
    assert len(refresher.asked) == 1
    await pass_seconds(clock, 200.0)
    assert len(refresher.asked) == 2
    refresher.may_answer.clear()
    assert (await source.token_for(ACCOUNT)).value == "token-2"


async def test_a_short_lived_token_is_replaced_in_real_time() -> None:
    refresher = ScriptedRefresher(lifetime_seconds=1.6)
    source = TokenSource({"mock": refresher}, Metrics())
    first = await source.token_for(ACCOUNT)
    await until(lambda: len(refresher.asked) == 2)
    second = await source.token_for(ACCOUNT)
    assert 1.0 <= second.expires_at - first.expires_at <= 1.5
    assert len(refresher.asked) == 2
    await source.close()


async def test_a_mailbox_in_use_never_waits_and_asks_no_more_than_need_be(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(APPLICATION)
    for _ in range(6):  # a message every 20 hours
        await pass_seconds(clock, 20 * 3600.0, step=60.0)
        before = len(refresher.asked)
        refresher.may_answer.clear()
        await source.token_for(APPLICATION)
        refresher.may_answer.set()
        assert len(refresher.asked) == before
    # At 2,880 to 3,000 s of a token's 3,600.
    assert 6 * 20 * 3600 / 3060 <= len(refresher.asked) <= 6 * 20 * 3600 / 2870


async def test_a_mailbox_not_used_for_a_day_is_left_in_peace(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(APPLICATION)
    await pass_seconds(clock, DAY + 3600.0, step=60.0)
    requests = len(refresher.asked)
    await pass_seconds(clock, 3 * DAY, step=600.0)
    assert len(refresher.asked) == requests
    # It is used again: from now on its next token is ready again.
    await source.token_for(APPLICATION)
    await pass_seconds(clock, 3000.0)
    assert len(refresher.asked) == requests + 2


async def test_a_mailbox_used_again_within_a_tokens_life_gets_its_next_one_in_time(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.refresh(ACCOUNT)  # nobody's use
    await pass_seconds(clock, 1000.0)
    await source.token_for(ACCOUNT)
    await pass_seconds(clock, 2050.0)
    assert len(refresher.asked) == 2


async def test_trouble_is_ridden_out_without_anyone_asking(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    refresher.fails_with = TokenEndpointUnavailable("503")
    await pass_seconds(clock, 7200.0, step=1.0)
    # Twelve of them while the back-off grows, then one each 150 to 330 s.
    assert 20 <= len(refresher.asked) <= 48
    refresher.fails_with = None
    await pass_seconds(clock, 331.0, step=1.0)
    refresher.may_answer.clear()
    assert (await source.token_for(ACCOUNT)).value == f"token-{len(refresher.asked)}"


async def test_two_processes_prepare_one_token(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    other = TokenSource({"mock": refresher}, Metrics(), store, clock)
    for one in (source, other):
        await one.token_for(ACCOUNT)
    await pass_seconds(clock, 3050.0)
    values = {(await one.token_for(ACCOUNT)).value for one in (source, other)}
    assert values == {"token-2"}
    assert len(refresher.asked) == 2
    await other.close()


# Idle grants.


async def test_idle_grants_are_used_once_a_day(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    source.keep_alive([ACCOUNT])
    source.keep_alive([ACCOUNT])
    await pass_seconds(clock, DAY / 2, step=600.0)
    assert len(refresher.asked) == 1
    await pass_seconds(clock, 10 * DAY, step=600.0)
    assert 10 <= len(refresher.asked) <= 14


async def test_idle_grants_are_not_all_used_at_the_start(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    source.keep_alive([signed_in(f"{number}@example.com") for number in range(200)])
    requests = []
    for _ in range(12):
        await pass_seconds(clock, 3600.0, step=60.0)
        requests.append(len(refresher.asked))
    assert requests[0] == 0
    assert requests[-1] == 200
    assert max(after - before for before, after in pairwise(requests)) < 50


async def test_a_new_sign_in_is_kept_alive_as_well(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    source.keep_alive([ACCOUNT])
    source.forget(ACCOUNT.key)
    await pass_seconds(clock, 3 * DAY, step=600.0)
    assert 3 <= len(refresher.asked) <= 4


async def test_processes_keep_a_grant_alive_together(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    others = [TokenSource({"mock": refresher}, Metrics(), store, clock) for _ in range(3)]
    for one in (source, *others):
        one.keep_alive([ACCOUNT])
    await pass_seconds(clock, 10 * DAY, step=600.0)
    assert 9 <= len(refresher.asked) <= 21
    for one in others:
        await one.close()


@pytest.mark.parametrize("account", [APPLICATION, mailbox("own.token@example.com")])
async def test_what_does_not_die_of_idleness_is_not_used(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock, account: Account
) -> None:
    source.keep_alive([account])
    await pass_seconds(clock, 3 * DAY, step=600.0)
    assert refresher.asked == []


async def test_an_idle_grant_whose_endpoint_is_in_trouble_is_tried_once_an_hour(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = TokenEndpointUnavailable("503")
    source.keep_alive([ACCOUNT])
    await pass_seconds(clock, 2 * DAY, step=60.0)
    assert 36 <= len(refresher.asked) <= 60


async def test_an_idle_grant_that_the_store_did_not_take_is_brought_there_soon(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    refresher.rotates = True
    await source.refresh(ACCOUNT)  # nobody's use
    store.is_writable = False
    with pytest.raises(TokenStoreUnavailable):
        await source.refresh(ACCOUNT)
    store.is_writable = True
    await pass_seconds(clock, 5.0, step=0.5)
    assert (await store.grant()).refresh_token == "refresh-2"
    assert len(refresher.asked) == 2


async def test_a_dead_idle_grant_is_tried_once_a_day(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = GrantRevoked("invalid_grant")
    source.keep_alive([ACCOUNT])
    await pass_seconds(clock, 5 * DAY, step=600.0)
    assert 5 <= len(refresher.asked) <= 7


# Another configuration.


async def test_what_another_configuration_leaves_alone_stays(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    first = await source.token_for(ACCOUNT)
    changed = replace(ACCOUNT, limits=replace(ACCOUNT.limits, max_connections=3))
    source.use({"mock": refresher}, [changed, NEIGHBOUR])
    assert await source.token_for(changed) is first


async def test_an_account_that_is_gone_is_forgotten(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    source.use({"mock": refresher}, [])
    await pass_seconds(clock, 2 * DAY, step=600.0)
    assert len(refresher.asked) == 1
    assert (await store.grant()).refresh_token == FIRST_REFRESH_TOKEN, "a grant was deleted"


async def test_another_refresher_is_used_from_the_next_renewal_on(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    first = await source.token_for(ACCOUNT)
    other = ScriptedRefresher()
    source.use({"mock": other}, [ACCOUNT])
    assert await source.token_for(ACCOUNT) is first
    await source.refresh(ACCOUNT)
    assert (len(refresher.asked), len(other.asked)) == (1, 1)


@pytest.mark.parametrize(
    "changed",
    [
        signed_in(client_secret="mended"),
        signed_in(refresh_token="another"),
        replace(ACCOUNT, provider="elsewhere"),
        replace(ACCOUNT, refresher="elsewhere"),
    ],
)
async def test_a_changed_account_is_tried_at_once(
    source: TokenSource, refresher: ScriptedRefresher, changed: Account
) -> None:
    """Whoever mends the configuration of a dead grant does not wait for five minutes."""
    refresher.fails_with = GrantRevoked("invalid_grant")
    for _ in range(2):
        with pytest.raises(GrantRevoked):
            await source.token_for(ACCOUNT)
    refresher.fails_with = None
    source.use({"mock": refresher, "elsewhere": refresher}, [changed])
    assert (await source.token_for(changed)).value == "token-2"
    assert refresher.presented[-1] == changed.oauth.refresh_token


async def test_a_renewal_under_way_is_no_other_configurations(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.may_answer.clear()
    old = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    changed = signed_in(refresh_token="another")
    source.use({"mock": refresher}, [changed])
    new = asyncio.create_task(source.token_for(changed))
    await settle()
    assert refresher.peak == 1, "two renewals of one mailbox at once"
    refresher.may_answer.set()
    assert [(await old).value, (await new).value] == ["token-1", "token-2"]
    assert refresher.presented == [FIRST_REFRESH_TOKEN, "another"]
    assert (await source.token_for(changed)).value == "token-2"


async def test_a_forgotten_accounts_renewal_is_its_last(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    source.use({"mock": refresher}, [])
    source.forget(ACCOUNT.key)
    refresher.may_answer.set()
    await call
    await pass_seconds(clock, 2 * DAY, step=600.0)
    assert len(refresher.asked) == 1


async def test_another_configuration_does_not_put_off_the_next_token(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    await source.token_for(ACCOUNT)
    source.use({"mock": refresher}, [ACCOUNT])
    await pass_seconds(clock, 3050.0)
    assert len(refresher.asked) == 2


# The end.


async def test_closing_lets_a_request_under_way_bring_its_refresh_token(
    refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    source = TokenSource({"mock": refresher}, Metrics(), store, clock)
    refresher.rotates = True
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    closing = asyncio.create_task(source.close())
    await pass_seconds(clock, 11.0, step=1.0)
    assert not closing.done()
    refresher.may_answer.set()
    await closing
    assert (await call).value == "token-1"
    assert (await store.grant()).refresh_token == "refresh-1"
    assert store.is_closed


async def test_closing_waits_for_a_forgotten_accounts_request_too(
    refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    source = TokenSource({"mock": refresher}, Metrics(), store, clock)
    refresher.rotates = True
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    source.forget(ACCOUNT.key)
    closing = asyncio.create_task(source.close())
    await settle()
    assert not closing.done()
    refresher.may_answer.set()
    await asyncio.gather(closing, call)
    assert (await store.grant()).refresh_token == "refresh-1"


async def test_closing_does_not_wait_for_an_endpoint_that_hangs(
    refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    source = TokenSource({"mock": refresher}, Metrics(), store, clock)
    refresher.may_answer.clear()
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await refresher.is_asked.wait()
    closing = asyncio.create_task(source.close())
    await pass_seconds(clock, 13.0, step=1.0)
    await closing
    assert refresher.cancelled == 1
    with pytest.raises(TokenEndpointUnavailable, match="stopping"):
        await call


async def test_who_waits_for_a_turn_while_closing_asks_no_more(
    refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    source = TokenSource({"mock": refresher}, Metrics(), store, clock)
    refresher.may_answer.clear()
    accounts = [signed_in(f"{number}@example.com") for number in range(10)]
    calls = [asyncio.create_task(source.token_for(account)) for account in accounts]
    await settle()
    closing = asyncio.create_task(source.close())
    await settle()
    refresher.may_answer.set()
    await closing
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert len(refresher.asked) == 4
    assert sum(isinstance(end, TokenError) for end in ends) == 6


async def test_after_closing_nothing_happens_any_more(
    refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    source = TokenSource({"mock": refresher}, Metrics(), store, clock)
    await source.token_for(ACCOUNT)
    source.keep_alive([NEIGHBOUR])
    await source.close()
    loads = store.loads
    await pass_seconds(clock, 2 * DAY, step=600.0)
    for ask in (source.token_for, source.refresh):
        with pytest.raises(TokenEndpointUnavailable, match="stopping"):
            await ask(ACCOUNT)
    await source.close()
    assert len(refresher.asked) == 1
    assert store.loads == loads
