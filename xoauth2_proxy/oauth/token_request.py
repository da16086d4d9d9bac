"""Calls refreshers: with limits on concurrency and time, metrics, and errors of known types.

A refresher may be a plug-in. Whatever it does, the result is a response or a `TokenError`, in
bounded time.
"""

from __future__ import annotations

import asyncio
import math
import re
import traceback
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from xoauth2_proxy.errors import (
    GrantRevoked,
    SignInRefused,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import Monotonic, TokenResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import FailureKind

_T = TypeVar("_T")

_TOKEN = re.compile(r"[!-~]+")  # RFC 6749, appendix A.12: visible characters
_MAX_CONCURRENT = 4  # requests at one time to one token host
# Together less than the wait for the mailbox's lock (`stores.mailbox_locks.LOCK_WAIT_SECONDS`).
_QUEUE_SECONDS = 12.0  # the wait for one of them
_REFRESH_SECONDS = 30.0  # for a refresher; the built-in ones have shorter limits

_KINDS: tuple[tuple[type[TokenError], FailureKind], ...] = (
    (GrantRevoked, "revoked"),
    (TokenEndpointRefused, "refused"),
    (TokenEndpointUnavailable, "unavailable"),
)


class Clock(Protocol):
    """The module `time`, or a test's replacement."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch."""
        ...


class TokenRequests:
    """Asks refreshers for tokens, with a limit for each token host."""

    def __init__(self, refreshers: Mapping[str, Refresher], metrics: Metrics, clock: Clock) -> None:
        self.refreshers = refreshers  # replaced on reload
        self.is_stopping = False  # new requests fail; running ones go on
        self._metrics = metrics
        self._clock = clock
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def ask(self, account: Account, grant: Grant) -> tuple[TokenResponse, Monotonic]:
        """Return the response, and the time of the request: the token's life began no earlier.

        Raises: as `Refresher.refresh`.
        """
        refresher = self.refreshers.get(account.refresher)
        if refresher is None:
            raise TokenEndpointRefused(f"there is no refresher {account.refresher!r}")
        async with self._slot(account.oauth.token_host or account.refresher):
            if self.is_stopping:
                raise TokenEndpointUnavailable("no more tokens are requested: stopping")
            asked_at = Monotonic(self._clock.monotonic())
            result = "error"
            try:
                issued = await answer_of(refresher.refresh(grant))
                if account.plug_in is not None:
                    check_response(issued)
                result = "ok"
            except TokenError as error:
                result = failure_kind(error) or result
                raise
            finally:
                seconds = self._clock.monotonic() - asked_at
                self._metrics.token_refreshes.labels(account.provider, result).inc()
                self._metrics.token_refresh_seconds.labels(account.provider).observe(seconds)
        return issued, asked_at

    @asynccontextmanager
    async def _slot(self, host: str) -> AsyncIterator[None]:
        slots = self._slots.setdefault(host, asyncio.Semaphore(_MAX_CONCURRENT))
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                await slots.acquire()
        except TimeoutError:
            raise TokenEndpointUnavailable(f"too many requests are waiting for {host}") from None
        try:
            yield
        finally:
            slots.release()


def failure_kind(error: TokenError) -> FailureKind | None:
    """Return the kind of the failure; None: neither the grant's nor the endpoint's."""
    return next((kind for family, kind in _KINDS if isinstance(error, family)), None)


def check_response(issued: object) -> None:
    """Raise `TokenEndpointRefused` unless a plug-in returned a response that can be used."""
    if not isinstance(issued, TokenResponse):
        raise _mistake(f"returned {type(issued).__name__} instead of a TokenResponse")
    seconds: tuple[object, ...]
    seconds = (issued.lifetime_seconds, issued.refresh_token_lifetime_seconds)
    texts: tuple[object, ...]
    texts = (issued.access_token, issued.refresh_token, issued.scope, issued.id_token)
    if not all(isinstance(one, str) for one in texts):
        raise _mistake("returned a token or a scope that is no text")
    if not all(isinstance(one, int | float) for one in seconds) or not all(
        map(math.isfinite, (issued.lifetime_seconds, issued.refresh_token_lifetime_seconds))
    ):
        raise _mistake("returned a lifetime that is no number of seconds")
    if issued.lifetime_seconds <= 0 or issued.refresh_token_lifetime_seconds < 0:
        raise _mistake("returned a lifetime that has ended")
    if not _TOKEN.fullmatch(issued.access_token):
        raise _mistake("returned an access token with characters that no token has")


def _mistake(what: str) -> TokenEndpointRefused:
    return TokenEndpointRefused(f"the refresher {what}: this is a mistake of the plug-in")


async def answer_of(call: Awaitable[_T]) -> _T:
    """Return what a refresher's method returns, within 30 s.

    Raises `TokenError` or `SignInRefused`, whatever the method raises.
    """
    try:
        async with asyncio.timeout(_REFRESH_SECONDS):
            return await call
    except (TokenError, SignInRefused) as error:
        if not str(error):
            error.args = ("the refresher gave no reason",)
        raise
    except TimeoutError:
        raise TokenEndpointUnavailable("no answer in time") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # The caller was not cancelled: the refresher's threads were shut down, as on a reload.
        raise TokenEndpointUnavailable("the refresher was stopped") from None
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # A plug-in's error text may contain anything, so only its type and place are reported.
        name, place = type(error).__name__, _place(error)
        raise TokenEndpointRefused(f"the refresher failed with {name}{place}") from None


def _place(error: BaseException) -> str:
    """Return the file and line where the error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
