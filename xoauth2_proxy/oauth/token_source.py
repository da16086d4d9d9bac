"""Provides access tokens from a cache that is refreshed ahead of time.

I1: at most one refresh of an account runs; other callers wait for it.
I2: a token that the mail server refused is not used again, unless it replaced another one
refused within the last minute: then the token is not the cause.
I3: a token that is still valid is used while a transient failure prevents getting a new one.
I4: a failure is raised again until it is time for another attempt, or there is a new grant.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.background_tasks import BackgroundTasks
from xoauth2_proxy.diagnostics import Explanations
from xoauth2_proxy.errors import TokenEndpointUnavailable, TokenError, TokenStoreUnavailable
from xoauth2_proxy.oauth.refresh import TokenRefreshes
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_state import KEEP_ALIVE_SECONDS, TokenState, fresh_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore
    from xoauth2_proxy.oauth.token_request import Clock

_CLOSE_SECONDS = 12.0  # for running requests: a response may contain the next refresh token

_log = log.logger("oauth")


@dataclass(slots=True, kw_only=True)
class _AccountState(TokenState):
    """One account's token, with its running refresh and its timer."""

    account: Account
    task: asyncio.Task[AccessToken] | None = None  # the running refresh
    is_forced: bool = False  # `task` asks the provider whatever the store holds
    must_force: bool = False  # the next refresh does so
    timer: asyncio.TimerHandle | None = None  # for a background refresh


class TokenSource:
    """Provides access tokens, and refreshes them in the background."""

    def __init__(
        self,
        refreshers: Mapping[str, Refresher],
        metrics: Metrics,
        store: TokenStore | None = None,
        clock: Clock = time,
        explanations: Explanations | None = None,
    ) -> None:
        store = MemoryStore() if store is None else store
        self._explanations = explanations or Explanations()
        self._refreshes = TokenRefreshes(refreshers, store, metrics, clock)
        self._clock = clock
        self._accounts: dict[str, Account] | None = None  # those in force; None: any account
        # The last tokens of accounts that are not in force any more.
        self._former_tokens: dict[str, tuple[Account, AccessToken]] = {}
        self._states: dict[str, _AccountState] = {}
        self._tasks = BackgroundTasks()
        self._is_closing = False

    async def token_for(self, account: Account) -> AccessToken:
        """Return an access token that is valid for at least a minute, usually for ten.

        Concurrent calls for one account share one refresh; cancelling a caller does not cancel it.
        After a transient failure, a token in its last minute is returned.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must correct the configuration.
            TokenEndpointUnavailable: transient.
            TokenStoreUnavailable: transient.
        """
        if not self._is_in_force(account):
            return self._former_token(account)
        state = self._state_of(account)
        token, now = state.token, self._clock.monotonic()
        if not state.note_use(now) and token is not None:
            self._schedule(state)
        if token is not None and now < token.stale_at:
            if token.refresh_at <= now and state.retry_at <= now and not self._is_closing:
                self._refresh_task(state)
            return token
        failure = state.failure
        try:
            if failure is None or state.task is not None or state.retry_at <= now:
                return await _result_of(self._refresh_task(state))
            if not (
                state.may_check_store(now) and await self._refreshes.has_new_grant(state.account)
            ):
                raise fresh_copy(failure)
        except TokenError as error:
            # The last token of a revoked grant is not used: the failure must be noticed.
            if error.is_transient and token is not None and self._is_usable(state, token):
                return token
            raise
        if state.failure is failure:
            state.retry_at = now
        return await self.token_for(account)

    def cached_token(self, account: Account) -> AccessToken | None:
        """Return the account's token if it needs no attention; None: call `token_for`.

        It may be called from any thread.
        """
        state = self._states.get(account.key)
        if state is None or state.account.token_identity != account.token_identity:
            return None
        token, now = state.token, self._clock.monotonic()
        if token is None or now >= token.refresh_at or not state.is_in_use(now):
            return None
        state.note_use(now)
        return token

    async def grant(self, account: Account) -> StoredGrant:
        """Return the account's grant as it is stored. Raises `TokenStoreUnavailable`."""
        return await self._refreshes.grant(account)

    async def clear(self, account: Account) -> bool:
        """Drop the access token, here and in the store, but not the grant it was issued for.

        Return whether one was stored. Raises `TokenStoreUnavailable`.
        """
        had_token = await self._refreshes.clear(account)
        self.forget(account.key)
        return had_token

    def invalidate(self, account: Account, token: AccessToken) -> bool:
        """Discard `token`, which the mail server refused; return whether to try another.

        A newer token is kept, however many connections report the old one. If the server refuses
        the new token as well, no other is fetched within a minute, and the new one is kept.
        """
        state = self._states.get(account.key)
        return state is not None and state.discard(token, self._clock.monotonic())

    def note_login(self, account: Account, refusal: str = "") -> None:
        """Save the mail server's last refusal ("": none) for `status`, in the background."""
        state = self._states.get(account.key)
        if state is None or self._is_closing:
            return
        if state.note_login(refusal, self._clock.monotonic()):
            saving = self._refreshes.note_login(account, refusal)
            self._tasks.start(saving, f"note login of {account.key}")

    async def refresh(self, account: Account) -> AccessToken:
        """Return a token that the provider has just issued. Raises: as `token_for`."""
        if not self._is_in_force(account):
            raise TokenEndpointUnavailable("the mailbox's settings have changed")
        while (state := self._state_of(account)).task is not None and not state.is_forced:
            await asyncio.wait([state.task])  # it may return a token that another process got
        state.must_force = state.task is None
        return await _result_of(self._refresh_task(state))

    def forget(self, key: str) -> None:
        """Drop the account's tokens and failures: its grant was replaced or revoked."""
        self._former_tokens.pop(key, None)
        state = self._remove_state(key)
        if state is not None:
            self.keep_alive([state.account])

    def use(self, refreshers: Mapping[str, Refresher], accounts: Iterable[Account]) -> None:
        """Use another configuration. Accounts that it does not change keep their tokens.

        A changed account's next refresh asks the provider, even if a token or failure is stored.
        """
        self._refreshes.use(refreshers)
        present = self._accounts = {account.key: account for account in accounts}
        now = self._clock.monotonic()
        self._former_tokens = {
            key: one for key, one in self._former_tokens.items() if now < one[1].expires_at
        }
        for key, state in list(self._states.items()):
            account = present.get(key)
            if account is None or account.token_identity != state.account.token_identity:
                self._remove_state(key)
                if state.token is not None:
                    self._former_tokens[key] = state.account, state.token
                if account is not None:
                    self._state_of(account).must_force = True
        self.keep_alive(present.values())

    def keep_alive(self, accounts: Iterable[Account]) -> None:
        """Schedule the use of these accounts' grants before they expire unused."""
        for account in accounts:
            if _needs_keep_alive(account):
                state = self._state_of(account)
                if state.timer is None and state.task is None:
                    # Spread over time: a start must not flood the provider.
                    self._set_timer(state, KEEP_ALIVE_SECONDS * (0.05 + 0.45 * _jitter()))

    async def close(self) -> None:
        """Wait for running requests, whose responses may hold the only copy of a refresh token.

        Those that exceed `_CLOSE_SECONDS` are cancelled.
        """
        self._is_closing = True
        self._refreshes.stop()
        for key in list(self._states):
            self._remove_state(key)
        await self._tasks.close(_CLOSE_SECONDS)
        await self._refreshes.close()

    def _is_in_force(self, account: Account) -> bool:
        if self._accounts is None:
            return True
        now = self._accounts.get(account.key)
        return now is not None and now.token_identity == account.token_identity

    def _former_token(self, account: Account) -> AccessToken:
        """Return the last token of an account that has changed, for a running transaction.

        It is not refreshed, and never replaced by the changed account's token, which may be for
        another server.
        """
        if account.key in self._former_tokens:
            former, token = self._former_tokens[account.key]
            is_same = former.token_identity == account.token_identity
            if is_same and self._clock.monotonic() < token.expires_at:
                return token
        raise TokenEndpointUnavailable("the mailbox's settings have changed")

    def _state_of(self, account: Account) -> _AccountState:
        state = self._states.get(account.key)
        if state is None:
            state = self._states[account.key] = _AccountState(account=account)
        return state

    def _remove_state(self, key: str) -> _AccountState | None:
        self._refreshes.forget(key)
        state = self._states.pop(key, None)
        if state is not None and state.timer is not None:
            state.timer.cancel()
        return state

    def _is_usable(self, state: _AccountState, token: AccessToken) -> bool:
        """Whether the token is still valid: it may have been refused or expired meanwhile."""
        return state.token is token and self._clock.monotonic() < token.expires_at

    def _refresh_task(self, state: _AccountState) -> asyncio.Task[AccessToken]:
        """Return the running refresh; start one if there is none."""
        if self._is_closing:
            raise TokenEndpointUnavailable("no more tokens are requested: stopping")
        if state.task is None:
            state.is_forced, state.must_force = state.must_force, False
            state.task = self._tasks.start(self._refresh(state), f"refresh {state.account.key}")
            state.task.add_done_callback(lambda task: self._refresh_done(state, task))
        return state.task

    def _refresh_done(self, state: _AccountState, task: asyncio.Task[AccessToken]) -> None:
        state.task = None
        if not task.cancelled():
            task.exception()  # all callers may have gone; `_refresh` has logged the failure
        if self._is_current(state):
            self._schedule(state)

    async def _refresh(self, state: _AccountState) -> AccessToken:
        account = state.account
        try:
            token = await self._refreshes.refresh(
                account,
                replaced_token=state.replaced_token,
                is_refused=bool(state.refused_token),
                is_forced=state.is_forced,
            )
        except TokenError as error:
            self._note_failure(state, error)
            raise
        except Exception as error:
            # A defect, perhaps of a store; like other failures it is followed by a pause.
            _log.critical("refresh of %s failed unexpectedly", account.key, exc_info=error)
            unexpected = TokenStoreUnavailable(f"unexpected {type(error).__name__}")
            self._note_failure(state, unexpected)
            raise unexpected from None
        if state.failures:
            _log.event(logging.INFO, "access token obtained again", account=account.key)
        state.note_token(token)
        return token

    def _note_failure(self, state: _AccountState, error: TokenError) -> None:
        account = state.account
        retry_seconds = state.note_failure(error, self._clock.monotonic(), _jitter())
        _log.event(
            logging.WARNING if error.is_transient else logging.ERROR,
            "no access token",
            account=account.key,
            provider=account.provider,
            oauth_error=error.oauth_error or None,
            retry_seconds=round(retry_seconds, 1),
            error=error,
            **self._explanations.fields(str(error), account.refresher, account.key),
        )

    def _schedule(self, state: _AccountState) -> None:
        """Set the timer for the next background refresh."""
        delay_seconds = state.background_refresh_delay(
            self._clock.monotonic(), _jitter(), is_kept_alive=_needs_keep_alive(state.account)
        )
        if delay_seconds is not None:
            self._set_timer(state, delay_seconds)

    def _set_timer(self, state: _AccountState, delay_seconds: float) -> None:
        if state.timer is not None:
            state.timer.cancel()
        loop = asyncio.get_running_loop()
        state.timer = loop.call_later(delay_seconds, self._timer_fired, state)

    def _timer_fired(self, state: _AccountState) -> None:
        state.timer = None
        if state.is_in_use(self._clock.monotonic()) or state.failure is not None:
            self._refresh_task(state)
        elif _needs_keep_alive(state.account):
            self._tasks.start(self._keep_grant_alive(state), f"keep alive {state.account.key}")

    async def _keep_grant_alive(self, state: _AccountState) -> None:
        """Use the grant, unless another process has just done so."""
        idle_seconds = await self._refreshes.idle_seconds(state.account)
        if not self._is_current(state) or state.timer is not None:
            return
        if idle_seconds < KEEP_ALIVE_SECONDS / 2:
            self._set_timer(state, KEEP_ALIVE_SECONDS - max(0.0, idle_seconds))
        else:
            self._refresh_task(state)

    def _is_current(self, state: _AccountState) -> bool:
        return not self._is_closing and self._states.get(state.account.key) is state


async def _result_of(task: asyncio.Task[AccessToken]) -> AccessToken:
    """Return the refresh's result; cancelling the caller does not cancel the refresh."""
    await asyncio.wait([task])
    if task.cancelled():
        raise TokenEndpointUnavailable("no more tokens are requested: stopping")
    return task.result()


def _needs_keep_alive(account: Account) -> bool:
    return account.oauth.grant_type is GrantType.REFRESH_TOKEN and account.keeps_tokens


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads load, guards nothing
