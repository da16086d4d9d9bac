"""The look after all mailboxes: figures, warnings that come once, and the webhook."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.oauth_client import OAuthClient, fingerprint
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.expiry_monitor import ExpiryMonitor, mailbox_statuses
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import State
from xoauth2_proxy.oauth.refresh import issued_to
from xoauth2_proxy.oauth.stores import Failure, StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trustme

    from xoauth2_proxy.accounts.accounts import Account

NOW = 1_800_000_000.0
DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def account(name: str = "alice", **client: object) -> Account:
    oauth = OAuthClient(client_id="id", refresh_token="rt")
    made = mailbox(f"{name}@example.com")
    return replace(
        made,
        provider="work",
        refresher="outlook",
        oauth=replace(oauth, **client),  # type: ignore[arg-type]
    )


def grant(owner: Account, kind: str = "", **changes: object) -> StoredGrant:
    failure = None
    if kind:
        at = EpochSeconds(NOW)
        failure = Failure(kind=kind, oauth_error="", text="no", at=at)  # type: ignore[arg-type]
    made = StoredGrant(
        issued_to=issued_to(owner),
        descends_from=fingerprint("rt"),
        refresh_token="rt",
        signed_in_at=EpochSeconds(NOW - DAY),
        access_token="at",
        access_token_expires_at=EpochSeconds(NOW + 3000),
        refreshed_at=EpochSeconds(NOW - 600),
        failure=failure,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Scene:
    """Mailboxes, their store and the watch over them."""

    accounts: list[Account] = field(default_factory=lambda: [account()])
    store: MemoryStore = field(default_factory=MemoryStore)
    metrics: Metrics = field(default_factory=Metrics)
    clock: Clock = field(default_factory=Clock)

    def watch(self, webhook: Webhook | None = None) -> ExpiryMonitor:
        return ExpiryMonitor(
            self.store, self.metrics, lambda: self.accounts, 14, webhook, self.clock
        )

    def count(self, state: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "xoauth2_proxy_mailboxes", {"provider": "work", "state": state}
        )


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    found = [
        (record.getMessage(), getattr(record, "fields", {}))
        for record in caplog.records
        if record.name == "xoauth2_proxy.watch"
    ]
    caplog.clear()
    return found


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "xoauth2_proxy")
    return caplog


# Figures.


async def test_mailboxes_are_counted_by_state() -> None:
    scene = Scene([account("a"), account("b"), account("c")])
    await scene.store.save("a@example.com", grant(scene.accounts[0]))
    await scene.store.save("b@example.com", grant(scene.accounts[1], "revoked"))
    watch = scene.watch()
    await watch.check_all()
    assert scene.count("ok") == 1
    assert scene.count("sign_in_needed") == 1
    assert scene.count("unused") == 1
    await scene.store.save("b@example.com", grant(scene.accounts[1]))
    await watch.check_all()
    assert scene.count("ok") == 2
    assert scene.count("sign_in_needed") == 0


async def test_a_grant_of_another_client_does_not_count() -> None:
    owner = account()
    scene = Scene([replace(owner, oauth=replace(owner.oauth, client_id="other"))])
    await scene.store.save(owner.key, grant(owner, "revoked"))
    assert [one.state for one in await scene.watch().check_all()] == [State.UNUSED]


# Warnings.


async def test_a_mailbox_that_needs_a_person_is_warned_of_once_a_day(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    await scene.store.save("alice@example.com", grant(scene.accounts[0], "revoked"))
    watch = scene.watch()
    await watch.check_all()
    ((message, fields),) = said(caplog)
    assert message == "mailbox needs a person"
    assert fields == {
        "account": "alice@example.com",
        "provider": "work",
        "state": "sign_in_needed",
        "days_left": 0.0,
        "reason": "no",
        "remedy": "sign in again: xoauth2-proxy login alice@example.com",
    }
    scene.clock.now += DAY - 1
    await watch.check_all()
    assert said(caplog) == []
    scene.clock.now += 2
    await watch.check_all()
    assert [message for message, _ in said(caplog)] == ["mailbox needs a person"]


async def test_a_mailbox_that_is_well_again_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    watch = scene.watch()
    await scene.store.save("alice@example.com", grant(scene.accounts[0], "revoked"))
    await watch.check_all()
    await scene.store.save("alice@example.com", grant(scene.accounts[0], "unavailable"))
    await watch.check_all()  # no news: neither well nor in need
    await scene.store.save("alice@example.com", grant(scene.accounts[0]))
    await watch.check_all()
    assert [message for message, _ in said(caplog)] == [
        "mailbox needs a person",
        "mailbox is well again",
    ]
    await watch.check_all()
    assert said(caplog) == []


async def test_a_mailbox_that_was_removed_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    watch = scene.watch()
    await scene.store.save("alice@example.com", grant(scene.accounts[0], "revoked"))
    await watch.check_all()
    removed, scene.accounts = scene.accounts, []
    await watch.check_all()
    scene.accounts = removed
    await watch.check_all()
    assert len(said(caplog)) == 2


# Stores that fail, and many mailboxes.


class CountingStore(MemoryStore):
    """Tells how many grants were asked for, and at most how many at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.at_one_time = self.most = 0
        self.is_broken = False

    async def load(self, mailbox: str) -> StoredGrant | None:
        self.asked += 1
        self.at_one_time += 1
        self.most = max(self.most, self.at_one_time)
        await asyncio.sleep(0)
        self.at_one_time -= 1
        if self.is_broken:
            raise TokenStoreUnavailable("the disk is gone")
        return await super().load(mailbox)


async def test_thousands_of_mailboxes_are_looked_at_some_at_a_time() -> None:
    store = CountingStore()
    accounts = [account(str(number)) for number in range(2000)]
    found = await mailbox_statuses(accounts, store, EpochSeconds(NOW), 14)
    assert [one.mailbox for one in found] == [one.email for one in accounts]
    assert store.asked == 2000
    assert 1 < store.most <= 50


async def test_a_store_that_fails_is_told_of_and_not_asked_for_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene([account(str(number)) for number in range(200)])
    broken = scene.store = CountingStore()
    broken.is_broken = True
    found = await scene.watch().check_all()
    assert {one.state for one in found} == {State.TROUBLE}
    assert "the disk is gone" in found[-1].reason
    assert broken.asked == 50
    assert scene.count("trouble") == 200
    assert said(caplog) == []


async def test_mailboxes_without_a_grant_need_no_store() -> None:
    scene = Scene([replace(account(), oauth=OAuthClient()), mailbox("mock@example.com")])
    broken = scene.store = CountingStore()
    broken.is_broken = True
    assert [one.state for one in await scene.watch().check_all()] == [State.OWN_TOKEN, State.MOCK]


# The webhook.

SECRET = "T0K3N-of-the-webhook"


@dataclass
class Hook:
    """Somebody's webhook: what it was told, and what it answers."""

    statuses: list[int] = field(default_factory=list)  # then 200
    heard: list[dict[str, object]] = field(default_factory=list)
    port: int = 0

    async def post(self, request: web.Request) -> web.Response:
        assert request.query["key"] == SECRET
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.heard.append(json.loads(await request.text()))
        headers = {"Location": "http://127.0.0.1:1/"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)

    def webhook(self, scheme: str = "http", context: ssl.SSLContext | None = None) -> Webhook:
        url = f"{scheme}://localhost:{self.port}/{SECRET}?key={SECRET}"
        return Webhook(url, tls_context=context, pause_seconds=0.0)


@asynccontextmanager
async def hooked(hook: Hook, context: ssl.SSLContext | None = None) -> AsyncIterator[Hook]:
    app = web.Application()
    app.router.add_post(f"/{SECRET}", hook.post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
        hook.port = runner.addresses[0][1]
        yield hook
    finally:
        await runner.cleanup()


async def in_need(scene: Scene) -> None:
    await scene.store.save("alice@example.com", grant(scene.accounts[0], "revoked"))


async def test_the_webhook_is_told_as_json() -> None:
    scene = Scene()
    async with hooked(Hook()) as hook:
        watch = scene.watch(hook.webhook())
        await in_need(scene)
        await watch.check_all()
        await watch.check_all()
        await scene.store.save("alice@example.com", grant(scene.accounts[0]))
        await watch.check_all()
    need, well = hook.heard
    assert need == {
        "version": 1,
        "event": "needs_a_person",
        "mailbox": "alice@example.com",
        "provider": "work",
        "state": "sign_in_needed",
        "days_left": 0.0,
        "reason": "no",
        "remedy": "sign in again: xoauth2-proxy login alice@example.com",
        "at": "2027-01-15T08:00:00Z",
    }
    assert (well["event"], well["state"]) == ("well", "ok")


async def test_a_webhook_in_trouble_is_tried_again() -> None:
    scene = Scene()
    async with hooked(Hook([503, 429])) as hook:
        await in_need(scene)
        await scene.watch(hook.webhook()).check_all()
    assert len(hook.heard) == 1


async def test_what_a_webhook_misses_is_told_at_the_next_look() -> None:
    scene = Scene()
    async with hooked(Hook([503] * 3)) as hook:
        watch = scene.watch(hook.webhook())
        await in_need(scene)
        await watch.check_all()
        assert hook.heard == []
        await watch.check_all()
    assert [one["event"] for one in hook.heard] == ["needs_a_person"]


async def test_a_webhook_that_is_down_keeps_nobody_waiting_for_each_mailbox() -> None:
    scene = Scene([account(str(number)) for number in range(20)])
    for one in scene.accounts:
        await scene.store.save(one.key, grant(one, "revoked"))
    async with hooked(Hook([503] * 3)) as hook:
        watch = scene.watch(hook.webhook())
        await watch.check_all()
        assert hook.statuses == []
        await watch.check_all()
    assert len(hook.heard) == 20


@pytest.mark.parametrize("status", [400, 404, 302])
async def test_a_refused_notice_is_not_repeated(status: int) -> None:
    scene = Scene()
    async with hooked(Hook([status])) as hook:
        watch = scene.watch(hook.webhook())
        await in_need(scene)
        await watch.check_all()
        await watch.check_all()
    assert hook.heard == []


async def test_the_webhook_s_secret_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    async with hooked(Hook([404])) as hook:
        await in_need(scene)
        await scene.watch(hook.webhook()).check_all()
    # And one that nobody serves any more.
    scene = Scene()
    await in_need(scene)
    await scene.watch(hook.webhook()).check_all()
    failures = [record for record in caplog.records if record.getMessage() == "webhook failed"]
    assert [vars(record)["fields"]["webhook"] for record in failures] == ["http://localhost"] * 2
    assert "HTTP 404" in vars(failures[0])["fields"]["error"]
    assert not any(SECRET in str(vars(record)) for record in caplog.records)


async def test_a_webhook_that_stays_down_is_complained_of_once_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    clock = Clock()
    webhook = Webhook("http://localhost:1/", pause_seconds=0.0, clock=clock)
    watch = scene.watch(webhook)
    await in_need(scene)
    await watch.check_all()
    await watch.check_all()
    assert sum(record.getMessage() == "webhook failed" for record in caplog.records) == 1
    clock.now += 3601
    await watch.check_all()
    assert sum(record.getMessage() == "webhook failed" for record in caplog.records) == 2


async def test_the_webhook_s_certificate_is_checked(authority: trustme.CA) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    scene = Scene()
    await in_need(scene)
    async with hooked(Hook(), served) as hook:
        await scene.watch(hook.webhook("https")).check_all()
        assert hook.heard == []
        await scene.watch(hook.webhook("https", trusting)).check_all()
        assert len(hook.heard) == 1


async def test_the_watch_goes_on_after_a_look_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looked = asyncio.Event()

    def broken() -> list[Account]:
        looked.set()
        raise RuntimeError("nobody expected this")

    scene = Scene()
    watch = ExpiryMonitor(scene.store, scene.metrics, broken, 14, None, scene.clock)
    task = asyncio.create_task(watch.run())
    await looked.wait()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert any("the check of the mailboxes failed" in one.getMessage() for one in caplog.records)
