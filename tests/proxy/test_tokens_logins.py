"""What the mail server said of a mailbox's last login is kept beside its grant, for `status`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.refreshers import ScriptedRefresher
from tests.support.waiting import until
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import State, status_of
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ACCOUNT = replace(
    mailbox("someone@example.com"),
    refresher="outlook",
    oauth=OAuthClient(client_id="relay", refresh_token="0.one"),
)
DISABLED = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox"
)


class Counting(MemoryStore):
    saves = 0

    async def save(self, mailbox: str, grant: object) -> None:
        self.saves += 1
        await super().save(mailbox, grant)  # type: ignore[arg-type]


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
async def source(store: Counting) -> AsyncIterator[TokenSource]:
    made = TokenSource({"outlook": ScriptedRefresher()}, Metrics(), store)
    await made.token_for(ACCOUNT)
    yield made
    await made.close()


async def state(store: MemoryStore) -> State:
    grant = await store.load(ACCOUNT.key)
    assert grant is not None
    return status_of(ACCOUNT, grant, EpochSeconds(grant.refreshed_at + 1), 14).state


async def test_a_mailbox_that_cannot_log_in_is_not_well(
    source: TokenSource, store: Counting
) -> None:
    assert await state(store) is State.OK
    source.note_login(ACCOUNT, DISABLED)

    async def is_misconfigured() -> bool:
        return await state(store) is State.MISCONFIGURED

    await until(is_misconfigured)
    grant = await store.load(ACCOUNT.key)
    assert grant is not None
    found = status_of(ACCOUNT, grant, EpochSeconds(grant.refreshed_at + 1), 14)
    assert "5.7.139" in found.last_error
    assert "Set-CASMailbox" in found.remedy


async def test_a_login_that_succeeds_again_makes_it_well(
    source: TokenSource, store: Counting
) -> None:
    source.note_login(ACCOUNT, DISABLED)
    await until(lambda: store.saves == 2)
    source.note_login(ACCOUNT)
    await until(lambda: store.saves == 3)
    assert await state(store) is State.OK


async def test_what_is_known_is_not_written_again(source: TokenSource, store: Counting) -> None:
    for _ in range(3):
        source.note_login(ACCOUNT)
    source.note_login(ACCOUNT, DISABLED)
    await until(lambda: store.saves == 2)
    for _ in range(3):
        source.note_login(ACCOUNT, DISABLED)
    await source.close()
    assert store.saves == 2
