"""One request to a refresher: its turn, its time, its figures, and what its failures mean.

A refresher may be somebody's plug-in, so whatever it does, what comes out is an answer or a
`TokenError`, in bounded time.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import Monotonic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import Grant, Issued
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import FailureKind

_SEATS = 4  # requests at one time to one token host
# Together less than others wait for the mailbox's lock (`stores.turns.LOCK_SECONDS`).
_SEAT_SECONDS = 12.0  # how long one waits for a seat
_REFRESH_SECONDS = 30.0  # what a refresher may take; the built-in ones give up earlier

_KINDS: tuple[tuple[type[TokenError], FailureKind], ...] = (
    (GrantRevoked, "revoked"),
    (TokenEndpointRefused, "refused"),
    (TokenEndpointUnavailable, "unavailable"),
)


class Clock(Protocol):
    """The module `time`, or what a test has in its place."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch."""
        ...


class Asking:
    """Asks refreshers for tokens, a few at a time for each token host."""

    def __init__(self, refreshers: Mapping[str, Refresher], metrics: Metrics, clock: Clock) -> None:
        self.refreshers = refreshers  # replaced when the configuration is read again
        self.is_stopping = False  # nothing more is asked; what is under way goes on
        self._metrics = metrics
        self._clock = clock
        self._seats: dict[str, asyncio.Semaphore] = {}

    async def ask(self, account: Account, grant: Grant) -> tuple[Issued, Monotonic]:
        """Return the answer, and when it was asked for: a token's life begins at the endpoint.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
        """
        refresher = self.refreshers.get(account.refresher)
        if refresher is None:
            raise TokenEndpointRefused(f"there is no refresher {account.refresher!r}")
        async with self._seat(account.oauth.token_host or account.refresher):
            if self.is_stopping:
                raise TokenEndpointUnavailable("the relay is stopping")
            asked_at = Monotonic(self._clock.monotonic())
            result = "error"
            try:
                issued = await _answer(refresher, grant)
                result = "ok"
            except TokenError as error:
                result = kind_of(error) or result
                raise
            finally:
                duration_seconds = self._clock.monotonic() - asked_at
                self._metrics.token_refreshes.labels(account.provider, result).inc()
                self._metrics.token_refresh_seconds.labels(account.provider).observe(
                    duration_seconds
                )
        return issued, asked_at

    @asynccontextmanager
    async def _seat(self, host: str) -> AsyncIterator[None]:
        seats = self._seats.setdefault(host, asyncio.Semaphore(_SEATS))
        try:
            async with asyncio.timeout(_SEAT_SECONDS):
                await seats.acquire()
        except TimeoutError:
            raise TokenEndpointUnavailable(f"too many requests wait for {host}") from None
        try:
            yield
        finally:
            seats.release()


def kind_of(error: TokenError) -> FailureKind | None:
    """Return whose failure it is; None: neither the grant's nor the endpoint's."""
    return next((kind for family, kind in _KINDS if isinstance(error, family)), None)


async def _answer(refresher: Refresher, grant: Grant) -> Issued:
    try:
        async with asyncio.timeout(_REFRESH_SECONDS):
            return await refresher.refresh(grant)
    except TimeoutError:
        raise TokenEndpointUnavailable("no answer in time") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not we are cancelled: its threads were taken away, as when the configuration changes.
        raise TokenEndpointUnavailable("the refresher was stopped") from None
    except TokenError:
        raise
    except Exception as error:
        # A plug-in's: its text may hold anything, so only its kind is told.
        raise TokenEndpointRefused(f"the refresher failed with {type(error).__name__}") from None
