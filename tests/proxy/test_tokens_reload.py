"""Tokens across a reload: what began before it never gets what belongs to what came after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import TokenEndpointUnavailable
from xoauth2_proxy.oauth.refresh import issued_to
from xoauth2_proxy.oauth.stores import StoredGrant

if TYPE_CHECKING:
    from tests.support.fragile_store import FragileStore
    from tests.support.refreshers import ScriptedRefresher
    from xoauth2_proxy.oauth.token_source import TokenSource

CLIENT = OAuthClient(client_id="relay", refresh_token="1//one", issuer="https://a.example")
BEFORE = replace(mailbox("someone@example.com"), oauth=CLIENT)
AFTER = replace(BEFORE, oauth=replace(CLIENT, issuer="https://b.example"))


@pytest.fixture
async def source(source: TokenSource, refresher: ScriptedRefresher) -> TokenSource:
    source.use({"mock": refresher}, [BEFORE])
    return source


async def test_an_account_of_the_past_gets_its_own_last_token(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    old = await source.token_for(BEFORE)
    source.use({"mock": refresher}, [AFTER])
    new = await source.token_for(AFTER)
    assert new.value != old.value
    assert await source.token_for(BEFORE) is old
    assert len(refresher.asked) == 2


async def test_without_a_last_token_an_account_of_the_past_gets_none(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    source.use({"mock": refresher}, [AFTER])
    await source.token_for(AFTER)
    with pytest.raises(TokenEndpointUnavailable, match="settings have changed"):
        await source.token_for(BEFORE)
    with pytest.raises(TokenEndpointUnavailable, match="settings have changed"):
        await source.refresh(BEFORE)


async def test_nothing_is_asked_or_kept_for_a_removed_account(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    old = await source.token_for(BEFORE)
    await store.delete(BEFORE.key)
    source.use({"mock": refresher}, [])
    assert await source.token_for(BEFORE) is old
    assert not source.invalidate(BEFORE, old)
    assert await store.load(BEFORE.key) is None
    assert len(refresher.asked) == 1


async def test_forgetting_takes_the_last_token_away(
    source: TokenSource, refresher: ScriptedRefresher
) -> None:
    await source.token_for(BEFORE)
    source.use({"mock": refresher}, [])
    source.forget(BEFORE.key)
    with pytest.raises(TokenEndpointUnavailable):
        await source.token_for(BEFORE)


async def test_a_refresh_token_is_not_shown_to_another_authorization_server(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore
) -> None:
    signed_in = StoredGrant(
        issued_to=issued_to(replace(BEFORE, oauth=replace(CLIENT, refresh_token=""))),
        refresh_token="1//a person's",
    )
    await store.save(BEFORE.key, signed_in)
    moved = replace(AFTER, oauth=replace(AFTER.oauth, refresh_token=""))
    source.use({"mock": refresher}, [moved])
    await source.token_for(moved)
    assert refresher.presented == [""]
