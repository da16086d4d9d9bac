"""Where access tokens come from: a cache that is renewed before anyone has to wait.

I1: at most one renewal of an account is under way; everyone else waits for it.
I2: a token that was refused upstream is not given out again, unless it was itself the replacement
of one refused within the last minute: then it is not the token that the provider minds.
I3: a token that still works is given out while no new one can be had for a passing reason.
I4: a failure is told again until it is time for another attempt, or somebody has mended the grant.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from xoauth2_proxy import log
from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.diagnostics import Explanations
from xoauth2_proxy.errors import TokenEndpointUnavailable, TokenError, TokenStoreUnavailable
from xoauth2_proxy.oauth.refresh import Renewals
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_state import KEEP_ALIVE_SECONDS, Cached, anew

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.oauth.token_request import Clock

_CLOSE_SECONDS = 12.0  # for requests under way: an answer may carry the next refresh token

T = TypeVar("T")

_log = log.logger("oauth")


@dataclass(slots=True, kw_only=True)
class _Kept(Cached):
    """What is known of one account, and what is being done about it."""

    account: Account
    task: asyncio.Task[AccessToken] | None = None  # the renewal under way
    is_forced: bool = False  # it asks the provider whatever the store holds
    must_force: bool = False  # the next one does
    timer: asyncio.TimerHandle | None = None  # for a renewal that nobody asks for


class TokenSource:
    """Gives out access tokens and keeps them until they must be renewed."""

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
        self._renewals = Renewals(refreshers, store, metrics, clock)
        self._clock = clock
        self._accounts: dict[str, Account] | None = None  # those in force; None: whoever comes
        self._former: dict[str, tuple[Account, AccessToken]] = {}  # last tokens of what is not
        self._kept: dict[str, _Kept] = {}
        self._tasks: set[asyncio.Task[Any]] = set()  # also of accounts forgotten meanwhile
        self._is_closing = False

    async def token_for(self, account: Account) -> AccessToken:
        """Return an access token that works for a minute at least, as a rule for ten.

        Concurrent calls for one account share one renewal; cancelling a caller does not cancel it.
        When no new one can be had for a passing reason, a token in its last minute is given out.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
            TokenStoreUnavailable: transient.
        """
        if not self._is_in_force(account):
            return self._last_of(account)
        kept = self._of(account)
        token, now = kept.token, self._clock.monotonic()
        if not kept.note_use(now) and token is not None:
            self._plan(kept)
        if token is not None and now < token.stale_at:
            if token.refresh_at <= now and kept.retry_at <= now and not self._is_closing:
                self._renewal(kept)
            return token
        failure = kept.failure
        try:
            if failure is None or kept.task is not None or kept.retry_at <= now:
                return await _outcome(self._renewal(kept))
            if not (kept.may_look(now) and await self._renewals.has_changed(kept.account)):
                raise anew(failure)
        except TokenError as error:
            # A revoked grant's last token is not stretched: a person has to know.
            if error.is_transient and token is not None and self._is_usable(kept, token):
                return token
            raise
        if kept.failure is failure:
            kept.retry_at = now
        return await self.token_for(account)

    def invalidate(self, account: Account, token: AccessToken) -> bool:
        """Give up `token`, which the provider refused; return whether another is worth a try.

        A newer one is kept, however many connections report the old one. A provider that refuses
        each new token is not worth another within a minute; until then the last one is kept.
        """
        kept = self._kept.get(account.key)
        return kept is not None and kept.give_up(token, self._clock.monotonic())

    def note_login(self, account: Account, refusal: str = "") -> None:
        """Keep what the mail server said last, so that `status` knows; nobody waits for it."""
        kept = self._kept.get(account.key)
        if kept is None or self._is_closing:
            return
        if kept.note_login(refusal, self._clock.monotonic()):
            work = self._renewals.note_login(account, refusal)
            self._spawn(work, f"note login of {account.key}")

    async def renew(self, account: Account) -> AccessToken:
        """Return a token that the provider gave out just now, at the operator's wish.

        Raises: as `token_for`.
        """
        if not self._is_in_force(account):
            raise TokenEndpointUnavailable("the mailbox's settings have changed")
        while (kept := self._of(account)).task is not None and not kept.is_forced:
            await asyncio.wait([kept.task])  # it may bring a token that another process got
        kept.must_force = kept.task is None
        return await _outcome(self._renewal(kept))

    def forget(self, key: str) -> None:
        """Start anew with an account: its grant was replaced or revoked."""
        self._former.pop(key, None)
        kept = self._drop(key)
        if kept is not None:
            self.keep_alive([kept.account])

    def use(self, refreshers: Mapping[str, Refresher], accounts: Iterable[Account]) -> None:
        """Go on with another configuration; what it leaves alone stays.

        For an account that it changes the provider is asked anew, whatever the last answer was.
        """
        self._renewals.use(refreshers)
        present = self._accounts = {account.key: account for account in accounts}
        now = self._clock.monotonic()
        self._former = {key: one for key, one in self._former.items() if now < one[1].expires_at}
        for key, kept in list(self._kept.items()):
            account = present.get(key)
            if account is None or _asks_as(account) != _asks_as(kept.account):
                self._drop(key)
                if kept.token is not None:
                    self._former[key] = kept.account, kept.token
                if account is not None:
                    self._of(account).must_force = True
        self.keep_alive(present.values())

    def keep_alive(self, accounts: Iterable[Account]) -> None:
        """See to it that grants of these accounts are used before they die of idleness."""
        for account in accounts:
            if _dies_of_idleness(account):
                kept = self._of(account)
                if kept.timer is None and kept.task is None:
                    # All of them at once would be a flood at each start.
                    self._wake(kept, KEEP_ALIVE_SECONDS * (0.05 + 0.45 * _chance()))

    async def close(self) -> None:
        """Let requests under way end, for their answers may be irreplaceable; cancel the late."""
        self._is_closing = True
        self._renewals.stop()
        for key in list(self._kept):
            self._drop(key)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._renewals.close()

    def _is_in_force(self, account: Account) -> bool:
        if self._accounts is None:
            return True
        now = self._accounts.get(account.key)
        return now is not None and _asks_as(now) == _asks_as(account)

    def _last_of(self, account: Account) -> AccessToken:
        """Return the last token of an account as it was, for a transaction that had begun.

        Nothing is asked or kept for it any more, and it never gets the token of the account that
        has taken its place, whose server may be another.
        """
        former, token = self._former.get(account.key, (None, None))
        if former is None or token is None or _asks_as(former) != _asks_as(account):
            raise TokenEndpointUnavailable("the mailbox's settings have changed")
        if self._clock.monotonic() >= token.expires_at:
            raise TokenEndpointUnavailable("the mailbox's settings have changed")
        return token

    def _of(self, account: Account) -> _Kept:
        kept = self._kept.get(account.key)
        if kept is None:
            kept = self._kept[account.key] = _Kept(account=account)
        return kept

    def _drop(self, key: str) -> _Kept | None:
        self._renewals.forget(key)
        kept = self._kept.pop(key, None)
        if kept is not None and kept.timer is not None:
            kept.timer.cancel()
        return kept

    def _is_usable(self, kept: _Kept, token: AccessToken) -> bool:
        """Whether the token works still: it may have been refused or have ended meanwhile."""
        return kept.token is token and self._clock.monotonic() < token.expires_at

    def _renewal(self, kept: _Kept) -> asyncio.Task[AccessToken]:
        """Return the renewal under way; it is begun if there is none."""
        if self._is_closing:
            raise TokenEndpointUnavailable("the relay is stopping")
        if kept.task is None:
            kept.is_forced, kept.must_force = kept.must_force, False
            kept.task = self._spawn(self._renew(kept), f"renew {kept.account.key}")
            kept.task.add_done_callback(lambda task: self._renewed(kept, task))
        return kept.task

    def _renewed(self, kept: _Kept, task: asyncio.Task[AccessToken]) -> None:
        kept.task = None
        if not task.cancelled():
            task.exception()  # every caller may be gone; the failure was logged in `_renew`
        if self._is_current(kept):
            self._plan(kept)

    async def _renew(self, kept: _Kept) -> AccessToken:
        account = kept.account
        try:
            token = await self._renewals.renew(
                account,
                unwanted=kept.unwanted,
                is_refused=bool(kept.refused),
                is_forced=kept.is_forced,
            )
        except TokenError as error:
            self._note_failure(kept, error)
            raise
        except Exception as error:
            # A defect, perhaps of a store: like any trouble, not met again without a pause.
            _log.critical("renewal of %s broke off", account.key, exc_info=error)
            unexpected = TokenStoreUnavailable(f"unexpected {type(error).__name__}")
            self._note_failure(kept, unexpected)
            raise unexpected from None
        if kept.failures:
            _log.event(logging.INFO, "access token again", account=account.key)
        kept.note_token(token)
        return token

    def _note_failure(self, kept: _Kept, error: TokenError) -> None:
        account = kept.account
        retry_seconds = kept.note_failure(error, self._clock.monotonic(), _chance())
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

    def _plan(self, kept: _Kept) -> None:
        """Set the timer for the next renewal that nobody has to ask for."""
        delay_seconds = kept.wake_seconds(
            self._clock.monotonic(), _chance(), is_kept_alive=_dies_of_idleness(kept.account)
        )
        if delay_seconds is not None:
            self._wake(kept, delay_seconds)

    def _wake(self, kept: _Kept, delay_seconds: float) -> None:
        if kept.timer is not None:
            kept.timer.cancel()
        loop = asyncio.get_running_loop()
        kept.timer = loop.call_later(delay_seconds, self._woken, kept)

    def _woken(self, kept: _Kept) -> None:
        kept.timer = None
        if kept.is_in_use(self._clock.monotonic()) or kept.failure is not None:
            self._renewal(kept)
        elif _dies_of_idleness(kept.account):
            self._spawn(self._use_grant(kept), f"keep alive {kept.account.key}")

    async def _use_grant(self, kept: _Kept) -> None:
        """Keep the grant alive, unless another process has just done so."""
        unused_seconds = await self._renewals.unused_seconds(kept.account)
        if not self._is_current(kept) or kept.timer is not None:
            return
        if unused_seconds < KEEP_ALIVE_SECONDS / 2:
            self._wake(kept, KEEP_ALIVE_SECONDS - max(0.0, unused_seconds))
        else:
            self._renewal(kept)

    def _is_current(self, kept: _Kept) -> bool:
        return not self._is_closing and self._kept.get(kept.account.key) is kept

    def _spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _outcome(task: asyncio.Task[AccessToken]) -> AccessToken:
    """Return the renewal's result; cancelling who waits here leaves the renewal alone."""
    await asyncio.wait([task])
    if task.cancelled():
        raise TokenEndpointUnavailable("the relay is stopping")
    return task.result()


def _asks_as(account: Account) -> tuple[object, ...]:
    return account.provider, account.refresher, account.email, account.oauth


def _dies_of_idleness(account: Account) -> bool:
    return account.oauth.grant_type is GrantType.REFRESH_TOKEN and not account.oauth.is_empty


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads load, guards nothing
