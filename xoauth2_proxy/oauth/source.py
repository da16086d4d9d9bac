"""Where access tokens come from: a cache over refreshers, with one refresh at a time per account.

I1: at most one refresh of an account is under way; everyone else waits for it.
I2: a token refused upstream is forgotten once, however many connections report it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher

_log = log.logger("oauth")

_RESULTS: dict[type[TokenError], str] = {
    GrantRevoked: "revoked",
    TokenEndpointRefused: "refused",
    TokenEndpointUnavailable: "unavailable",
}


class TokenSource:
    """Gives out access tokens and keeps them until they must be renewed."""

    def __init__(self, refreshers: Mapping[str, Refresher], metrics: Metrics) -> None:
        self._refreshers = refreshers
        self._metrics = metrics
        self._tokens: dict[str, AccessToken] = {}
        self._refreshing: dict[str, asyncio.Task[AccessToken]] = {}

    async def token_for(self, account: Account) -> AccessToken:
        """Return an access token that is not about to expire.

        Concurrent calls for one account share one refresh; cancelling a caller does not cancel it.
        When the endpoint is in trouble, a token in its last minutes is still given out.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
        """
        cached = self._tokens.get(account.key)
        now = time.monotonic()
        if cached is not None and now < cached.refresh_at:
            return cached
        try:
            return await asyncio.shield(self._refresh_once(account))
        except TokenEndpointUnavailable:
            if cached is not None and time.monotonic() < cached.expires_at:
                return cached
            raise

    def invalidate(self, account: Account, token: AccessToken) -> None:
        """Forget `token`, which the provider refused; a newer one is kept."""
        if self._tokens.get(account.key) is token:
            del self._tokens[account.key]

    async def close(self) -> None:
        """Cancel refreshes under way and wait until they have ended."""
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refresh_once(self, account: Account) -> asyncio.Task[AccessToken]:
        task = self._refreshing.get(account.key)
        if task is None:
            task = asyncio.create_task(self._refresh(account), name=f"refresh {account.key}")
            self._refreshing[account.key] = task
            task.add_done_callback(lambda done: self._refreshed(account.key, done))
        return task

    def _refreshed(self, key: str, task: asyncio.Task[AccessToken]) -> None:
        del self._refreshing[key]
        if not task.cancelled():
            task.exception()  # every caller may be gone; the failure is logged in `_refresh`

    async def _refresh(self, account: Account) -> AccessToken:
        refresher = self._refreshers.get(account.refresher)
        if refresher is None:
            raise TokenEndpointRefused(f"no refresher for {account.refresher!r} in this version")
        started = time.monotonic()
        result = "error"
        try:
            token = await refresher.refresh(account)
            result = "ok"
        except TokenError as error:
            result = _RESULTS.get(type(error), result)
            _log.event(
                logging.WARNING if error.is_transient else logging.ERROR,
                "no access token",
                account=account.key,
                provider=account.provider,
                result=result,
                error=error,
            )
            raise
        finally:
            duration = time.monotonic() - started
            self._metrics.token_refreshes.labels(account.provider, result).inc()
            self._metrics.token_refresh_seconds.labels(account.provider).observe(duration)
        self._tokens[account.key] = token
        return token
