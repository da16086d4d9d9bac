"""Serves the tokens of named providers to all threads, on an event loop in a thread of its own.

I1: one `TokenSource` does the work, on its own loop, so the callers' threads, tasks and event loops
share its cache, its single refreshes and its pauses after failures.
I2: a call from any thread or loop is a future; it ends although other callers are cancelled.
I3: nothing is started before the first token is asked for, and nothing is left after `close`.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands.suggestions import unknown
from xoauth2_proxy.errors import ConfigError, TokenError
from xoauth2_proxy.mailboxes.additions import MAX_CONCURRENT_REQUESTS
from xoauth2_proxy.mailboxes.interface import UnknownMailbox
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry
from xoauth2_proxy.oauth.token_info import TokenInfo, brings_own_token, info_of
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.oauth.token_state import fresh_copy
from xoauth2_proxy.token_manager.loop_thread import LoopThread
from xoauth2_proxy.token_manager.providers import Provider, account_of
from xoauth2_proxy.token_manager.tokens import Token, token_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore

_EXIT_SECONDS = 20.0  # for requests under way when the interpreter ends


class ManagerClosed(TokenError):
    """The token manager was closed: it serves no more tokens."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What there is from the first request until the end."""

    thread: LoopThread
    source: TokenSource
    registry: RefresherRegistry


class TokenService:
    """Tokens by name. Its methods may be called from every thread."""

    def __init__(
        self,
        open_store: Callable[[], TokenStore],
        state_dir: Path,
        accounts: Iterable[Account] = (),
        reserved: Collection[str] = (),
    ) -> None:
        """`reserved` are keys of mailboxes that no provider may be named after.

        Raises what `open_store` raises.
        """
        self._open_store = open_store
        self._store: TokenStore | None = open_store()
        self._state_dir = state_dir
        self._accounts = {account.key: account for account in accounts}
        self._reserved = frozenset(reserved) | self._accounts.keys()
        self._refreshers: dict[str, Refresher] = {}  # those of the program's own
        self._shown: dict[str, tuple[AccessToken, Token]] = {}  # the last token by account's key
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._is_changed = False  # the accounts, since the running source got them
        self._is_closed = False

    @property
    def names(self) -> list[str]:
        """The names, in the order in which they were added."""
        return [account.email for account in list(self._accounts.values())]

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def add(self, name: str, provider: Provider) -> None:
        """Add or replace a provider. Raises `ConfigError`, `ManagerClosed`."""
        account, refreshers = account_of(name, provider)
        if account.key in self._reserved:
            raise ConfigError([("name", f"{name} is a mailbox of the configuration")])
        with self._lock:
            self._check_open()
            self._refreshers |= refreshers
            self._accounts[account.key] = account
            self._is_changed = True

    def cached(self, name: str) -> Token | None:
        """Return the token that is there if it needs no attention; else None."""
        running, account = self._running, self._accounts.get(name) or self._find(name)
        if running is None or account is None or self._is_closed:
            return None
        token = running.source.cached_token(account)
        return None if token is None else self._show(account, token)

    def token(self, name: str, *, is_forced: bool = False) -> Future[Token]:
        """Ask for a token; `is_forced` asks the provider. Raises `UnknownMailbox`."""
        account = self._account(name)
        return self._submit(lambda source: self._token(source, account, is_forced=is_forced))

    def info(self, name: str) -> Future[TokenInfo]:
        """Ask what is known of a token. Raises `UnknownMailbox`."""
        account = self._account(name)
        return self._submit(lambda source: _info(source, account))

    def clear(self, name: str | None) -> Future[None]:
        """Drop one stored access token, or all. Raises `UnknownMailbox`."""
        accounts = list(self._accounts.values()) if name is None else [self._account(name)]
        return self._submit(lambda source: _clear(source, accounts))

    def refresh_all(self) -> Future[dict[str, Token | TokenError]]:
        """Ask every provider for a new token."""
        accounts = [one for one in self._accounts.values() if not brings_own_token(one)]
        return self._submit(lambda source: self._refresh_all(source, accounts))

    def close(self) -> Future[None] | None:
        """Let requests under way end, and close the store; None: nothing was started."""
        with self._lock:
            running, is_first = self._running, not self._is_closed
            self._is_closed = True
            if running is None or not running.thread.is_alive:
                return running.thread.ended if running and running.thread.ended.done() else None
            if is_first:
                running.thread.end()
            return running.thread.ended

    def check_blocking(self) -> None:
        """Raise `RuntimeError` in the manager's own thread, which a blocking call would stop."""
        running = self._running
        if running is not None and running.thread.is_current:
            raise RuntimeError("a provider must not call the blocking token manager: use await")

    def _find(self, name: str) -> Account | None:
        return self._accounts.get(login_key(name))

    def _account(self, name: str) -> Account:
        self._check_open()
        account = self._find(name)
        if account is None:
            raise UnknownMailbox(unknown("provider", name, self.names))
        return account

    def _check_open(self) -> None:
        if self._is_closed:
            raise ManagerClosed("the token manager is closed")

    def _submit(self, work: Callable[[TokenSource], Any]) -> Future[Any]:
        with self._lock:
            self._check_open()
            running = self._running
            if running is None or not running.thread.is_alive:
                running = self._running = self._start()
                self._is_changed = True
            if self._is_changed:
                self._use(running)
                self._is_changed = False
            return running.thread.submit(work(running.source))

    def _start(self) -> _Running:
        """Start the thread; after a fork, which copied neither threads nor locks, all anew."""
        store, self._store = self._store or self._open_store(), None
        registry = RefresherRegistry(self._state_dir)
        source = TokenSource({}, Metrics(), store)

        async def close() -> None:
            await source.close()
            registry.close()

        _close_at_exit(self)
        return _Running(LoopThread("oauth-tokens", close), source, registry)

    def _use(self, running: _Running) -> None:
        accounts = list(self._accounts.values())
        try:
            built_in = running.registry.refreshers({account.refresher for account in accounts})
        except (OSError, ValueError) as error:  # of mock mailboxes: the key that signs their tokens
            raise ConfigError([("state_dir", str(error))]) from None
        running.thread.call(running.source.use, built_in | self._refreshers, accounts)

    def _show(self, account: Account, token: AccessToken) -> Token:
        """Return the token as programs get it, the same one each time."""
        shown = self._shown.get(account.key)
        if shown is None or shown[0] is not token:
            shown = self._shown[account.key] = token, token_of(account.email, token)
        return shown[1]

    async def _token(self, source: TokenSource, account: Account, *, is_forced: bool) -> Token:
        try:
            token = await (source.refresh(account) if is_forced else source.token_for(account))
        except TokenError as error:
            # Callers of many threads share the error, and each would add its stack frames to it.
            failure = fresh_copy(error)
        else:
            return self._show(account, token)
        raise failure

    async def _refresh_all(
        self, source: TokenSource, accounts: Iterable[Account]
    ) -> dict[str, Token | TokenError]:
        limit = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

        async def one(account: Account) -> tuple[str, Token | TokenError]:
            async with limit:
                try:
                    return account.email, await self._token(source, account, is_forced=True)
                except TokenError as error:
                    return account.email, error

        return dict(await asyncio.gather(*map(one, accounts)))


async def _info(source: TokenSource, account: Account) -> TokenInfo:
    return info_of(account, await source.grant(account), EpochSeconds(time.time()))


async def _clear(source: TokenSource, accounts: Iterable[Account]) -> None:
    for account in accounts:
        await source.clear(account)


# The end of the interpreter. A response under way may hold the only copy of a refresh token.

_started: weakref.WeakSet[TokenService] = weakref.WeakSet()
_is_registered = False


def _close_at_exit(service: TokenService) -> None:
    global _is_registered
    _started.add(service)
    if not _is_registered:
        _is_registered = True
        # Functions of `atexit` run when the threads of all executors, with which tokens are
        # requested and stored, have ended already; these run before.
        getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _close_all() -> None:
    ends = [service.close() for service in list(_started)]
    until = time.monotonic() + _EXIT_SECONDS
    for end in ends:
        try:
            if end is not None:
                end.result(max(0.0, until - time.monotonic()))
        except Exception:  # noqa: S112 - the interpreter ends, and nobody is left to tell
            continue
