"""Refreshes a mailbox's token under the store's lock, and saves the new grant.

I1: processes that share a store never refresh a mailbox at the same time; one that waited uses the
token that the other got.
I2: a refresh token that the provider replaced is saved before the access token issued with it is
used. Until the store has saved it, it is kept here, and no other token is requested.
I3: a grant is never deleted here, whatever the provider says; only a working one replaces it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.oauth_client import GrantType, fingerprint
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.oauth.grant import AccessToken, EpochSeconds, Grant, Monotonic
from xoauth2_proxy.oauth.stores import Failure, StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_request import TokenRequests, failure_kind
from xoauth2_proxy.oauth.token_state import FORCED_REFRESH_SECONDS, REVOKED_RETRY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import TokenResponse
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.oauth.token_request import Clock

_SKEW_SECONDS = 60.0  # allowed between the clocks of machines that share a store
_CLOSE_SECONDS = 5.0  # for grants that are not saved yet

_log = log.logger("oauth")


@dataclass(frozen=True, slots=True)
class _UnsavedGrant:
    """A grant that is not in the store yet."""

    account: Account
    before: StoredGrant  # the one it replaces; if the store has another, that one counts
    grant: StoredGrant


class TokenRefreshes:
    """Refreshes the tokens of all accounts."""

    def __init__(
        self,
        refreshers: Mapping[str, Refresher],
        store: TokenStore,
        metrics: Metrics,
        clock: Clock = time,
    ) -> None:
        self._store = store
        self._memory = MemoryStore()  # for accounts without a grant to save
        self._clock = clock
        self._requests = TokenRequests(refreshers, metrics, clock)
        self._unsaved: dict[str, _UnsavedGrant] = {}
        self._failed: dict[str, tuple[object, ...]] = {}  # versions of the grants that failed last

    async def refresh(
        self,
        account: Account,
        *,
        replaced_token: str = "",
        is_refused: bool = False,
        is_forced: bool = False,
    ) -> AccessToken:
        """Return an access token that is not due for a refresh: the store's, or a new one.

        `replaced_token` is the access token to replace: it is due, or the provider's mail server
        refused it (`is_refused`); then a stored token is used only if it is newer than a minute.
        `is_forced` asks the provider whatever the store holds.

        Raises: as `TokenSource.token_for`. `TokenStoreUnavailable` means that no token was
        requested, or that a new one is not saved yet.
        """
        async with self._store_of(account).lock(account.key):
            stored = await self._current_grant(account)
            if not is_forced:
                token = self._usable_stored_token(
                    account, stored, replaced_token, is_refused=is_refused
                )
                if token is not None:
                    return token
                if (failure := self._recent_revocation(stored)) is not None:
                    self._failed[account.key] = _version(stored)
                    raise GrantRevoked(failure.text, oauth_error=failure.oauth_error)
            return await self._refresh(account, stored)

    async def has_new_grant(self, account: Account) -> bool:
        """Whether the store's grant differs from the one that failed last."""
        stored = await self._readable_grant(account)
        return stored is not None and self._failed.get(account.key, ()) != _version(stored)

    async def idle_seconds(self, account: Account) -> float:
        """Return the time since the grant was last used by any process; infinite if unknown."""
        stored = await self._readable_grant(account)
        used_at = stored.refreshed_at if stored is not None else 0.0
        return self._clock.time() - used_at if used_at else float("inf")

    async def grant(self, account: Account) -> StoredGrant:
        """Return the grant in force, as it is stored. Raises `TokenStoreUnavailable`."""
        return self._grant_in_force(account, await self._store_of(account).load(account.key))

    async def clear(self, account: Account) -> bool:
        """Delete the stored access token, not the grant; return whether there was one.

        Raises `TokenStoreUnavailable`.
        """
        store = self._store_of(account)
        async with store.lock(account.key):
            stored = await self._current_grant(account)
            if not stored.access_token:
                return False
            cleared = replace(stored, access_token="", access_token_expires_at=EpochSeconds(0.0))
            await store.save(account.key, cleared)
            return True

    async def note_login(self, account: Account, refusal: str) -> None:
        """Save with the grant that the mail server refused the login, or ("") accepted it.

        The failure of a token request is kept: a login with an older token says nothing about it.
        """
        failure = None
        if refusal:
            at = EpochSeconds(self._clock.time())
            failure = Failure(kind="login_refused", oauth_error="", text=refusal, at=at)
        store = self._store_of(account)
        with suppress(TokenStoreUnavailable):
            async with store.lock(account.key):
                stored = await store.load(account.key)
                if stored is None or self._grant_in_force(account, stored) is not stored:
                    return
                former = stored.failure
                if former != failure and (former is None or former.kind == "login_refused"):
                    await store.save(account.key, replace(stored, failure=failure))

    def use(self, refreshers: Mapping[str, Refresher]) -> None:
        """Use other refreshers from now on."""
        self._requests.refreshers = refreshers

    def forget(self, key: str) -> None:
        """Forget the account's failures."""
        self._failed.pop(key, None)

    def stop(self) -> None:
        """Let requests that have not begun fail."""
        self._requests.is_stopping = True

    async def close(self) -> None:
        """Save grants that are not saved yet, for some seconds, then close the store."""
        await self.save_all()
        await self._store.close()

    async def save_all(self) -> None:
        """Save grants that are not saved yet, for some seconds. The store stays open."""
        accounts = [one.account for one in self._unsaved.values()]
        await asyncio.gather(*map(self._save_at_close, accounts))

    async def _save_at_close(self, account: Account) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS), self._store.lock(account.key):
                await self._current_grant(account)
        except (TokenStoreUnavailable, TimeoutError) as error:
            reason = str(error) or "no time left"
            _log.event(logging.ERROR, "newest grant lost", account=account.key, error=reason)

    def _store_of(self, account: Account) -> TokenStore:
        return self._store if account.keeps_tokens else self._memory

    def _grant_in_force(self, account: Account, stored: StoredGrant | None) -> StoredGrant:
        return current_grant(account, stored, EpochSeconds(self._clock.time()))

    async def _readable_grant(self, account: Account) -> StoredGrant | None:
        with suppress(TokenStoreUnavailable):
            return await self.grant(account)
        return None

    async def _current_grant(self, account: Account) -> StoredGrant:
        """Return the grant in force; one that is not saved yet is saved first."""
        store = self._store_of(account)
        stored = self._grant_in_force(account, await store.load(account.key))
        unsaved = self._unsaved.get(account.key)
        if unsaved is not None:
            if _version(stored) == _version(unsaved.before):
                await store.save(account.key, unsaved.grant)
                stored = self._grant_in_force(account, unsaved.grant)
            del self._unsaved[account.key]
        return stored

    def _usable_stored_token(
        self, account: Account, stored: StoredGrant, replaced_token: str, *, is_refused: bool
    ) -> AccessToken | None:
        """Return the store's access token unless it is due for a refresh or to be replaced."""
        if not stored.access_token or stored.access_token == replaced_token:
            return None
        age_seconds = self._clock.time() - stored.refreshed_at
        lifetime_seconds = stored.access_token_expires_at - stored.refreshed_at
        window_seconds = min(account.oauth.refresh_window_seconds, lifetime_seconds / 4)
        left_seconds = lifetime_seconds - max(0.0, age_seconds)
        # A date in the future means that a clock was wrong.
        if age_seconds < -_SKEW_SECONDS or not left_seconds > window_seconds:
            return None
        if is_refused and age_seconds >= FORCED_REFRESH_SECONDS:
            return None
        expires_at = Monotonic(self._clock.monotonic() + left_seconds)
        return AccessToken.with_expiry(
            stored.access_token, expires_at, window_seconds, stored.scope
        )

    def _recent_revocation(self, stored: StoredGrant) -> Failure | None:
        failure = stored.failure
        if failure is None or failure.kind != "revoked":
            return None
        is_recent = abs(self._clock.time() - failure.at) < REVOKED_RETRY_SECONDS
        return failure if is_recent else None

    async def _refresh(self, account: Account, stored: StoredGrant) -> AccessToken:
        grant = Grant(
            mailbox=account.email, client=account.oauth, refresh_token=stored.refresh_token
        )
        try:
            issued, asked_at = await self._requests.ask(account, grant)
            took_seconds = self._clock.monotonic() - asked_at
            asked_on = EpochSeconds(self._clock.time() - took_seconds)
            renewed = refreshed_grant(stored, issued, asked_on)
            await self._save_grant(account, stored, renewed)
            stored = renewed
            if not (issued.access_token and issued.lifetime_seconds > 0):
                raise TokenEndpointUnavailable("the response contains no valid token")
        except TokenError as error:
            self._failed[account.key] = _version(await self._save_failure(account, stored, error))
            raise
        _log.event(
            logging.DEBUG,
            "token refreshed",
            account=account.key,
            refresher=account.refresher,
            provider=account.provider,
            seconds=took_seconds,
            lasts_seconds=issued.lifetime_seconds,
        )
        return AccessToken.with_lifetime(
            issued.access_token,
            asked_at,
            issued.lifetime_seconds,
            account.oauth.refresh_window_seconds,
            stored.scope,
        )

    async def _save_grant(
        self, account: Account, before: StoredGrant, renewed: StoredGrant
    ) -> None:
        key = account.key
        # Until it is saved, which may be interrupted.
        self._unsaved[key] = _UnsavedGrant(account, before, renewed)
        try:
            await self._store_of(account).save(key, renewed)
        except TokenStoreUnavailable as error:
            if renewed.refresh_token != before.refresh_token:
                raise
            _log.event(logging.WARNING, "grant not saved yet", account=key, error=error)
        else:
            del self._unsaved[key]

    async def _save_failure(
        self, account: Account, stored: StoredGrant, error: TokenError
    ) -> StoredGrant:
        """Save the failure with its grant; return what is in the store then."""
        kind = failure_kind(error)
        if kind is None or (self._requests.is_stopping and error.is_transient):
            return stored
        if error.is_transient and stored.failure is not None and stored.failure.kind == "revoked":
            return stored  # the grant stays revoked while the endpoint cannot be reached
        at = EpochSeconds(self._clock.time())
        failure = Failure(kind=kind, oauth_error=error.oauth_error, text=str(error), at=at)
        store, failed = self._store_of(account), replace(stored, failure=failure)
        with suppress(TokenStoreUnavailable):
            latest = await store.load(account.key)
            # A grant of another client may be in force again after the configuration is corrected.
            if latest is None or self._grant_in_force(account, latest) is latest:
                await store.save(account.key, failed)
                return failed
        return stored


def issued_to(account: Account) -> str:
    """Return the provider, client and authorization server that the account's grant belongs to.

    A refresh token is sent only to the server that issued it. Without a sign-in, what is asked for
    belongs to it too: a token with other scopes is of no use.
    """
    client = account.oauth
    server = [client.issuer, client.token_endpoint, client.authority, client.tenant]
    if client.grant_type is not GrantType.REFRESH_TOKEN:
        server.append(fingerprint(repr((sorted(client.scopes), client.parameters))))
    return " ".join((account.provider, client.client_id, *filter(None, server)))


def current_grant(account: Account, stored: StoredGrant | None, now: EpochSeconds) -> StoredGrant:
    """Return the grant in force: `stored`, or a new one if the configuration has changed."""
    configured = account.oauth.refresh_token
    if (
        stored is not None
        and stored.issued_to == issued_to(account)
        and (not configured or stored.descends_from == fingerprint(configured))
    ):
        return stored
    return StoredGrant(
        issued_to=issued_to(account),
        descends_from=fingerprint(configured),
        refresh_token=configured,
        signed_in_at=now if configured else EpochSeconds(0.0),
    )


def refreshed_grant(stored: StoredGrant, issued: TokenResponse, now: EpochSeconds) -> StoredGrant:
    """Return the grant updated by the token response."""
    refresh_token_expires_at = stored.refresh_token_expires_at
    if issued.refresh_token_lifetime_seconds:
        refresh_token_expires_at = EpochSeconds(now + issued.refresh_token_lifetime_seconds)
    return replace(
        stored,
        refresh_token=issued.refresh_token or stored.refresh_token,
        refresh_token_expires_at=refresh_token_expires_at,
        access_token=issued.access_token,
        access_token_expires_at=EpochSeconds(now + issued.lifetime_seconds),
        refreshed_at=now,
        scope=issued.scope or stored.scope,
        failure=None,
    )


def _version(grant: StoredGrant) -> tuple[object, ...]:
    """Return a value that every refresh, sign-in and configuration change changes."""
    return grant.refresh_token, grant.refreshed_at
