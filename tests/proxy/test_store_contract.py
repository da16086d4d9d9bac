"""What every store does alike: keeps, forgets, and lets one at a time change a grant."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.store_places import REDIS, Place
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.stores import Failure, StoredGrant

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.stores import TokenStore

MAILBOX = "someone@example.com"
OTHER = "other@example.com"
GRANT = StoredGrant(
    issued_to="gmail 123",
    descends_from="0123456789abcdef",
    refresh_token="1//refresh-ü",
    signed_in_at=EpochSeconds(1_700_000_000.25),
    access_token="ya29.access",
    access_token_expires_at=EpochSeconds(1_800_000_000.5),
    scope="https://mail.google.com/",
    failure=Failure(kind="unavailable", oauth_error="", text="no answer", at=EpochSeconds(3.0)),
)
NEWER = StoredGrant(issued_to="gmail 123", refresh_token="newer")
SOON = 0.5  # seconds: long enough for anyone who is not kept waiting

shared = pytest.mark.parametrize("kind", ["file", REDIS])

times = st.floats(allow_nan=False).map(EpochSeconds)
failures = st.builds(
    Failure,
    kind=st.sampled_from(["revoked", "refused", "unavailable"]),
    oauth_error=st.text(),
    text=st.text(),
    at=times,
)
grants = st.builds(
    StoredGrant,
    issued_to=st.text(),
    descends_from=st.text(),
    refresh_token=st.text(),
    signed_in_at=times,
    refresh_token_expires_at=times,
    access_token=st.text(),
    access_token_expires_at=times,
    refreshed_at=times,
    scope=st.text(),
    subject=st.text(),
    failure=st.none() | failures,
)


@pytest.fixture(params=["memory", "file", REDIS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(place: Place) -> TokenStore:
    return place.open()


@given(grants)
def test_a_grant_survives_json(grant: StoredGrant) -> None:
    assert StoredGrant.from_json(json.loads(json.dumps(asdict(grant)))) == grant


def test_keys_of_a_later_version_are_left_out() -> None:
    assert StoredGrant.from_json({"scope": "s", "colour": "red"}) == StoredGrant(scope="s")


@pytest.mark.parametrize(
    "values",
    [
        [],
        None,
        "text",
        {"refresh_token": 5},
        {"refresh_token": None},
        {"signed_in_at": "yesterday"},
        {"failure": {"kind": "revoked"}},
        {"failure": {"kind": "revoked", "oauth_error": "", "text": 1, "at": 0}},
        {"failure": "revoked"},
    ],
)
def test_what_is_no_grant_is_refused(values: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any words will do
        StoredGrant.from_json(values)


async def test_nothing_is_kept_at_first(store: TokenStore) -> None:
    assert await store.load(MAILBOX) is None


async def test_a_check_of_a_store_that_works_leaves_nothing(store: TokenStore) -> None:
    await store.check()
    assert await store.load("") is None
    await store.save(MAILBOX, GRANT)
    await store.check()
    assert await store.load(MAILBOX) == GRANT


async def test_a_grant_is_kept_whole(store: TokenStore) -> None:
    await store.save(MAILBOX, GRANT)
    assert await store.load(MAILBOX) == GRANT


async def test_a_newer_grant_takes_the_place_of_the_old_one(store: TokenStore) -> None:
    await store.save(MAILBOX, GRANT)
    await store.save(MAILBOX, NEWER)
    assert await store.load(MAILBOX) == NEWER


async def test_mailboxes_do_not_mix(store: TokenStore) -> None:
    await store.save(MAILBOX, GRANT)
    await store.save(OTHER, NEWER)
    await store.delete(OTHER)
    assert await store.load(MAILBOX) == GRANT
    assert await store.load(OTHER) is None


async def test_forgetting_what_is_not_there_is_no_error(store: TokenStore) -> None:
    await store.delete(MAILBOX)
    assert await store.load(MAILBOX) is None


@shared
async def test_a_grant_is_there_for_the_next_process(place: Place) -> None:
    first = place.open()
    await first.save(MAILBOX, GRANT)
    await first.close()
    assert await place.open().load(MAILBOX) == GRANT


async def test_one_task_at_a_time_holds_the_lock(store: TokenStore) -> None:
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with store.lock(MAILBOX):
            inside += 1
            most = max(most, inside)
            await store.save(MAILBOX, NEWER)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 1


async def test_tasks_get_the_lock_in_the_order_they_came(store: TokenStore) -> None:
    order = []

    async def work(number: int) -> None:
        async with store.lock(MAILBOX):
            order.append(number)
            await store.load(MAILBOX)

    await asyncio.gather(*(work(number) for number in range(10)))
    assert order == list(range(10))


@shared
async def test_two_stores_share_one_lock(place: Place) -> None:
    store, other = place.open(), place.open(wait_seconds=SOON)
    async with store.lock(MAILBOX):
        with pytest.raises(TokenStoreUnavailable):
            async with other.lock(MAILBOX):
                pass
    await until(lambda: is_free(other))


async def test_waiting_for_the_lock_has_an_end(place: Place) -> None:
    store = place.open(wait_seconds=SOON)
    async with store.lock(MAILBOX):
        with pytest.raises(TokenStoreUnavailable, match=MAILBOX):
            async with store.lock(MAILBOX):
                pass
    await until(lambda: is_free(store))


async def is_free(store: TokenStore) -> bool:
    with suppress(TokenStoreUnavailable):
        async with store.lock(MAILBOX):
            return True
    return False


async def test_locks_of_mailboxes_are_apart(store: TokenStore) -> None:
    async with store.lock(MAILBOX), asyncio.timeout(PATIENCE_SECONDS), store.lock(OTHER):
        await store.save(MAILBOX, GRANT)
        await store.save(OTHER, NEWER)


async def test_the_lock_of_a_failed_holder_is_free(place: Place) -> None:
    store = place.open()
    with pytest.raises(RuntimeError, match="fails"):
        async with store.lock(MAILBOX):
            raise RuntimeError("fails")
    async with asyncio.timeout(PATIENCE_SECONDS), store.lock(MAILBOX):
        pass


async def test_the_lock_of_a_cancelled_holder_is_free(place: Place) -> None:
    store = place.open()
    is_held = asyncio.Event()

    async def hold() -> None:
        async with store.lock(MAILBOX):
            is_held.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await is_held.wait()
    holder.cancel()
    await asyncio.wait([holder])
    next_one = store if place.kind == "memory" else place.open()
    async with asyncio.timeout(PATIENCE_SECONDS), next_one.lock(MAILBOX):
        pass


@shared
@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_cancelled_waiter_leaves_the_lock_free(place: Place, turns: int) -> None:
    """Whatever it was doing; each turn of the loop brings it a step further."""
    store, other = place.open(), place.open()
    await store.load(MAILBOX)  # so that it is connected

    async def take() -> None:
        async with store.lock(MAILBOX):
            pass

    waiter = asyncio.create_task(take())
    for _ in range(turns):
        await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    async with asyncio.timeout(PATIENCE_SECONDS), other.lock(MAILBOX):
        await other.save(MAILBOX, GRANT)


@shared
async def test_a_cancelled_save_ends_before_the_lock_is_free(place: Place) -> None:
    """The refresh token in it may be the only one that still works."""
    store, other = place.open(), place.open()
    for number in range(20):
        newest = StoredGrant(refresh_token=str(number), scope="s" * 10_000)
        is_saving = asyncio.Event()
        saving = asyncio.create_task(save_locked(store, newest, is_saving))
        await is_saving.wait()
        saving.cancel()
        async with other.lock(MAILBOX):
            assert await other.load(MAILBOX) == newest
        with pytest.raises(asyncio.CancelledError):
            await saving


async def save_locked(store: TokenStore, grant: StoredGrant, is_saving: asyncio.Event) -> None:
    async with store.lock(MAILBOX):
        is_saving.set()
        await store.save(MAILBOX, grant)


async def test_changes_happen_in_the_order_they_were_begun(store: TokenStore) -> None:
    changes = [
        asyncio.create_task(store.save(MAILBOX, StoredGrant(refresh_token=str(number))))
        for number in range(50)
    ]
    await asyncio.gather(*changes)
    kept = await store.load(MAILBOX)
    assert kept is not None
    assert kept.refresh_token == "49"
