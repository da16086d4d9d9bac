"""What the mail server said of a mailbox's last login is kept beside its grant, for `status`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.refreshers import signed_in
from tests.support.waiting import until
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointUnavailable, TokenError
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import MailboxStatus, State, status_of

if TYPE_CHECKING:
    from tests.support.fragile_store import FragileStore
    from tests.support.refreshers import ScriptedRefresher
    from xoauth2_proxy.oauth.token_source import TokenSource

ACCOUNT = replace(signed_in(), refresher="outlook")
DISABLED = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox"
)


@pytest.fixture
async def source(source: TokenSource) -> TokenSource:
    await source.token_for(ACCOUNT)
    return source


async def status(store: FragileStore) -> MailboxStatus:
    grant = await store.grant()
    return status_of(ACCOUNT, grant, EpochSeconds(grant.refreshed_at + 1), 14)


async def test_a_mailbox_that_cannot_log_in_is_not_well(
    source: TokenSource, store: FragileStore
) -> None:
    assert (await status(store)).state is State.OK
    source.note_login(ACCOUNT, DISABLED)
    await until(lambda: store.saves == 2)
    found = await status(store)
    assert found.state is State.MISCONFIGURED
    assert "5.7.139" in found.last_error
    assert "Set-CASMailbox" in found.remedy


async def test_a_login_that_succeeds_again_makes_it_well(
    source: TokenSource, store: FragileStore
) -> None:
    source.note_login(ACCOUNT, DISABLED)
    await until(lambda: store.saves == 2)
    source.note_login(ACCOUNT)
    await until(lambda: store.saves == 3)
    assert (await status(store)).state is State.OK


@pytest.mark.parametrize(
    "error",
    [
        TokenEndpointUnavailable("login.example gave no answer in time"),
        GrantRevoked("no one has signed in yet"),
        GrantRevoked("AADSTS50173", oauth_error="invalid_grant"),
    ],
)
async def test_a_login_does_not_hide_why_a_token_request_failed(
    source: TokenSource, refresher: ScriptedRefresher, store: FragileStore, error: TokenError
) -> None:
    refresher.fails_with = error
    with pytest.raises(TokenError):
        await source.refresh(ACCOUNT)
    source.note_login(ACCOUNT, DISABLED)
    source.note_login(ACCOUNT)
    await source.close()
    assert str(error) in (await status(store)).last_error


async def test_what_is_known_is_not_written_again(source: TokenSource, store: FragileStore) -> None:
    for _ in range(3):
        source.note_login(ACCOUNT)
    source.note_login(ACCOUNT, DISABLED)
    await until(lambda: store.saves == 2)
    for _ in range(3):
        source.note_login(ACCOUNT, DISABLED)
    await source.close()
    assert store.saves == 2
