"""Signs users in one after another, several at once, and measures how long each takes.

I1: a sign-in that a signal ends leaves no grant that is not known to `Grants`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.measurement.histogram import Histogram
from bench.measurement.result import SignInFailure, SignInFigures
from bench.sign_in.authorization_server import (
    Redemption,
    SignInFailed,
    challenge_of,
)
from bench.sign_in.visitor import Visit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from bench.process.interruption import Interruption
    from bench.sign_in.authorization_server import AuthorizationServer, RegisteredClient
    from bench.sign_in.callback_server import CallbackServer
    from bench.sign_in.grants import Grants
    from bench.sign_in.request import SignInRequest
    from bench.sign_in.visitor import Visitor
    from bench.targets.mailboxes import BenchMailbox

_USER_SECONDS = 180.0  # for one user, on a slow machine
_TELL_SECONDS = 1.0  # between two lines of progress
_MAX_REASONS = 20


class SignInRecord:
    """What became of the users: their refresh tokens, and the reasons of failures."""

    def __init__(self, method: str, wanted: int) -> None:
        self.tokens: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._method = method
        self.wanted = wanted
        self._durations = Histogram()
        self._began = time.monotonic()

    def succeeded(self, mailbox: str, token: str, seconds: float | None = None) -> None:
        """Note a user who is signed in."""
        self.tokens[mailbox] = token
        if seconds is not None:
            self._durations.add_seconds(seconds)

    def figures(self) -> SignInFigures:
        """Return the figures at the end of the last sign-in."""
        reasons = Counter(self.failures.values()).most_common(_MAX_REASONS)
        return SignInFigures(
            method=self._method,
            wanted=self.wanted,
            signed_in=len(self.tokens),
            wall_seconds=time.monotonic() - self._began,
            duration=self._durations.snapshot(),
            failures=tuple(SignInFailure(reason, count) for reason, count in reasons),
        )


class SignIns:
    """The sign-ins of one run, with one client at one server."""

    def __init__(
        self,
        request: SignInRequest,
        server: AuthorizationServer,
        client: RegisteredClient,
        grants: Grants,
        callback: CallbackServer,
    ) -> None:
        self._request = request
        self._server = server
        self._client = client
        self._grants = grants
        self._callback = callback
        self._room = asyncio.Semaphore(request.at_once)
        self._exchanges: set[asyncio.Task[str]] = set()

    async def all_of(
        self,
        users: Sequence[BenchMailbox],
        visitor: Visitor,
        interruption: Interruption,
        announce: Callable[[str], None],
    ) -> SignInRecord:
        """Return what became of the users; after a signal, of those who were done."""
        record = SignInRecord(self._request.method.value, len(users))
        progress = _Progress(record, announce)
        stop = asyncio.create_task(interruption.requested.wait())
        tasks: set[asyncio.Task[None]] = set()

        def give_up() -> None:
            for task in tasks:
                task.cancel()

        interruption.on_request.add(give_up)  # at once: no user takes a further step
        try:
            async for user in self._turns(users, interruption, stop):
                task = asyncio.create_task(self._one(user, visitor, record, progress))
                task.add_done_callback(lambda _: self._room.release())
                tasks.add(task)
            if tasks:
                await _unless(stop, asyncio.wait(tasks))
        finally:
            interruption.on_request.discard(give_up)
            await _cancelled(stop, *tasks)
            while self._exchanges:  # a grant that begins now must be known before the end
                await asyncio.wait(self._exchanges)
        for task in tasks:
            if not task.cancelled():
                task.result()  # a mistake of the program's is not to pass unseen
        progress.end()
        return record

    async def _turns(
        self, users: Sequence[BenchMailbox], interruption: Interruption, stop: asyncio.Task[bool]
    ) -> AsyncIterator[BenchMailbox]:
        """Yield each user when they may begin; each has taken a place in the room."""
        for number, user in enumerate(users):
            if number:
                await asyncio.wait({stop}, timeout=self._request.stagger_seconds)
            await _unless(stop, self._room.acquire())
            if interruption.requested.is_set():
                return
            yield user

    async def _one(
        self, user: BenchMailbox, visitor: Visitor, record: SignInRecord, progress: _Progress
    ) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_USER_SECONDS):
                token = await self._token_of(user, visitor)
        except SignInFailed as error:
            record.failures[user.address] = str(error)
            progress.failed(user.address, str(error))
        except TimeoutError:
            reason = f"not done within {_USER_SECONDS:.0f} s"
            record.failures[user.address] = reason
            progress.failed(user.address, reason)
        else:
            record.succeeded(user.address, token, time.monotonic() - began)
            progress.step()

    async def _token_of(self, user: BenchMailbox, visitor: Visitor) -> str:
        expected, verifier = self._callback.expect(), secrets.token_urlsafe(48)
        url = self._server.authorization_url(
            self._client,
            redirect_uri=self._callback.url,
            scope=" ".join(self._request.asked_scopes),
            state=expected.state,
            code_challenge=challenge_of(verifier),
            code_challenge_method="S256",
            login_hint=user.address,
            prompt="consent",  # OpenID Connect Core §11: for offline_access
        )
        visit = Visit(
            url=url,
            callback_url=self._callback.url,
            expected=expected,
            mailbox=user.address,
            password=self._request.user_password or user.password,
        )
        try:
            await visitor.go(visit)
            if not expected.has_come:
                raise SignInFailed("the pages did not lead back to the callback")
            code = await expected.code(self._server.issuer)
        finally:
            self._callback.forget(expected)
        redemption = Redemption(code=code, verifier=verifier, redirect_uri=self._callback.url)
        exchange = asyncio.create_task(
            asyncio.to_thread(self._grants.redeem, user.address, redemption)
        )
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanged)
        return await asyncio.shield(exchange)

    def _exchanged(self, exchange: asyncio.Task[str]) -> None:
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # retrieved, even if its user was given up


class _Progress:
    """Tells how many users are signed in, not more often than each second."""

    def __init__(self, record: SignInRecord, announce: Callable[[str], None]) -> None:
        self._record = record
        self._announce = announce
        self._told_at = time.monotonic()
        self._told = -1

    def step(self) -> None:
        if time.monotonic() - self._told_at >= _TELL_SECONDS:
            self.end()

    def failed(self, mailbox: str, reason: str) -> None:
        self._announce(f"{mailbox} is not signed in: {reason}")

    def end(self) -> None:
        count = len(self._record.tokens)
        if count != self._told:
            self._told, self._told_at = count, time.monotonic()
            self._announce(f"{count} of {self._record.wanted} users signed in.")


async def _unless(stop: asyncio.Task[bool], wanted: Coroutine[None, None, object]) -> None:
    """Wait for what is wanted, but not beyond the stop."""
    task = asyncio.create_task(wanted)
    await asyncio.wait({stop, task}, return_when=asyncio.FIRST_COMPLETED)
    await _cancelled(task)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
