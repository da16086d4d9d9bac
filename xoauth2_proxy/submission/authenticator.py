"""Checks a client's credentials and returns its login: an account and perhaps a token."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.accounts.password_verifier import Turn
from xoauth2_proxy.clients.masking import KnownLogins
from xoauth2_proxy.errors import (
    CredentialsRejected,
    CredentialUnusable,
    GuessingSlowed,
    Overloaded,
    TokenError,
    UpstreamAuthRejected,
)
from xoauth2_proxy.oauth.refreshers import ChecksTokens
from xoauth2_proxy.smtp.sasl import ChallengeLogin, Credentials, PasswordLogin, has_token_form
from xoauth2_proxy.submission.credential_use import CredentialUse
from xoauth2_proxy.submission.guessing import Guessing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account, Accounts
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.token_source import TokenSource
    from xoauth2_proxy.upstream.connector import Connector
    from xoauth2_proxy.upstream.pool import Pool

_MAX_IN_LINE = 5  # different tokens of one account waiting to be tried; normally one or two
_TOKEN_WEIGHT = 3.0  # of a refused token: providers lock mailboxes after some
_PROOF_SECONDS = 300.0  # how long a token stays verified; tokens live for about an hour


@dataclass(frozen=True, slots=True)
class LoginCounts:
    """What is counted of logins, which workers tell each other."""

    uses: CredentialUse
    guessing: Guessing

    def heard(self, line: str) -> bool:
        """Count what another worker has told; return whether the line was about that."""
        return self.uses.heard(line) or self.guessing.heard(line)


class Authenticator:
    """Checks credentials; a login that succeeds can also send."""

    def __init__(
        self,
        accounts: Accounts,
        tokens: TokenSource,
        refreshers: Mapping[str, Refresher],
        pool: Pool,
        connector: Connector,
        counts: LoginCounts | None = None,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._refreshers = refreshers
        self._logins: KnownLogins | None = None  # made when a login is unknown
        self.use_counts = counts.uses if counts is not None else CredentialUse()
        self.guessing = counts.guessing if counts is not None else Guessing(0)
        self._refusal_seconds = 0.0  # that a provider last took to refuse a token
        self._generation = 0  # of the configuration that verified tokens belong to
        self._pool = pool
        self._connector = connector
        # By account: the digest of the token last verified and when, and the lock around verifying.
        # Bounded by the number of accounts.
        self._proved: dict[str, tuple[bytes, float]] = {}
        self._proving: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, Counter[bytes]] = {}  # the number of clients waiting, by token

    async def authenticate(self, credentials: Credentials, peer: str = "") -> Login:
        """Return the login for `credentials`, which a client at the address `peer` sent.

        Raises:
            CredentialsRejected: the login is unknown, or the password or token is wrong; or the
                credential is disabled, expired or not for this address.
            TokenError: the account has no access token to send with.
            UpstreamError: the client's token could not be tried, or was refused.
            Overloaded: no connection to try the token on became free.
        """
        typed = credentials.authcid
        self._check_may_try(peer, typed)
        try:
            login = await self._checked(credentials, peer)
        except (GuessingSlowed, CredentialUnusable):
            raise
        except CredentialsRejected:
            await asyncio.sleep(self.guessing.failed(peer, typed, _secret(credentials)))
            raise
        except UpstreamAuthRejected as error:
            if not error.is_transient:  # a failed login at the provider, in the mailbox's name
                secret = _secret(credentials)
                await asyncio.sleep(self.guessing.failed(peer, typed, secret, _TOKEN_WEIGHT))
            raise
        except TokenError:
            self.guessing.succeeded(peer, typed)  # the password was right
            raise
        self.guessing.succeeded(peer, typed)
        return login

    def _check_may_try(self, peer: str, login: str) -> None:
        """Raise `GuessingSlowed` if too many attempts have failed."""
        if self.guessing.must_wait(peer, login):
            raise GuessingSlowed

    def _turn_of(self, peer: str, login: str) -> Turn:
        check = partial(self._check_may_try, peer, login)
        guessing = self.guessing
        return Turn(guessing.address_of(peer), check, is_suspect=guessing.is_suspect(peer))

    async def _checked(self, credentials: Credentials, peer: str) -> Login:
        if isinstance(credentials, PasswordLogin | ChallengeLogin):
            login = await self._with_password(credentials, peer)
            await self._tokens.token_for(login.account)
            return login
        found = self._accounts.find(credentials.authcid)
        digest = hashlib.sha256(credentials.access_token.encode()).digest()
        if found is not None and self._is_proved(found, digest):
            return Login(found, None, credentials.access_token, digest)
        # Some libraries send the password where the token belongs. It never goes to the provider.
        turn = self._turn_of(peer, credentials.authcid)
        is_token = has_token_form(credentials.access_token)
        as_password = await self._accounts.with_password_as_token(
            credentials.authcid, credentials.access_token, peer, turn, has_decoy=not is_token
        )
        if as_password is not None:
            await self._tokens.token_for(as_password.account)
            return as_password
        if not is_token:
            raise CredentialsRejected("the token has no form of a token, and is not the password")
        if found is None or not found.client_tokens:
            # As long as the provider takes: the time must not tell which mailboxes there are.
            await asyncio.sleep(self._refusal_seconds)
            why = "login unknown" if found is None else "the mailbox takes no clients' tokens"
            raise CredentialsRejected(why)
        return await self._with_token(found, credentials.access_token, digest)

    async def _with_password(self, credentials: PasswordLogin | ChallengeLogin, peer: str) -> Login:
        authcid = credentials.authcid
        if isinstance(credentials, PasswordLogin):
            turn = self._turn_of(peer, authcid)
            return await self._accounts.authenticate(authcid, credentials.password, peer, turn)
        return self._accounts.authenticate_answer(
            authcid, credentials.challenge, credentials.digest, peer
        )

    def without_password(self, peer: str) -> list[Login]:
        """Return the logins that a client of this address has without AUTH."""
        return [Login(*found) for found in self._accounts.without_password(peer)]

    def current_login(self, login: Login) -> Login | None:
        """Return the login with its account's current settings; None if it must be renewed.

        A session outlives a reload, but not the removal of its account, nor the end of its
        credential or a change to how that is proved. A client's own token is only ever sent to the
        server it was verified with.
        """
        before, now = login.account, self._accounts.find(login.account.email)
        credential = login.credential
        if now is before and (credential is None or credential.expires is None):
            return login
        if now is None or (login.access_token and now.upstream != before.upstream):
            return None
        if credential is None:
            is_taken = now.client_tokens and now.password == before.password
            return replace(login, account=now) if is_taken else None
        current = now.credential_of(credential)
        return None if current is None else replace(login, account=now, credential=current)

    def use(self, refreshers: Mapping[str, Refresher]) -> None:
        """Use another configuration; tokens verified under the previous one must be tried again."""
        self._refreshers = refreshers
        self._logins = None
        self._proved.clear()
        self._generation += 1

    def logins_changed(self) -> None:
        """Logins have come or gone; all else is as it was."""
        self._logins = None

    def forget(self, key: str) -> None:
        """Forget the verified token of this account, and any that is being tried."""
        self._proved.pop(key, None)
        self._generation += 1

    def known_account(self, login: str) -> str:
        """Return the key of the account that `login` belongs to, else "". Safe to log."""
        found = self._accounts.credential(login)
        account = found[0] if found is not None else self._accounts.find(login)
        return account.key if account else ""

    def known_login(self, login: str) -> str:
        """Return the login as it is compared if there is such a one, else "". Safe to log."""
        return login_key(login) if self.known_account(login) else ""

    def nearest_login(self, typed: str) -> str:
        """Return the login that an unknown one resembles, or ""; for administrators."""
        return self._known_logins().nearest(typed)

    def shown_login(self, typed: str) -> str:
        """Return what may be shown of an unknown login, which may be a password."""
        return self._known_logins().shown(typed)

    def _known_logins(self) -> KnownLogins:
        if self._logins is None:
            self._logins = KnownLogins(self._accounts.logins())
        return self._logins

    async def _with_token(self, account: Account, access_token: str, digest: bytes) -> Login:
        refresher = self._refreshers.get(account.refresher)
        if isinstance(refresher, ChecksTokens):
            refresher.check(account.key, access_token)
            await self._tokens.token_for(account)
            return Login(account)
        # Only the provider can tell whether a token is valid. The connection that verified it is
        # kept open for the first message. One token at a time, so that strangers with made-up
        # tokens cannot use up the mailbox's connections.
        async with self._turn(account, digest):
            if not self._is_proved(account, digest):
                generation = self._generation
                await self._prove(account, access_token, digest)
                if generation == self._generation:
                    self._proved[account.key] = digest, time.monotonic()
        return Login(account, None, access_token, digest)

    @asynccontextmanager
    async def _turn(self, account: Account, digest: bytes) -> AsyncIterator[None]:
        """Wait until no other token of the account is being tried. Raises `Overloaded`."""
        line = self._waiting.setdefault(account.key, Counter())
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
            line += Counter()  # removes tokens that no client waits with
        try:
            yield
        finally:
            lock.release()

    def _is_proved(self, account: Account, digest: bytes) -> bool:
        proved, proved_at = self._proved.get(account.key, (b"", 0.0))
        return proved == digest and time.monotonic() - proved_at < _PROOF_SECONDS

    async def _prove(self, account: Account, access_token: str, digest: bytes) -> None:
        began = time.monotonic()
        try:
            await self._open_with(account, access_token, digest)
        except UpstreamAuthRejected:
            self._refusal_seconds = time.monotonic() - began
            raise

    async def _open_with(self, account: Account, access_token: str, digest: bytes) -> None:
        open_connection = partial(self._connector.open_with, account, access_token)
        async with self._pool.lease(account, open_connection, credential=digest, new=True):
            pass


def _secret(credentials: Credentials) -> str:
    """Return what the client has tried; "" if that shows no secret."""
    if isinstance(credentials, PasswordLogin):
        return credentials.password
    return "" if isinstance(credentials, ChallengeLogin) else credentials.access_token
