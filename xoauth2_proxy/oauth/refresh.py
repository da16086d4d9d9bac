"""One refresh, from the store's lock to the store: what is alike for every provider.

I1: no two processes that share a store refresh a mailbox at the same time; who waited takes what
the other one got.
I2: a refresh token that the provider replaced is in the store before the access token beside it is
used; until the store takes it, it is kept here and nothing else is asked for.
I3: a grant is never deleted here, whatever the provider says, and replaced by one that works only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.oauth.grant import AccessToken, EpochSeconds, Grant, Monotonic
from xoauth2_proxy.oauth.stores import Failure, StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_request import Asking, kind_of
from xoauth2_proxy.oauth.token_state import FORCED_SECONDS, REVOKED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import Issued
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.oauth.token_request import Clock

_SKEW_SECONDS = 60.0  # by how much clocks of machines that share a store may differ
_CLOSE_SECONDS = 5.0  # for what the store has not taken yet

_log = log.logger("oauth")


@dataclass(frozen=True, slots=True)
class _Unsaved:
    """A grant that the store has not taken yet."""

    account: Account
    before: StoredGrant  # what it replaces; if something else is in the store, that counts
    grant: StoredGrant


class Renewals:
    """Renews tokens of any account."""

    def __init__(
        self,
        refreshers: Mapping[str, Refresher],
        store: TokenStore,
        metrics: Metrics,
        clock: Clock = time,
    ) -> None:
        self._store = store
        self._memory = MemoryStore()  # for accounts that have nothing worth keeping
        self._clock = clock
        self._asking = Asking(refreshers, metrics, clock)
        self._unsaved: dict[str, _Unsaved] = {}
        self._failed: dict[str, tuple[object, ...]] = {}  # origins of grants that failed last

    async def renew(
        self,
        account: Account,
        *,
        unwanted: str = "",
        is_refused: bool = False,
        is_forced: bool = False,
    ) -> AccessToken:
        """Return an access token that is not due for renewal: the store's, or a new one.

        `unwanted` is an access token that will not do: it is due, or was refused upstream; then
        others that are not brand-new are as suspect. `is_forced` asks the provider whatever the
        store holds.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
            TokenStoreUnavailable: transient; no token was asked for, or a new one is not safe yet.
        """
        async with self._store_of(account).lock(account.key):
            kept = await self._recalled(account)
            if not is_forced:
                token = self._in_use(account, kept, unwanted, is_refused=is_refused)
                if token is not None:
                    return token
                self._raise_if_dead(account, kept)
            return await self._refresh(account, kept)

    async def has_changed(self, account: Account) -> bool:
        """Whether the store's grant is another than failed last: somebody mended or renewed it."""
        try:
            kept = self._current(account, await self._store_of(account).load(account.key))
        except TokenStoreUnavailable:
            return False
        return self._failed.get(account.key, ()) != _origin(kept)

    async def unused_seconds(self, account: Account) -> float:
        """Return how long ago the grant was last used by anyone; infinite if that is not known."""
        try:
            kept = self._current(account, await self._store_of(account).load(account.key))
        except TokenStoreUnavailable:
            return float("inf")
        return self._clock.time() - kept.refreshed_at if kept.refreshed_at else float("inf")

    async def note_login(self, account: Account, refusal: str) -> None:
        """Keep beside the grant that the mail server refused the mailbox, or does so no more."""
        failure = None
        if refusal:
            at = EpochSeconds(self._clock.time())
            failure = Failure(kind="refused", oauth_error="", text=refusal, at=at)
        store = self._store_of(account)
        with suppress(TokenStoreUnavailable):
            async with store.lock(account.key):
                kept = await store.load(account.key)
                if kept is not None and self._current(account, kept) is kept:
                    is_ours = kept.failure is None or not kept.failure.oauth_error
                    if is_ours and kept.failure != failure:
                        await store.save(account.key, replace(kept, failure=failure))

    def use(self, refreshers: Mapping[str, Refresher]) -> None:
        """Ask other refreshers from now on."""
        self._asking.refreshers = refreshers

    def forget(self, key: str) -> None:
        """Drop what is known of an account's failures."""
        self._failed.pop(key, None)

    def stop(self) -> None:
        """Ask for nothing more: renewals that still wait for their turn fail."""
        self._asking.is_stopping = True

    async def close(self) -> None:
        """Bring to the store what it has not taken yet, for some seconds, and release it."""
        await asyncio.gather(*(self._last_try(one.account) for one in [*self._unsaved.values()]))
        await self._store.close()

    async def _last_try(self, account: Account) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS), self._store.lock(account.key):
                await self._recalled(account)
        except (TokenStoreUnavailable, TimeoutError) as error:
            reason = str(error) or "no time left"
            _log.event(logging.ERROR, "newest grant lost", account=account.key, error=reason)

    def _store_of(self, account: Account) -> TokenStore:
        return self._memory if account.oauth.is_empty else self._store

    def _current(self, account: Account, kept: StoredGrant | None) -> StoredGrant:
        return current_grant(account, kept, EpochSeconds(self._clock.time()))

    async def _recalled(self, account: Account) -> StoredGrant:
        """Return the grant that counts; what the store has not taken yet is brought there first."""
        store = self._store_of(account)
        kept = self._current(account, await store.load(account.key))
        unsaved = self._unsaved.get(account.key)
        if unsaved is not None:
            if _origin(kept) == _origin(unsaved.before):
                await store.save(account.key, unsaved.grant)
                kept = self._current(account, unsaved.grant)
            del self._unsaved[account.key]
        return kept

    def _in_use(
        self, account: Account, kept: StoredGrant, unwanted: str, *, is_refused: bool
    ) -> AccessToken | None:
        """Return the store's access token unless it is due for renewal or unwanted."""
        if not kept.access_token or kept.access_token == unwanted:
            return None
        age_seconds = self._clock.time() - kept.refreshed_at
        lifetime_seconds = kept.access_token_expires_at - kept.refreshed_at
        window_seconds = min(account.oauth.refresh_window_seconds, lifetime_seconds / 4)
        left_seconds = lifetime_seconds - max(0.0, age_seconds)
        # A date in the future: the clock was wrong then, or is now.
        if age_seconds < -_SKEW_SECONDS or not left_seconds > window_seconds:
            return None
        if is_refused and age_seconds >= FORCED_SECONDS:
            return None
        expires_at = Monotonic(self._clock.monotonic() + left_seconds)
        return AccessToken.ending(kept.access_token, expires_at, window_seconds)

    def _raise_if_dead(self, account: Account, kept: StoredGrant) -> None:
        failure = kept.failure
        if failure is None or failure.kind != "revoked":
            return
        if abs(self._clock.time() - failure.at) < REVOKED_SECONDS:
            self._failed[account.key] = _origin(kept)
            raise GrantRevoked(failure.text, oauth_error=failure.oauth_error)

    async def _refresh(self, account: Account, kept: StoredGrant) -> AccessToken:
        grant = Grant(mailbox=account.email, client=account.oauth, refresh_token=kept.refresh_token)
        try:
            issued, asked_at = await self._asking.ask(account, grant)
            took_seconds = self._clock.monotonic() - asked_at
            asked_on = EpochSeconds(self._clock.time() - took_seconds)
            kept = await self._keep(account, kept, renewed_grant(kept, issued, asked_on))
            _check(issued)
        except TokenError as error:
            self._failed[account.key] = _origin(await self._noted(account, kept, error))
            raise
        # A token's life begins before its answer arrives.
        return AccessToken.issued(
            issued.access_token,
            asked_at,
            issued.lifetime_seconds,
            account.oauth.refresh_window_seconds,
        )

    async def _keep(
        self, account: Account, before: StoredGrant, renewed: StoredGrant
    ) -> StoredGrant:
        key = account.key
        self._unsaved[key] = _Unsaved(account, before, renewed)  # in case that saving is cut short
        try:
            await self._store_of(account).save(key, renewed)
        except TokenStoreUnavailable as error:
            if renewed.refresh_token != before.refresh_token:
                raise
            _log.event(logging.WARNING, "token not kept yet", account=key, error=error)
        else:
            del self._unsaved[key]
        return renewed

    async def _noted(self, account: Account, kept: StoredGrant, error: TokenError) -> StoredGrant:
        """Keep the failure beside its grant, and return what the store holds then."""
        kind = kind_of(error)
        if kind is None or (self._asking.is_stopping and error.is_transient):
            return kept
        if error.is_transient and kept.failure is not None and kept.failure.kind == "revoked":
            return kept  # a dead grant is not better for the endpoint being out of reach
        at = EpochSeconds(self._clock.time())
        failure = Failure(kind=kind, oauth_error=error.oauth_error, text=str(error), at=at)
        store, failed = self._store_of(account), replace(kept, failure=failure)
        with suppress(TokenStoreUnavailable):
            stored = await store.load(account.key)
            # A grant of another client may count again when the configuration is put right.
            if stored is None or self._current(account, stored) is stored:
                await store.save(account.key, failed)
                return failed
        return kept


def issued_to(account: Account) -> str:
    """Return what tells whose tokens the account's are: provider, client, authorization server.

    A refresh token is shown to nobody but the server that gave it out.
    """
    client = account.oauth
    server = (client.issuer, client.token_endpoint, client.authority, client.tenant)
    return " ".join((account.provider, client.client_id, *filter(None, server)))


def current_grant(account: Account, kept: StoredGrant | None, now: EpochSeconds) -> StoredGrant:
    """Return the grant that counts: `kept`, or a new one where the configuration has changed."""
    configured = account.oauth.refresh_token
    if (
        kept is not None
        and kept.issued_to == issued_to(account)
        and (not configured or kept.descends_from == fingerprint(configured))
    ):
        return kept
    return StoredGrant(
        issued_to=issued_to(account),
        descends_from=fingerprint(configured),
        refresh_token=configured,
        signed_in_at=now if configured else EpochSeconds(0.0),
    )


def renewed_grant(kept: StoredGrant, issued: Issued, now: EpochSeconds) -> StoredGrant:
    """Return the grant after the provider answered."""
    refresh_token_expires_at = kept.refresh_token_expires_at
    if issued.refresh_token_lifetime_seconds:
        refresh_token_expires_at = EpochSeconds(now + issued.refresh_token_lifetime_seconds)
    return replace(
        kept,
        refresh_token=issued.refresh_token or kept.refresh_token,
        refresh_token_expires_at=refresh_token_expires_at,
        access_token=issued.access_token,
        access_token_expires_at=EpochSeconds(now + issued.lifetime_seconds),
        refreshed_at=now,
        scope=issued.scope or kept.scope,
        failure=None,
    )


def _check(issued: Issued) -> None:
    if not (issued.access_token and issued.lifetime_seconds > 0):
        raise TokenEndpointUnavailable("the answer holds no token that works")


def _origin(grant: StoredGrant) -> tuple[object, ...]:
    """Return what every refresh, sign-in and change of the configuration changes."""
    return grant.refresh_token, grant.refreshed_at
