"""When no token can be had: asked again in good time, told once, mended by anyone."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.refreshers import FIRST_REFRESH_TOKEN, Clock, ScriptedRefresher, signed_in
from tests.support.waiting import until
from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.refresh import issued_to
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fragile_store import FragileStore

ACCOUNT = signed_in()
KEY = ACCOUNT.key


@pytest.fixture
async def other(
    refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> AsyncIterator[TokenSource]:
    """Another process's."""
    made = TokenSource({"mock": refresher}, Metrics(), store, clock)
    yield made
    await made.close()


async def fails(source: TokenSource, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(TokenError):
            await source.token_for(ACCOUNT)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.message}" for record in caplog.records]


# An attempt, and its failure.


@pytest.mark.parametrize(
    "error",
    [
        GrantRevoked("invalid_grant"),
        TokenEndpointRefused("invalid_client"),
        TokenEndpointUnavailable("503"),
        TokenError("other"),
    ],
)
async def test_an_error_reaches_every_caller_and_is_told_once(
    source: TokenSource,
    refresher: ScriptedRefresher,
    caplog: pytest.LogCaptureFixture,
    error: TokenError,
) -> None:
    refresher.may_answer.clear()
    refresher.fails_with = error
    calls = [asyncio.create_task(source.token_for(ACCOUNT)) for _ in range(50)]
    await refresher.is_asked.wait()
    refresher.may_answer.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert ends == [error] * 50
    await fails(source, 50)
    assert len(refresher.asked) == 1
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (GrantRevoked("invalid_grant"), 300.0),
        (TokenEndpointRefused("invalid_client"), 60.0),
        (TokenEndpointUnavailable("429", 120.0), 120.0),
        (TokenEndpointUnavailable("429", 90_000.0), 3600.0),
    ],
)
async def test_after_a_failure_the_endpoint_is_left_in_peace(
    source: TokenSource,
    refresher: ScriptedRefresher,
    clock: Clock,
    error: TokenError,
    pause: float,
) -> None:
    refresher.fails_with = error
    await fails(source)
    for _ in range(20):
        clock.ahead_seconds += (pause - 5.0) / 20
        await fails(source)
    assert len(refresher.asked) == 1
    clock.ahead_seconds += 6.0
    refresher.fails_with = None
    assert (await source.token_for(ACCOUNT)).value == "token-2"


async def test_an_endpoint_in_trouble_is_asked_ever_more_rarely(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = TokenEndpointUnavailable("503")
    asked_at: list[int] = []
    for second in range(3600):
        clock.ahead_seconds = float(second)
        await fails(source)
        if len(refresher.asked) > len(asked_at):
            asked_at.append(second)
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    # 1, 2, 4 … 256, 300 s and so on, each shortened by up to a half.
    assert 18 <= len(asked_at) <= 34
    assert max(pauses) <= 301
    assert min(pauses[9:]) >= 149


async def test_after_a_success_the_back_off_starts_anew(
    source: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = TokenEndpointUnavailable("503")
    for _ in range(12):
        await fails(source)
        clock.ahead_seconds += 301.0
    refresher.fails_with = None
    await source.token_for(ACCOUNT)
    refresher.fails_with = TokenEndpointUnavailable("503")
    clock.ahead_seconds += 3601.0
    await fails(source)
    refresher.fails_with = None
    clock.ahead_seconds += 1.1
    await source.token_for(ACCOUNT)


async def test_the_end_of_trouble_is_told(
    source: TokenSource,
    refresher: ScriptedRefresher,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "xoauth2_proxy")
    await source.token_for(ACCOUNT)
    assert lines(caplog) == []
    clock.ahead_seconds += 3601.0
    refresher.fails_with = TokenEndpointUnavailable("503")
    await fails(source)
    refresher.fails_with = None
    clock.ahead_seconds += 2.0
    await source.token_for(ACCOUNT)
    assert lines(caplog) == ["WARNING no access token", "INFO access token obtained again"]


async def test_a_dead_grant_is_asked_for_once_and_bothers_nobody_else(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.fails_with = GrantRevoked("invalid_grant")
    await fails(source, 20)
    refresher.fails_with = None
    neighbour = signed_in("neighbour@example.com")
    assert (await source.token_for(neighbour)).value == "token-2"
    await fails(source)
    assert refresher.asked == ["someone@example.com", "neighbour@example.com"]


async def test_errors_told_again_keep_no_callers_frames_alive(
    source: TokenSource, refresher: ScriptedRefresher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "xoauth2_proxy")  # records hold the error
    refresher.fails_with = TokenEndpointRefused("invalid_client")

    class Secret:
        """What a caller has in its hands."""

    async def call(secret: Secret) -> None:
        await source.token_for(ACCOUNT)

    for _ in range(5):
        with pytest.raises(TokenEndpointRefused):
            await call(Secret())
    refresher.fails_with = None
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Secret)] == []


async def test_who_comes_while_an_operator_tries_again_waits_for_the_outcome(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    refresher.fails_with = GrantRevoked("invalid_grant")
    await fails(source)
    refresher.fails_with = None
    refresher.may_answer.clear()
    renewal = asyncio.create_task(source.refresh(ACCOUNT))
    await until(lambda: len(refresher.asked) == 2)
    call = asyncio.create_task(source.token_for(ACCOUNT))
    await asyncio.sleep(0)
    refresher.may_answer.set()
    assert (await call) is (await renewal)


# The store.


async def test_a_dead_grant_is_tried_again_when_another_process_signs_it_in(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    refresher.fails_with = GrantRevoked("invalid_grant")
    await fails(source)
    refresher.fails_with = None
    new = StoredGrant(
        issued_to=issued_to(ACCOUNT),
        descends_from=fingerprint(FIRST_REFRESH_TOKEN),
        refresh_token="signed in",
    )
    await store.save(KEY, new)
    await fails(source)  # it is looked at once a second
    clock.ahead_seconds += 1.1
    assert (await source.token_for(ACCOUNT)).value == "token-2"
    assert refresher.presented == [FIRST_REFRESH_TOKEN, "signed in"]


async def test_a_token_that_another_process_got_ends_a_long_wait(
    source: TokenSource, other: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = TokenEndpointUnavailable("429", 3000.0)
    await fails(source)
    refresher.fails_with = None
    await other.token_for(ACCOUNT)
    clock.ahead_seconds += 1.1
    assert (await source.token_for(ACCOUNT)).value == "token-2"
    assert len(refresher.asked) == 2


async def test_processes_that_fail_do_not_wake_each_other(
    source: TokenSource, other: TokenSource, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = TokenEndpointRefused("invalid_client")
    for _ in range(55):
        await fails(source)
        await fails(other)
        clock.ahead_seconds += 1.0
    assert len(refresher.asked) == 2


async def test_the_store_is_looked_at_once_a_second_however_many_ask(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    refresher.fails_with = GrantRevoked("invalid_grant")
    await fails(source)
    before = store.loads
    for _ in range(3):
        clock.ahead_seconds += 1.1
        await asyncio.gather(*(fails(source) for _ in range(100)))
    assert store.loads - before == 3


async def test_a_store_that_takes_no_notes_does_not_cost_requests(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    store.is_writable = False
    refresher.fails_with = GrantRevoked("invalid_grant")
    for _ in range(20):
        await fails(source)
        clock.ahead_seconds += 1.1
    assert len(refresher.asked) == 1


async def test_a_store_in_trouble_is_asked_again_soon_and_told_once_an_attempt(
    source: TokenSource,
    refresher: ScriptedRefresher,
    store: FragileStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.is_readable = False
    for _ in range(60):
        await fails(source, 5)
        clock.ahead_seconds += 1.0
    assert 6 <= len(lines(caplog)) <= 16
    assert refresher.asked == []
    store.is_readable = True
    clock.ahead_seconds += 10.0
    assert (await source.token_for(ACCOUNT)).value == "token-1"


async def test_a_rotated_token_the_store_does_not_take_is_brought_there_by_itself(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    store.is_writable = False
    with pytest.raises(TokenStoreUnavailable):
        await source.token_for(ACCOUNT)
    store.is_writable = True

    async def is_kept() -> bool:
        kept = await store.load(KEY)
        return kept is not None and kept.refresh_token == "refresh-1"

    await until(is_kept)  # about a second
    assert (await source.token_for(ACCOUNT)).value == "token-1"
    assert len(refresher.asked) == 1


async def test_a_defect_of_the_store_is_met_with_a_pause(
    source: TokenSource,
    refresher: ScriptedRefresher,
    store: FragileStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await source.token_for(ACCOUNT)
    store.breaks_with = ZeroDivisionError("not expected of a store")
    clock.ahead_seconds += 3601.0
    with pytest.raises(TokenStoreUnavailable, match="unexpected ZeroDivisionError"):
        await source.token_for(ACCOUNT)
    await fails(source, 10)
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "WARNING"]
    assert len(refresher.asked) == 1
    store.breaks_with = None
    clock.ahead_seconds += 10.0
    assert (await source.token_for(ACCOUNT)).value == "token-2"


async def test_a_grant_is_never_deleted(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    refresher.rotates = True
    await source.token_for(ACCOUNT)
    before = await store.grant()
    for error in (
        GrantRevoked("invalid_grant"),
        TokenEndpointRefused("invalid_client"),
        TokenEndpointUnavailable("503"),
        ValueError("broken"),
    ):
        refresher.fails_with = error
        clock.ahead_seconds += 3601.0
        await fails(source)
        assert replace(await store.grant(), failure=None) == before
