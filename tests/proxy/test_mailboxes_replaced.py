"""Replacing a mailbox that was added: its grant, its token and what happens when it fails."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fragile_store import FragileStore
from tests.support.operated import Operated, gmail, operated
from tests.support.waiting import until
from xoauth2_proxy.errors import ConfigError, TokenEndpointRefused, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.additions import Proposal
from xoauth2_proxy.oauth.refresh import current_grant, issued_to
from xoauth2_proxy.oauth.stores import StoredGrant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from xoauth2_proxy.mailboxes.additions import AdditionResult

NEW = "new@example.com"


class WatchedStore(FragileStore):
    """A store that lets a test do something at a deletion."""

    at_deletion: Callable[[], object] = staticmethod(lambda: None)

    async def delete(self, mailbox: str) -> None:
        self.at_deletion()
        await super().delete(mailbox)


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
async def relay(tmp_path: Path, store: FragileStore) -> AsyncIterator[Operated]:
    async with operated(tmp_path, store=store) as relay:
        yield relay


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for a store that stays broken."""
    monkeypatch.setattr("xoauth2_proxy.mailboxes.additions.PAUSES_SECONDS", (0.0,))


async def add(relay: Operated, document: dict[str, Any], **options: bool) -> AdditionResult:
    return await relay.mailboxes.add([("", Proposal(document, **options))])


async def replace(relay: Operated, document: dict[str, Any], **options: bool) -> AdditionResult:
    return await add(relay, document, overwrite=True, **options)


def signed_in_only(**more: object) -> dict[str, Any]:
    """A mailbox whose owner signs in."""
    return {key: one for key, one in gmail(NEW, **more).items() if key != "refresh_token"}


async def sign_in(relay: Operated, store: FragileStore) -> StoredGrant:
    grant = StoredGrant(
        issued_to=issued_to(relay.accounts[NEW]), refresh_token="given", access_token="access"
    )
    await store.save(NEW, grant)
    return grant


def document_of(relay: Operated) -> dict[str, Any]:
    (file,) = (relay.file.parent / "state" / "accounts").glob("*.json")
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


# Where the mailbox goes, its grant does not.


@pytest.mark.parametrize(
    "change", [{"upstream": {"host": "elsewhere.example"}}, {"client_id": "another"}]
)
@pytest.mark.parametrize("verify", [True, False])
async def test_a_grant_does_not_follow_its_mailbox_to_another_server(
    relay: Operated, store: FragileStore, change: dict[str, Any], verify: bool
) -> None:
    await add(relay, signed_in_only())
    await sign_in(relay, store)
    result = await replace(relay, signed_in_only(**change), verify=verify)
    assert len(result.added) == 1
    assert await store.load(NEW) is None
    assert relay.answers.asked == []


async def test_an_access_token_does_not_follow_either(relay: Operated, store: FragileStore) -> None:
    await add(relay, signed_in_only())
    await sign_in(relay, store)
    await relay.tokens.refresh(relay.accounts[NEW])
    relay.forgotten.clear()
    relay.answers.asked.clear()
    await replace(relay, signed_in_only(upstream={"host": "elsewhere.example"}))
    assert relay.forgotten == [NEW, NEW]  # before it could go there, and once it could
    await relay.tokens.token_for(relay.accounts[NEW])
    assert relay.answers.asked == [(NEW, "")]


async def test_a_grant_of_a_mailbox_that_left_the_file_is_not_taken_over(
    relay: Operated, store: FragileStore
) -> None:
    """Nobody knows where it may go."""
    await add(relay, signed_in_only())
    grant = await sign_in(relay, store)
    await relay.mailboxes.remove(NEW)
    await store.save(NEW, grant)
    await add(relay, signed_in_only(upstream={"host": "elsewhere.example"}))
    assert await store.load(NEW) is None


async def test_a_grant_stays_where_the_mailbox_stays(relay: Operated, store: FragileStore) -> None:
    await add(relay, signed_in_only())
    grant = await sign_in(relay, store)
    await replace(relay, signed_in_only(password="another"))
    assert await store.load(NEW) == grant


async def test_a_refresh_token_that_was_replaced_is_not_used_at_another_server(
    relay: Operated, store: FragileStore
) -> None:
    """Its second use might end the grant that descends from it."""
    await add(relay, gmail(NEW))
    before = await store.grant(NEW)
    result = await replace(relay, gmail(NEW, upstream={"host": "elsewhere.example"}))
    ((_, error),) = result.failed
    assert isinstance(error, TokenEndpointRefused)
    assert "replaced this refresh token" in str(error)
    assert len(relay.answers.asked) == 1
    assert await store.grant(NEW) == before
    fresh = gmail(NEW, refresh_token="fresh", upstream={"host": "elsewhere.example"})
    assert len((await replace(relay, fresh)).added) == 1
    assert relay.answers.asked[-1] == (NEW, "fresh")


# A refresh token that the provider gives out only once.


async def test_a_token_replaced_on_trial_outlives_a_store_in_trouble(
    relay: Operated, store: FragileStore
) -> None:
    """The running source keeps it until the store takes it."""
    await add(relay, gmail(NEW))
    store.is_writable = False
    result = await replace(relay, gmail(NEW, password="another"))
    ((_, error),) = result.failed
    assert isinstance(error, TokenStoreUnavailable)
    store.is_writable = True
    relay.later_seconds = 100.0
    await relay.mailboxes.refresh(NEW)
    assert relay.answers.asked[-1] == (NEW, "rotated-2")


async def test_with_other_settings_a_token_replaced_on_trial_is_saved_as_soon_as_can_be(
    relay: Operated, store: FragileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.mailboxes.additions.PAUSES_SECONDS", (0.02,) * 400)
    await add(relay, gmail(NEW))
    store.is_writable = False
    asked = relay.answers.asked
    replacing = asyncio.create_task(replace(relay, gmail(NEW, client_secret="another")))
    await until(lambda: len(asked) == 2)
    store.is_writable = True
    assert len((await replacing).added) == 1
    assert (await store.grant(NEW)).refresh_token == "rotated-2"
    assert asked == [(NEW, f"refresh-of-{NEW}"), (NEW, "rotated-1")]


async def test_a_trial_that_fails_with_other_settings_leaves_no_trace(
    relay: Operated, store: FragileStore
) -> None:
    await add(relay, gmail(NEW))
    before = await store.grant(NEW)
    relay.answers.by_mailbox[NEW] = TokenEndpointRefused("no", oauth_error="invalid_client")
    assert (await replace(relay, gmail(NEW, client_secret="another"))).failed
    assert await store.grant(NEW) == before


@pytest.mark.parametrize("secret", ["a-client-secret", "another"])
async def test_a_token_replaced_on_trial_outlives_who_asked(
    relay: Operated, store: FragileStore, secret: str
) -> None:
    await add(relay, gmail(NEW))
    held = relay.answers.held[NEW] = asyncio.Event()
    replacing = asyncio.create_task(
        replace(relay, gmail(NEW, client_secret=secret, password="another"))
    )
    await until(lambda: len(relay.answers.asked) == 2)
    replacing.cancel()
    await asyncio.gather(replacing, return_exceptions=True)
    closing = asyncio.create_task(relay.mailboxes.close())
    held.set()
    await closing
    assert (await store.grant(NEW)).refresh_token == "rotated-2"
    assert document_of(relay)["client_secret"] == secret


async def test_a_new_mailbox_outlives_who_asked_for_it(
    relay: Operated, store: FragileStore
) -> None:
    relay.answers.may_answer.clear()
    adding = asyncio.create_task(add(relay, gmail(NEW)))
    await relay.answers.is_asked.wait()
    adding.cancel()
    await asyncio.gather(adding, return_exceptions=True)
    relay.answers.may_answer.set()
    await relay.mailboxes.close()
    assert NEW in relay.accounts
    assert (await store.grant(NEW)).refresh_token == "rotated-1"


# What cannot be put in force.


async def test_what_cannot_be_put_in_force_leaves_the_former_mailbox(
    relay: Operated, store: FragileStore
) -> None:
    await add(relay, gmail(NEW))
    before, written = await store.grant(NEW), document_of(relay)
    held = relay.answers.held[NEW] = asyncio.Event()
    other = gmail(NEW, client_id="another", refresh_token="fresh")
    replacing = asyncio.create_task(replace(relay, other))
    await until(lambda: len(relay.answers.asked) == 2)
    good = relay.file.read_text()
    relay.file.write_text("{")
    held.set()
    with pytest.raises(ConfigError):
        await replacing
    assert document_of(relay) == written
    assert await store.grant(NEW) == before
    relay.file.write_text(good)
    await relay.mailboxes.reload()
    account = relay.accounts[NEW]
    assert account.oauth.client_id == "a-client"
    assert current_grant(account, before, before.refreshed_at) is before


async def test_a_grant_that_was_taken_away_is_given_back(
    relay: Operated, store: WatchedStore
) -> None:
    await add(relay, signed_in_only())
    grant = await sign_in(relay, store)
    moved = signed_in_only(upstream={"host": "elsewhere.example"})
    store.at_deletion = lambda: relay.file.write_text("{")
    with pytest.raises(ConfigError):
        await replace(relay, moved)
    assert await store.load(NEW) == grant
    assert "upstream" not in document_of(relay)


@pytest.mark.usefixtures("briefly")
async def test_a_store_that_fails_at_the_end_leaves_nothing_new(
    relay: Operated, store: FragileStore
) -> None:
    relay.answers.may_answer.clear()
    adding = asyncio.create_task(add(relay, gmail(NEW)))
    await relay.answers.is_asked.wait()
    store.is_writable = False
    relay.answers.may_answer.set()
    with pytest.raises(TokenStoreUnavailable):
        await adding
    assert NEW not in relay.accounts
    assert not list((relay.file.parent / "state" / "accounts").glob("*.json"))
