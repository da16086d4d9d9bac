"""Tries whether a token can be had for an account before it is in force.

I1: a trial that fails leaves no trace.
I2: a refresh token that the provider replaced on trial is not lost: where the mailbox's own grant
was used, the new one is in the store before the trial is over.
I3: a grant is not tried for an account that takes the mailbox to another server.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import TokenEndpointRefused, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.ports import asks_alike
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import Renewals, current_grant, issued_to
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.ports import Running
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

# Between attempts to save, while the provider will not give the same token again.
PAUSES_SECONDS = (0.5, 1.0, 2.0)


class Trials:
    """Asks providers for tokens on trial."""

    def __init__(self, running: Running, store: TokenStore, metrics: Metrics) -> None:
        self._running = running
        self._store = store
        self._metrics = metrics

    async def grant_of(self, account: Account) -> StoredGrant | None:
        """Ask for a token; return the grant to keep, None if it is kept.

        Raises:
            TokenError: there is no token.
            OSError: there is no refresher, for a file is wrong.
        """
        kept = await self._store.load(account.key)  # else a token is asked for that cannot be kept
        former = self._running.accounts.get(account.key)
        if leads_elsewhere(former, account):
            _refuse_to_repeat(account, kept)
        elif kept is not None and _current(account, kept) is kept:
            if former is not None and asks_alike(former, account):
                await self._running.renew(former)
            else:
                await self._renew(account, _Careful(self._store))
            return None
        beside = MemoryStore()
        await self._renew(account, beside)
        return await beside.load(account.key)

    async def _renew(self, account: Account, store: TokenStore) -> None:
        refresher = await asyncio.to_thread(self._running.refresher, account.refresher)
        if refresher is None:
            raise TokenEndpointRefused(f"there is no refresher {account.refresher}")
        renewals = Renewals({account.refresher: refresher}, store, self._metrics)
        try:
            await renewals.renew(account, is_forced=True)
        finally:
            await renewals.close()  # the last attempt to save, also where this was cancelled


class _Careful:
    """The store, as a trial uses it: failures stay away from it, and saving is tried again."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def load(self, mailbox: str) -> StoredGrant | None:
        return await self._store.load(mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        if grant.failure is None:
            await save_patiently(self._store, mailbox, grant)

    async def delete(self, mailbox: str) -> None:
        await self._store.delete(mailbox)

    @asynccontextmanager
    async def lock(self, mailbox: str) -> AsyncIterator[None]:
        async with self._store.lock(mailbox):
            yield

    async def close(self) -> None:
        """Leave the store open: it is the relay's."""


async def save_patiently(store: TokenStore, mailbox: str, grant: StoredGrant) -> None:
    """Save, and try again for some seconds. Raises `TokenStoreUnavailable`."""
    for pause_seconds in PAUSES_SECONDS:
        try:
            return await store.save(mailbox, grant)
        except TokenStoreUnavailable:
            await asyncio.sleep(pause_seconds)
    return await store.save(mailbox, grant)


def leads_elsewhere(former: Account | None, account: Account) -> bool:
    """Whether the account takes the mailbox to other servers, which its grant must not reach.

    Of a mailbox that is not in force nobody knows where its grant, if there is one, may go.
    """
    return (
        former is None
        or former.upstream != account.upstream
        or issued_to(former) != issued_to(account)
    )


def _refuse_to_repeat(account: Account, kept: StoredGrant | None) -> None:
    """Raise for a refresh token that has been replaced: to use it again may end the whole grant.

    RFC 9700 §4.14.2.
    """
    given = account.oauth.refresh_token
    if (
        kept is not None
        and given
        and kept.issued_to == issued_to(account)
        and kept.descends_from == fingerprint(given)
        and kept.refresh_token != given
    ):
        raise TokenEndpointRefused(
            "the provider has replaced this refresh token by a newer one, which does not follow "
            "the mailbox to another server; revoke the grant first, or give another token"
        )


def _current(account: Account, kept: StoredGrant) -> StoredGrant:
    return current_grant(account, kept, EpochSeconds(time.time()))
