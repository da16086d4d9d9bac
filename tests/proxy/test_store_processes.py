"""Processes that share a store: they lose no update, and one that is killed stops nobody."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.store_places import REDIS, Place
from tests.support.store_user import store_user
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.stores import TokenStore

pytestmark = pytest.mark.one_loop

MAILBOX = "someone@example.com"
PROCESSES = 3
TIMES = 30
KILLS = 8


@pytest.fixture(params=["file", REDIS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_no_increment_is_lost(place: Place) -> None:
    async with AsyncExitStack() as stack:
        users = [
            await stack.enter_async_context(
                store_user("count", TIMES, MAILBOX, place.kind, place.where)
            )
            for _ in range(PROCESSES)
        ]
        for user in users:
            user.begin()
        said = [line for user in users for line in await user.rest()]
    assert sorted(said) == sorted(f"counted {one + 1}" for one in range(PROCESSES * TIMES))


async def test_the_lock_of_a_killed_process_is_free(place: Place) -> None:
    store = place.open()
    async with store_user("hold", 0, MAILBOX, place.kind, place.where) as user:
        user.begin()
        assert await user.line() == "held"
        is_free = asyncio.Event()
        waiting = asyncio.create_task(enter(store, is_free))
        await user.kill()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await is_free.wait()
        await waiting


async def enter(store: TokenStore, is_free: asyncio.Event) -> None:
    async with store.lock(MAILBOX):
        is_free.set()


@pytest.mark.parametrize("kind", ["file"])
async def test_killed_while_it_saves_leaves_the_old_grant_or_the_new_one(place: Place) -> None:
    store = place.open()
    for _ in range(KILLS):
        async with store_user("save", 0, MAILBOX, place.kind, place.where) as user:
            user.begin()
            for _ in range(random.randrange(1, 6)):
                saved = int(await user.line())
            # Not to wait for anything, but to hit the next save at some point of its work.
            await asyncio.sleep(random.uniform(0, 0.004))
            saved = max([saved, *(int(line) for line in await user.kill())])
        kept = await store.load(MAILBOX)
        assert kept is not None
        assert int(kept.refresh_token) in {saved, saved + 1}
        assert len(kept.scope) == int(kept.refresh_token) * 7919 % 20_000
