"""One renewal between the store and the provider: nothing is lost, and nobody asks twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.accounts import mailbox
from tests.support.fragile_store import FragileStore
from tests.support.refreshers import FIRST_REFRESH_TOKEN, Clock, ScriptedRefresher, signed_in
from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import EpochSeconds, TokenResponse
from xoauth2_proxy.oauth.refresh import TokenRefreshes, current_grant, issued_to, refreshed_grant
from xoauth2_proxy.oauth.stores import Failure, StoredGrant

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account

ACCOUNT = signed_in()
KEY = ACCOUNT.key


class Process:
    """One of several that share the store."""

    def __init__(self, refresher: ScriptedRefresher, store: FragileStore, clock: Clock) -> None:
        self.refreshes = TokenRefreshes({"mock": refresher}, store, Metrics(), clock)

    async def refresh(self, account: Account = ACCOUNT, **how: Any) -> str:
        return (await self.refreshes.refresh(account, **how)).value


@pytest.fixture
async def one(refresher: ScriptedRefresher, store: FragileStore, clock: Clock) -> Process:
    return Process(refresher, store, clock)


@pytest.fixture
async def other(refresher: ScriptedRefresher, store: FragileStore, clock: Clock) -> Process:
    return Process(refresher, store, clock)


# What the store holds is used.


async def test_what_another_process_got_is_taken_without_asking(
    one: Process, other: Process, refresher: ScriptedRefresher
) -> None:
    assert await one.refresh() == await other.refresh() == "token-1"
    assert len(refresher.asked) == 1


async def test_processes_that_renew_at_once_ask_once(
    one: Process, other: Process, refresher: ScriptedRefresher
) -> None:
    refresher.rotates = True
    refresher.may_answer.clear()
    calls = [asyncio.create_task(process.refresh()) for process in (one, other)]
    await refresher.is_asked.wait()
    refresher.may_answer.set()
    assert await asyncio.gather(*calls) == ["token-1", "token-1"]
    assert refresher.presented == [FIRST_REFRESH_TOKEN]


async def test_a_token_that_another_process_got_lives_no_longer_than_it_does(
    one: Process, other: Process, clock: Clock
) -> None:
    first = await one.refreshes.refresh(ACCOUNT)
    clock.ahead_seconds += 1000.0
    second = await other.refreshes.refresh(ACCOUNT)
    for moment in ("refresh_at", "stale_at", "expires_at"):
        assert getattr(second, moment) == pytest.approx(getattr(first, moment), abs=1.0)


async def test_a_tokens_life_begins_before_its_answer_arrives(
    one: Process, refresher: ScriptedRefresher, store: FragileStore, clock: Clock
) -> None:
    refresher.may_answer.clear()
    begun, begun_on = clock.monotonic(), clock.time()
    call = asyncio.create_task(one.refreshes.refresh(ACCOUNT))
    await refresher.is_asked.wait()
    clock.ahead_seconds += 20.0
    refresher.may_answer.set()
    assert (await call).expires_at == pytest.approx(begun + 3600.0, abs=5.0)
    expires_on = (await store.grant()).access_token_expires_at
    assert expires_on == pytest.approx(begun_on + 3600.0, abs=5.0)


async def test_a_token_due_for_renewal_is_not_taken(
    one: Process, other: Process, clock: Clock
) -> None:
    await one.refresh()
    clock.ahead_seconds += 2990.0
    assert await other.refresh() == "token-1"
    clock.ahead_seconds += 20.0  # less than the window of 600 s is left
    assert await other.refresh() == "token-2"
    assert await one.refresh() == "token-2"


async def test_each_account_has_its_own_window(other: Process, one: Process, clock: Clock) -> None:
    await one.refresh()
    clock.ahead_seconds += 3400.0
    assert await other.refresh(signed_in(refresh_window_seconds=100.0)) == "token-1"
    assert await other.refresh(signed_in(refresh_window_seconds=300.0)) == "token-2"


async def test_the_token_one_already_has_is_not_taken(one: Process) -> None:
    assert await one.refresh() == "token-1"
    assert await one.refresh(replaced_token="token-1") == "token-2"
    assert await one.refresh(replaced_token="token-1") == "token-2"


async def test_after_a_refusal_only_a_brand_new_token_is_taken(
    one: Process, other: Process, clock: Clock
) -> None:
    """A provider that revoked one token may have revoked all that it had given out."""
    await one.refresh()
    clock.ahead_seconds += 50.0
    assert await other.refresh(replaced_token="token-0", is_refused=True) == "token-1"
    clock.ahead_seconds += 20.0
    assert await other.refresh(replaced_token="token-0", is_refused=True) == "token-2"


async def test_a_forced_renewal_asks_whatever_the_store_holds(one: Process) -> None:
    await one.refresh()
    assert await one.refresh(is_forced=True) == "token-2"


@pytest.mark.parametrize("wrong_by", [-7200.0, 7200.0])
async def test_no_token_outlives_its_end_because_the_date_was_wrong(
    one: Process, other: Process, clock: Clock, wrong_by: float
) -> None:
    await one.refresh()
    clock.wrong_by_seconds = wrong_by
    assert await other.refresh() == "token-2"
    clock.wrong_by_seconds = 0.0
    assert await one.refresh() == "token-3"


async def test_clocks_of_several_machines_may_differ_a_little(
    one: Process, other: Process, clock: Clock
) -> None:
    await one.refresh()
    clock.wrong_by_seconds = -30.0
    token = await other.refreshes.refresh(ACCOUNT)
    assert token.value == "token-1"
    assert token.expires_at <= clock.monotonic() + 3600.0


async def test_accounts_without_anything_to_keep_leave_no_trace_in_the_store(
    one: Process, store: FragileStore
) -> None:
    nothing = mailbox("mock@example.com")
    store.is_readable = store.is_writable = False
    assert await one.refresh(nothing) == await one.refresh(nothing) == "token-1"


# Refresh tokens are never lost.


async def test_a_rotated_refresh_token_is_presented_next(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    for _ in range(3):
        await one.refresh(is_forced=True)
    assert refresher.presented == [FIRST_REFRESH_TOKEN, "refresh-1", "refresh-2"]
    assert (await store.grant()).refresh_token == "refresh-3"


async def test_a_refresh_token_that_was_not_rotated_stays(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    for _ in range(2):
        await one.refresh(is_forced=True)
    assert refresher.presented == [FIRST_REFRESH_TOKEN] * 2
    assert (await store.grant()).refresh_token == FIRST_REFRESH_TOKEN


async def test_a_rotated_refresh_token_is_safe_before_its_access_token_is_used(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    store.is_writable = False
    for _ in range(3):
        with pytest.raises(TokenStoreUnavailable):
            await one.refresh()
    assert len(refresher.asked) == 1, "asked again before the answer was safe"
    store.is_writable = True
    assert await one.refresh() == "token-1"
    assert (await store.grant()).refresh_token == "refresh-1"
    await one.refresh(is_forced=True)
    assert refresher.presented == [FIRST_REFRESH_TOKEN, "refresh-1"]


async def test_a_forced_renewal_saves_first_too(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    store.is_writable = False
    with pytest.raises(TokenStoreUnavailable):
        await one.refresh()
    store.is_writable = True
    assert await one.refresh(is_forced=True) == "token-2"
    assert refresher.presented == [FIRST_REFRESH_TOKEN, "refresh-1"]


async def test_a_token_without_a_new_refresh_token_is_used_though_it_cannot_be_kept(
    one: Process, store: FragileStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_writable = False
    assert await one.refresh() == "token-1"
    assert [record.message for record in caplog.records] == ["grant not saved yet"]
    store.is_writable = True
    assert await one.refresh() == "token-1", "asked again for what is at hand"
    assert (await store.grant()).access_token == "token-1"


async def test_what_could_not_be_kept_is_kept_when_the_relay_stops(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    store.is_writable = False
    with pytest.raises(TokenStoreUnavailable):
        await one.refresh()
    store.is_writable = True
    await one.refreshes.close()
    assert (await store.grant()).refresh_token == "refresh-1"
    assert store.is_closed


async def test_what_is_lost_at_the_end_is_told(
    one: Process,
    refresher: ScriptedRefresher,
    store: FragileStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refresher.rotates = True
    store.is_writable = False
    with pytest.raises(TokenStoreUnavailable):
        await one.refresh()
    await one.refreshes.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "refresh-1" not in caplog.text
    assert store.is_closed


async def test_what_could_not_be_kept_does_not_overwrite_a_new_sign_in(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    store.is_writable = False
    with pytest.raises(TokenStoreUnavailable):
        await one.refresh()
    store.is_writable = True
    new = StoredGrant(
        issued_to=issued_to(ACCOUNT),
        descends_from=fingerprint(FIRST_REFRESH_TOKEN),
        refresh_token="signed in",
    )
    await store.save(KEY, new)
    assert await one.refresh() == "token-2"
    assert refresher.presented == [FIRST_REFRESH_TOKEN, "signed in"]
    assert (await store.grant()).refresh_token == "refresh-2"


async def test_a_renewal_cut_short_while_it_saves_loses_nothing(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    saving, may_save = asyncio.Event(), asyncio.Event()

    class Slow(FragileStore):
        async def save(self, mailbox: str, grant: StoredGrant) -> None:
            saving.set()
            await may_save.wait()
            await super().save(mailbox, grant)

    slow = Slow()
    process = Process(refresher, slow, Clock())
    call = asyncio.create_task(process.refresh())
    await saving.wait()
    call.cancel()
    await asyncio.wait([call])
    may_save.set()
    await process.refreshes.close()
    assert (await slow.grant()).refresh_token == "refresh-1"


async def test_an_answer_without_a_living_token_still_brings_its_refresh_token(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.rotates = True
    refresher.lifetime_seconds = 0.0
    with pytest.raises(TokenEndpointUnavailable, match="no valid token"):
        await one.refresh()
    kept = await store.grant()
    assert kept.refresh_token == "refresh-1"
    assert kept.failure is not None


# Failures are kept beside the grant, which stays.


FAILURES = [
    (GrantRevoked("Token has been expired or revoked.", oauth_error="invalid_grant"), "revoked"),
    (TokenEndpointRefused("bad secret", oauth_error="invalid_client"), "refused"),
    (TokenEndpointUnavailable("503"), "unavailable"),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES)
async def test_a_failure_is_kept_and_the_grant_with_it(
    one: Process,
    refresher: ScriptedRefresher,
    store: FragileStore,
    clock: Clock,
    error: TokenError,
    kind: str,
) -> None:
    await one.refresh()
    before = await store.grant()
    refresher.fails_with = error
    with pytest.raises(type(error)):
        await one.refresh(is_forced=True)
    kept = await store.grant()
    assert replace(kept, failure=None) == before
    assert kept.failure is not None
    assert (kept.failure.kind, kept.failure.text) == (kind, str(error))
    assert kept.failure.oauth_error == error.oauth_error
    assert abs(kept.failure.at - clock.time()) < 10.0
    refresher.fails_with = None
    await one.refresh(is_forced=True)
    assert (await store.grant()).failure is None


async def test_a_dead_grant_is_presented_once_by_all_processes(
    one: Process, other: Process, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = GrantRevoked("gone", oauth_error="invalid_grant")
    for process in (one, other, one, other):
        with pytest.raises(GrantRevoked, match="gone") as caught:
            await process.refresh()
        assert caught.value.oauth_error == "invalid_grant"
    assert len(refresher.asked) == 1
    clock.ahead_seconds += 301.0
    with pytest.raises(GrantRevoked):
        await other.refresh()
    assert len(refresher.asked) == 2


async def test_an_endpoint_out_of_reach_does_not_make_a_dead_grant_better(
    one: Process, other: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.fails_with = GrantRevoked("gone")
    with pytest.raises(GrantRevoked):
        await one.refresh()
    refresher.fails_with = TokenEndpointUnavailable("503")
    with pytest.raises(TokenEndpointUnavailable):
        await one.refresh(is_forced=True)
    failure = (await store.grant()).failure
    assert failure is not None
    assert failure.kind == "revoked"
    with pytest.raises(GrantRevoked):
        await other.refresh()


async def test_an_operator_can_have_a_dead_grant_tried_at_once(
    one: Process, refresher: ScriptedRefresher
) -> None:
    refresher.fails_with = GrantRevoked("gone")
    with pytest.raises(GrantRevoked):
        await one.refresh()
    refresher.fails_with = None
    assert await one.refresh(is_forced=True) == "token-2"


async def test_another_refresh_token_in_the_configuration_ends_a_dead_grant(
    one: Process, refresher: ScriptedRefresher
) -> None:
    refresher.fails_with = GrantRevoked("gone")
    with pytest.raises(GrantRevoked):
        await one.refresh()
    refresher.fails_with = None
    assert await one.refresh(signed_in(refresh_token="new")) == "token-2"
    assert refresher.presented[-1] == "new"


async def test_a_grant_survives_a_wrong_client_in_the_configuration(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    """An operator's slip of the pen must not cost a person's sign-in."""
    refresher.rotates = True
    await one.refresh()
    before = await store.grant()
    mistaken = signed_in(client_id="mistyped", refresh_token="")
    refresher.fails_with = GrantRevoked("there is no refresh token")
    with pytest.raises(GrantRevoked):
        await one.refresh(mistaken)
    assert await store.grant() == before
    refresher.fails_with = None
    await one.refresh(is_forced=True)
    assert refresher.presented[-1] == "refresh-1"


async def test_a_stop_is_nobodys_failure(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    await one.refresh()
    one.refreshes.stop()
    with pytest.raises(TokenEndpointUnavailable, match="stopping"):
        await one.refresh(is_forced=True)
    assert (await store.grant()).failure is None
    assert len(refresher.asked) == 1


# Who mended it?


async def test_a_failed_grant_has_changed_when_somebody_signs_in_or_succeeds(
    one: Process, other: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    refresher.fails_with = GrantRevoked("gone")
    with pytest.raises(GrantRevoked):
        await one.refresh()
    with pytest.raises(GrantRevoked):
        await other.refresh()
    assert not await one.refreshes.has_new_grant(ACCOUNT)
    assert not await other.refreshes.has_new_grant(ACCOUNT)
    refresher.fails_with = None
    await one.refresh(is_forced=True)
    assert await other.refreshes.has_new_grant(ACCOUNT)
    refresher.fails_with = GrantRevoked("again")
    with pytest.raises(GrantRevoked):
        await other.refresh(is_forced=True)
    assert not await other.refreshes.has_new_grant(ACCOUNT)
    new = StoredGrant(issued_to=issued_to(ACCOUNT), refresh_token="signed in")
    await store.save(KEY, replace(new, descends_from=fingerprint(FIRST_REFRESH_TOKEN)))
    assert await other.refreshes.has_new_grant(ACCOUNT)


async def test_attempts_of_other_processes_that_fail_mend_nothing(
    one: Process, other: Process, refresher: ScriptedRefresher, clock: Clock
) -> None:
    refresher.fails_with = TokenEndpointRefused("bad secret")
    for process in (one, other):
        with pytest.raises(TokenEndpointRefused):
            await process.refresh()
    for _ in range(3):
        clock.ahead_seconds += 61.0
        with pytest.raises(TokenEndpointRefused):
            await one.refresh()
        assert not await other.refreshes.has_new_grant(ACCOUNT)


async def test_a_failure_that_could_not_be_kept_is_not_taken_for_mended(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    store.is_writable = False
    refresher.fails_with = GrantRevoked("gone")
    with pytest.raises(GrantRevoked):
        await one.refresh()
    assert not await one.refreshes.has_new_grant(ACCOUNT)
    store.is_readable = False
    assert not await one.refreshes.has_new_grant(ACCOUNT)


async def test_it_is_known_when_a_grant_was_used_last(
    one: Process, other: Process, store: FragileStore, clock: Clock
) -> None:
    assert await one.refreshes.idle_seconds(ACCOUNT) == float("inf")
    await one.refresh()
    clock.ahead_seconds += 1000.0
    assert await other.refreshes.idle_seconds(ACCOUNT) == pytest.approx(1000.0, abs=5.0)
    store.is_readable = False
    assert await other.refreshes.idle_seconds(ACCOUNT) == float("inf")


async def test_a_store_in_trouble_asks_nobody(
    one: Process, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    store.is_readable = False
    with pytest.raises(TokenStoreUnavailable):
        await one.refresh()
    assert refresher.asked == []


# The grant that counts.


NOW = EpochSeconds(1_700_000_000.0)
KEPT = StoredGrant(
    issued_to=issued_to(ACCOUNT),
    descends_from=fingerprint(FIRST_REFRESH_TOKEN),
    refresh_token="newer",
    failure=Failure(kind="revoked", oauth_error="", text="", at=NOW),
)


def test_the_stores_grant_counts_while_the_configuration_stays() -> None:
    assert current_grant(ACCOUNT, KEPT, NOW) is KEPT
    assert current_grant(signed_in(client_secret="changed"), KEPT, NOW) is KEPT


def test_a_sign_in_counts_where_nothing_is_configured() -> None:
    assert current_grant(signed_in(refresh_token=""), KEPT, NOW) is KEPT


@pytest.mark.parametrize(
    "account", [signed_in(refresh_token="other"), signed_in(client_id="other")]
)
def test_a_changed_configuration_counts_instead(account: Account) -> None:
    new = current_grant(account, KEPT, NOW)
    assert (new.refresh_token, new.failure) == (account.oauth.refresh_token, None)
    assert (new.descends_from, new.signed_in_at) == (fingerprint(new.refresh_token), NOW)
    assert current_grant(account, new, NOW) is new


def test_what_an_answer_leaves_out_stays_as_it_was() -> None:
    before = replace(KEPT, scope="mail", refresh_token_expires_at=EpochSeconds(NOW + 9.0))
    after = refreshed_grant(before, TokenResponse(access_token="new", lifetime_seconds=10.0), NOW)
    assert after == replace(
        before,
        access_token="new",
        access_token_expires_at=EpochSeconds(NOW + 10.0),
        refreshed_at=NOW,
        failure=None,
    )


def test_what_an_answer_brings_replaces_what_was_there() -> None:
    issued = TokenResponse(
        access_token="new",
        refresh_token="next",
        refresh_token_lifetime_seconds=100.0,
        scope="mail offline_access",
    )
    after = refreshed_grant(KEPT, issued, NOW)
    assert (after.refresh_token, after.scope) == ("next", "mail offline_access")
    assert after.refresh_token_expires_at == NOW + 100.0
    assert after.access_token_expires_at == NOW + 3600.0
