"""Removing added mailboxes: whose grant goes, whose stays, and what trouble with one leaves."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.operated import FROM_FILE, Operated, gmail, operated
from xoauth2_proxy.errors import ConfigError, GrantRevoked, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.additions import Proposal
from xoauth2_proxy.mailboxes.interface import RefreshTooSoon
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

ONE, TWO, THREE = "a@example.com", "b@example.com", "c@example.com"
DEAD = GrantRevoked("expired or revoked", oauth_error="invalid_grant")


class StubbornStore(MemoryStore):
    """A store some of whose locks somebody else holds, and that tells who takes the others."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[str] = set()
        self.at_lock: Callable[[str], Awaitable[None]] | None = None

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        return self._locked(mailbox)

    @asynccontextmanager
    async def _locked(self, mailbox: str) -> AsyncIterator[None]:
        if mailbox in self.held:
            raise TokenStoreUnavailable("held all the time")
        if self.at_lock is not None:
            await self.at_lock(mailbox)
        async with super().lock(mailbox):
            yield


@pytest.fixture
def store() -> StubbornStore:
    return StubbornStore()


@pytest.fixture
async def relay(tmp_path: Path, store: StubbornStore) -> AsyncIterator[Operated]:
    async with operated(tmp_path, store=store) as relay:
        await add(relay, ONE, TWO, THREE)
        yield relay


async def add(relay: Operated, *emails: str) -> None:
    result = await relay.mailboxes.add(
        [(f"[{number}]", Proposal(gmail(email))) for number, email in enumerate(emails)]
    )
    assert len(result.added) == len(emails)


def put_by_hand(relay: Operated, document: dict[str, Any]) -> Path:
    file = relay.file.parent / "state" / "accounts" / "by-hand.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize("removes_all", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
async def test_the_grant_of_a_mailbox_that_the_file_has_too_stays(
    relay: Operated, store: StubbornStore, removes_all: bool, enabled: bool
) -> None:
    relay.write({"accounts": [gmail(FROM_FILE), gmail("more@example.com", enabled=enabled)]})
    file = put_by_hand(relay, gmail("MORE@example.com"))
    await relay.mailboxes.reload()
    await store.save("more@example.com", StoredGrant(refresh_token="given"))
    if removes_all:
        await relay.mailboxes.remove_all()
    else:
        await relay.mailboxes.remove("more@example.com")
    assert not file.exists()
    assert await store.load("more@example.com")
    assert "more@example.com" not in relay.forgotten[3:]


async def test_the_grant_of_a_mailbox_that_came_into_the_file_stays(
    relay: Operated, store: StubbornStore
) -> None:
    relay.write({"accounts": [gmail(FROM_FILE), gmail(ONE)]})
    await relay.mailboxes.remove(ONE)
    assert ONE in relay.accounts
    assert await store.load(ONE)
    assert ONE not in relay.added


async def test_one_lock_that_is_held_leaves_none_of_the_rest(
    relay: Operated, store: StubbornStore
) -> None:
    store.held.add(TWO)
    with pytest.raises(TokenStoreUnavailable):
        await relay.mailboxes.remove_all()
    assert set(relay.accounts) == {FROM_FILE}
    assert [await store.load(one) is None for one in (ONE, TWO, THREE)] == [True, False, True]
    store.held.clear()
    await relay.mailboxes.reload()
    assert await store.load(TWO) is None


async def test_a_file_that_became_wrong_leaves_the_grants_of_what_is_in_force(
    relay: Operated, store: StubbornStore
) -> None:
    good = relay.file.read_text()
    relay.file.write_text("{")
    with pytest.raises(ConfigError):
        await relay.mailboxes.remove(ONE)
    assert ONE in relay.accounts
    assert await store.load(ONE)
    relay.file.write_text(good)
    await relay.mailboxes.remove(ONE)
    assert ONE not in relay.accounts
    assert await store.load(ONE) is None


async def test_a_mailbox_that_was_signed_in_meanwhile_is_not_a_dead_one(
    relay: Operated, store: StubbornStore
) -> None:
    relay.answers.by_mailbox |= {ONE: DEAD, TWO: DEAD}
    counts = dict.fromkeys((ONE, TWO), 0)

    async def sign_in(mailbox: str) -> None:
        counts[mailbox] = counts.get(mailbox, 0) + 1
        if mailbox == ONE and counts[ONE] == 2:  # the renewal was the first
            await store.save(ONE, StoredGrant(refresh_token="given"))

    store.at_lock = sign_in
    pruned = await relay.mailboxes.remove_invalid()
    assert pruned.removed == [TWO]
    assert [email for email, _ in pruned.undecided] == [ONE]
    assert ONE in relay.accounts
    kept = await store.load(ONE)
    assert kept is not None
    assert kept.refresh_token == "given"


async def test_a_provider_is_asked_once_a_minute_at_an_operators_wish(relay: Operated) -> None:
    await relay.mailboxes.refresh(ONE)
    asked = len(relay.answers.asked)
    for ask in (lambda: relay.mailboxes.refresh(ONE.upper()), relay.mailboxes.remove_invalid):
        with pytest.raises(RefreshTooSoon, match=ONE) as caught:
            await ask()
        assert 0 < caught.value.wait_seconds <= 60
    assert len(relay.answers.asked) == asked
    await relay.mailboxes.refresh(TWO)
    relay.later_seconds = 60.0
    await relay.mailboxes.remove_invalid()
    assert len(relay.answers.asked) == asked + 4


async def test_asking_begins_anew_with_a_mailbox_that_is_added_again(relay: Operated) -> None:
    await relay.mailboxes.refresh(ONE)
    await relay.mailboxes.remove(ONE)
    await add(relay, ONE)
    await relay.mailboxes.refresh(ONE)
