"""The watch over the store: what it reports, when, and that a store that hangs holds up nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.fragile_store import FragileStore
from xoauth2_proxy.oauth import store_watch
from xoauth2_proxy.oauth.store_watch import StoreWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.simulated_time


class HangingStore(FragileStore):
    """Its check ends when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.checks = 0
        self.answers = asyncio.Event()

    async def check(self) -> None:
        self.checks += 1
        await self.answers.wait()


@asynccontextmanager
async def watched(store: FragileStore) -> AsyncIterator[list[str]]:
    """Yield the reports of a watch that has begun."""
    reports: list[str] = []
    watch = StoreWatch(store, reports.append)
    await watch.begin()
    running = asyncio.create_task(watch.run())
    yield reports
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_first_report_is_there_when_the_relay_has_started() -> None:
    async with watched(FragileStore()) as reports:
        assert reports == [""]


async def test_trouble_is_reported_until_it_is_over_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    store = FragileStore()
    async with watched(store) as reports:
        store.is_writable = False
        await asyncio.sleep(3.5 * store_watch.CHECK_SECONDS)
        assert set(reports[2:]) == {"no space left on device"}
        store.is_writable = True
        await asyncio.sleep(store_watch.CHECK_SECONDS)
        assert reports[-1] == ""
    assert [one.getMessage() for one in caplog.records] == [
        "no mailbox can get tokens: no space left on device",
        "the store of tokens works again",
    ]


async def test_a_store_that_hangs_is_reported_and_not_asked_twice() -> None:
    store = HangingStore()
    async with asyncio.timeout(1.5), watched(store) as reports:
        assert reports == ["no answer in time"]
    async with watched(store) as reports:
        await asyncio.sleep(10 * store_watch.CHECK_SECONDS)
        assert (store.checks, set(reports)) == (2, {"no answer in time"})
        store.answers.set()
        await asyncio.sleep(2 * store_watch.CHECK_SECONDS)
        assert reports[-1] == ""


async def test_a_defect_of_a_store_is_reported_and_does_not_end_the_watch() -> None:
    store = FragileStore()
    store.breaks_with = RuntimeError("secret")
    async with watched(store) as reports:
        assert reports == ["unexpected RuntimeError"]
        store.breaks_with = None
        await asyncio.sleep(2 * store_watch.CHECK_SECONDS)
        assert reports[-1] == ""
