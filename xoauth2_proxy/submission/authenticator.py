"""Turns a client's credentials into a login: an account, and how it gets its access token."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.errors import CredentialsRejected, Overloaded
from xoauth2_proxy.oauth.refreshers import ChecksTokens
from xoauth2_proxy.smtp.sasl import Credentials, PasswordLogin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account, Accounts
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.tokens import TokenSource
    from xoauth2_proxy.upstream.connector import Connector
    from xoauth2_proxy.upstream.pool import Pool

_MAX_IN_LINE = 5  # different tokens of one account waiting to be tried: a mailbox has one or two
_PROOF_SECONDS = 300.0  # a token tried upstream is believed this long; they live for about an hour


class Authenticator:
    """Judges credentials, and makes sure that a login which succeeds can also send."""

    def __init__(
        self,
        accounts: Accounts,
        tokens: TokenSource,
        refreshers: Mapping[str, Refresher],
        pool: Pool,
        connector: Connector,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._refreshers = refreshers
        self._generation = 0  # of what proofs hold for
        self._pool = pool
        self._connector = connector
        # By account: the digest of the token last proved and when, and the lock around proving. At
        # most one entry an account, for only accounts get here.
        self._proved: dict[str, tuple[bytes, float]] = {}
        self._proving: dict[str, asyncio.Lock] = {}
        self._in_line: dict[str, Counter[bytes]] = {}  # how many clients wait with which token

    async def authenticate(self, credentials: Credentials) -> Login:
        """Return the login that `credentials` open.

        Raises:
            CredentialsRejected: unknown login, wrong password, or a token that is not the login's.
            TokenError: the account has no access token to send with.
            UpstreamError: the client's token could not be tried, or was refused.
            Overloaded: no connection to try it on became free.
        """
        if isinstance(credentials, PasswordLogin):
            account = await self._accounts.authenticate(credentials.authcid, credentials.password)
            await self._tokens.token_for(account)
            return Login(account)
        account_or_none = self._accounts.find(credentials.authcid)
        if account_or_none is None:
            raise CredentialsRejected("login unknown")
        return await self._with_token(account_or_none, credentials.access_token)

    def current_login(self, login: Login) -> Login | None:
        """Return the login with its account as it is now; None if it must be made again.

        So a session outlives a reload, but not its account's removal or another password; and a
        token that a client brought goes to the server that it was brought for.
        """
        before, now = login.account, self._accounts.find(login.account.email)
        if now is before:
            return login
        if now is None or now.password != before.password:
            return None
        if login.access_token and now.upstream != before.upstream:
            return None
        return replace(login, account=now)

    def use(self, refreshers: Mapping[str, Refresher]) -> None:
        """Go on with another configuration: what was proved under the one before is not."""
        self._refreshers = refreshers
        self._proved.clear()
        self._generation += 1

    def forget(self, key: str) -> None:
        """Let no token of this account count as proved, nor one that is being tried."""
        self._proved.pop(key, None)
        self._generation += 1

    def known_account(self, login: str) -> str:
        """Return the account's key if `login` is one, else "": fit for a log."""
        account = self._accounts.find(login)
        return account.key if account else ""

    async def _with_token(self, account: Account, access_token: str) -> Login:
        refresher = self._refreshers.get(account.refresher)
        if isinstance(refresher, ChecksTokens):
            refresher.check(account.key, access_token)
            await self._tokens.token_for(account)
            return Login(account)
        # Only the provider can tell whether a token is good. The connection that proved it is
        # kept, so the first message finds it open. One at a time: strangers with made-up tokens
        # may not crowd out the mailbox's own connections.
        digest = hashlib.sha256(access_token.encode()).digest()
        if not self._is_proved(account, digest):
            async with self._turn(account, digest):
                if not self._is_proved(account, digest):
                    generation = self._generation
                    await self._prove(account, access_token)
                    if generation == self._generation:
                        self._proved[account.key] = digest, time.monotonic()
        return Login(account, access_token)

    @asynccontextmanager
    async def _turn(self, account: Account, digest: bytes) -> AsyncIterator[None]:
        """Wait until no other token of the account is being tried. Raises `Overloaded`."""
        line = self._in_line.setdefault(account.key, Counter())
        if digest not in line and len(line) >= _MAX_IN_LINE:
            raise Overloaded("too many different tokens are waiting to be tried")
        line[digest] += 1
        lock = self._proving.setdefault(account.key, asyncio.Lock())
        try:
            async with asyncio.timeout(account.limits.wait_seconds):
                await lock.acquire()
        except TimeoutError:
            raise Overloaded("the token could not be tried in time") from None
        finally:
            line[digest] -= 1
            line += Counter()  # drops what nobody waits with any more
        try:
            yield
        finally:
            lock.release()

    def _is_proved(self, account: Account, digest: bytes) -> bool:
        proved, proved_at = self._proved.get(account.key, (b"", 0.0))
        return proved == digest and time.monotonic() - proved_at < _PROOF_SECONDS

    async def _prove(self, account: Account, access_token: str) -> None:
        open_connection = partial(self._connector.open_with, account, access_token)
        async with self._pool.lease(account, open_connection, new=True):
            pass
