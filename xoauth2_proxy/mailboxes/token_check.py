"""Checks that a token can be had for an account before the account is in force.

I1: a check that fails changes nothing.
I2: a refresh token that the provider replaces during a check is not lost: if it belongs to the
mailbox's own grant, the new one is saved before the check ends.
I3: a grant is never presented for an account that takes the mailbox to another server.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import TokenEndpointRefused, TokenStoreUnavailable
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import TokenRefreshes, current_grant, issued_to
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.interface import RelayControl
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

# Between attempts to save: the provider will not issue the same token again.
PAUSES_SECONDS = (0.5, 1.0, 2.0)


async def new_grant(relay: RelayControl, account: Account) -> StoredGrant | None:
    """Ask for a token; return the grant to save, None if it is saved already.

    Raises:
        TokenError: there is no token.
        OSError: the refresher needs a file that cannot be read.
    """
    # First, so that no token is asked for that could not be saved.
    stored = await relay.store.load(account.key)
    former = relay.accounts.get(account.key)
    if changes_servers(former, account):
        _refuse_replaced_token(account, stored)
    elif stored and current_grant(account, stored, EpochSeconds(time.time())) is stored:
        if former is not None and former.token_identity == account.token_identity:
            await relay.refresh(former)
        else:
            await _refresh(relay, account, _CheckStore(relay.store))
        return None
    separate = MemoryStore()
    await _refresh(relay, account, separate)
    return await separate.load(account.key)


async def _refresh(relay: RelayControl, account: Account, store: TokenStore) -> None:
    refresher = await asyncio.to_thread(relay.refresher, account.refresher)
    if refresher is None:
        raise TokenEndpointRefused(f"there is no refresher {account.refresher}")
    refreshes = TokenRefreshes({account.refresher: refresher}, store, relay.metrics)
    try:
        await refreshes.refresh(account, is_forced=True)
    finally:
        await refreshes.close()  # tries once more to save, also if this was cancelled


class _CheckStore:
    """The relay's store during a check: failures are not saved, and saving is tried again."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def load(self, mailbox: str) -> StoredGrant | None:
        return await self._store.load(mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        if grant.failure is None:
            await save_with_retries(self._store, mailbox, grant)

    async def delete(self, mailbox: str) -> None:
        await self._store.delete(mailbox)

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        return self._store.lock(mailbox)

    async def close(self) -> None:
        """Leave the store open: the relay uses it."""


async def save_with_retries(store: TokenStore, mailbox: str, grant: StoredGrant) -> None:
    """Save the grant; try again for some seconds. Raises `TokenStoreUnavailable`."""
    for pause_seconds in PAUSES_SECONDS:
        try:
            return await store.save(mailbox, grant)
        except TokenStoreUnavailable:
            await asyncio.sleep(pause_seconds)
    return await store.save(mailbox, grant)


def changes_servers(former: Account | None, account: Account) -> bool:
    """Whether the account takes the mailbox to other servers, which must not see its grant.

    A grant of a mailbox that is not in force may belong to any server.
    """
    return (
        former is None
        or former.upstream != account.upstream
        or issued_to(former) != issued_to(account)
    )


def _refuse_replaced_token(account: Account, stored: StoredGrant | None) -> None:
    """Raise for a replaced refresh token: its reuse may end the grant (RFC 9700 §4.14.2)."""
    given = account.oauth.refresh_token
    if (
        stored is not None
        and given
        and stored.issued_to == issued_to(account)
        and stored.descends_from == fingerprint(given)
        and stored.refresh_token != given
    ):
        raise TokenEndpointRefused(
            "the provider has replaced this refresh token by a newer one, which does not follow "
            "the mailbox to another server; revoke the grant first, or give another token"
        )
