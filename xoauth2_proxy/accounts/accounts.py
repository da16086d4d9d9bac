"""Defines accounts, finds them by login and checks clients' passwords.

An account is the relay's own record of a mailbox. The mail client logs in with its
local password, which is unrelated to the provider's password; the relay never knows the latter.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, MOCK, RefresherInfo
from xoauth2_proxy.errors import CredentialsRejected, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_UNDECLARED = RefresherInfo()
_HASHING_THREADS = 2  # a flood of logins with hashed passwords must not occupy every core
# PHC string format; libargon2 wants a salt of 8 octets and a hash of 4 at least.
_PHC_ENDING = re.compile(r"\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}\Z", re.ASCII)
_MAX_PASSWORD_LENGTH = 64  # where a text is either an access token or a password
_MAX_HASHING = 200  # at 30 to 60 ms each, a wait of a few seconds at most


class TlsMode(StrEnum):
    """The protection of the connection to the upstream."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"  # loopback only


@dataclass(frozen=True, slots=True)
class Upstream:
    """The provider's submission server."""

    host: str
    port: int
    tls: TlsMode
    ca_file: Path | None = None  # None: the system's certificate authorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits on one mailbox's use of its provider."""

    max_connections: int
    max_messages_per_connection: int
    max_connection_age_seconds: float
    idle_seconds: float  # an idle connection older than this is closed
    wait_seconds: float  # how long a message may wait for its turn or a free connection
    messages_per_minute: float = 0.0  # smoothed; 0: no limit


@dataclass(frozen=True, slots=True)
class LocalPassword:
    """The password that the mail client must present, in clear or as an argon2 hash (PHC)."""

    clear_text: str = field(default="", repr=False)
    argon2_hash: str = field(default="", repr=False)


def local_password(secret: str) -> LocalPassword:
    """Return the password that `secret` is: an argon2 hash (PHC string), else clear text.

    Raises `ValueError`: it begins as an argon2 hash and is not a whole one.
    """
    if not secret.startswith("$argon2"):
        return LocalPassword(clear_text=secret)
    import argon2  # not above: most relays have no hashed password

    try:
        argon2.extract_parameters(secret)
    except argon2.exceptions.InvalidHashError:
        is_whole = False
    else:
        is_whole = _PHC_ENDING.search(secret) is not None
    if not is_whole:
        raise ValueError("begins like an argon2 hash, but is not a whole one")
    return LocalPassword(argon2_hash=secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One mailbox: its login, provider, password and limits."""

    email: str  # as configured; compared case-insensitively
    provider: str  # as configured: gmail, outlook, mock or a name under `providers`
    refresher: str  # the name of the refresher that gets its access tokens
    plug_in: RefresherInfo | None = None  # what that declares, if it is not built in
    upstream: Upstream
    limits: Limits
    # Each RCPT is sent to the provider at once, and its reply is the provider's. This costs round
    # trips and holds a connection from the first RCPT on. Otherwise RCPT goes with the content.
    verifies: bool = False
    password: LocalPassword | None  # None: any password is accepted (`allow_any_password`)
    oauth: OAuthClient = field(default_factory=OAuthClient)

    @property
    def key(self) -> str:
        """The account's identity, independent of the login's letter case."""
        return login_key(self.email)

    @property
    def refresher_info(self) -> RefresherInfo:
        """What its refresher declares."""
        return self.plug_in or BUILT_IN_REFRESHERS.get(self.refresher) or _UNDECLARED

    @property
    def keeps_tokens(self) -> bool:
        """Whether the store keeps its tokens.

        The sandbox's are minted at once. Without an OAuth client, none can be requested: clients
        bring their own.
        """
        needs_client = self.refresher == MOCK or self.refresher_info.needs_client
        return not (needs_client and self.oauth.is_empty)

    @property
    def needs_sign_in(self) -> bool:
        """Whether a person has to sign in, unless a refresh token is configured."""
        info = self.refresher_info
        return self.oauth.grant_type is GrantType.REFRESH_TOKEN and bool(info.flows)

    @property
    def token_identity(self) -> tuple[object, ...]:
        """Everything a token request depends on; accounts with equal values share a token."""
        return self.provider, self.refresher, self.email, self.oauth


@dataclass(frozen=True, slots=True)
class DisabledAccount:
    """An account that has "enabled": false: no client can log in with it."""

    email: str  # as configured
    provider: str

    @property
    def key(self) -> str:
        """The account's identity, independent of the letter case."""
        return login_key(self.email)


def login_key(login: str) -> str:
    """Return the normalized login, for comparison."""
    return login.strip().lower()


@dataclass(frozen=True, slots=True)
class Login:
    """An authenticated client."""

    account: Account
    access_token: str = field(default="", repr=False)  # the client's own; "" for the account's
    credential: bytes = field(default=b"", repr=False)  # tells tokens apart; b"" for the account's


class Accounts:
    """The enabled accounts, by login."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._by_key = {account.key: account for account in accounts}
        self._secret = secrets.token_bytes(32)
        # Digests of passwords verified against a hash: only a login's first AUTH pays for argon2.
        # At most one entry per account.
        self._verified: dict[str, bytes] = {}
        self._decoy_hash = _decoy([a.password.argon2_hash for a in self if a.password])
        self._threads = ThreadPoolExecutor(_HASHING_THREADS, "argon2")
        self._hashing = 0  # verifications running or waiting for a thread

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, login: str) -> Account | None:
        """Return the account whose e-mail address is `login`, in any letter case."""
        return self._by_key.get(login_key(login))

    async def replace(self, accounts: Iterable[Account]) -> None:
        """Replace all accounts; unchanged passwords stay verified."""
        by_key = {account.key: account for account in accounts}
        hashes = [a.password.argon2_hash for a in by_key.values() if a.password]
        self._decoy_hash = await asyncio.to_thread(_decoy, hashes, self._decoy_hash)
        for key in list(self._verified):
            new, old = by_key.get(key), self._by_key.get(key)
            if new is None or old is None or new.password != old.password:
                del self._verified[key]
        self._by_key = by_key

    async def authenticate(self, login: str, password: str) -> Account:
        """Return the account for `login` and `password`.

        An unknown login costs the same work as a wrong password, so neither the reply nor its
        timing reveals which logins exist.

        Raises:
            CredentialsRejected: the login is unknown or the password wrong.
            Overloaded: too many passwords are waiting to be hashed.
        """
        account = self.find(login)
        digest = self._digest(password)
        expected = account.password if account else LocalPassword(argon2_hash=self._decoy_hash)
        if account is not None and expected is None:
            return account
        assert expected is not None  # noqa: S101 - only an account's own password can be None
        if hmac.compare_digest(digest, self._digest(expected.clear_text)) and expected.clear_text:
            accepted = account is not None
        elif self._decoy_hash:
            accepted = await self._verify_hash(account, expected.argon2_hash, password, digest)
        else:
            accepted = False
        if account is None or not accepted:
            raise CredentialsRejected("login unknown or password wrong")
        return account

    async def is_password(self, account: Account, text: str) -> bool:
        """Whether `text` is the account's password; False if it accepts every password.

        Long texts are not hashed: they are tokens. Raises `Overloaded`, as `authenticate`.
        """
        expected = account.password
        if expected is None:
            return False
        if expected.clear_text:
            return hmac.compare_digest(self._digest(text), self._digest(expected.clear_text))
        if len(text) > _MAX_PASSWORD_LENGTH:
            return False
        return await self._verify_hash(account, expected.argon2_hash, text, self._digest(text))

    def close(self) -> None:
        """Release the hashing threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _verify_hash(
        self, account: Account | None, stored: str, password: str, digest: bytes
    ) -> bool:
        if account is not None:
            known = self._verified.get(account.key)
            if known is not None and hmac.compare_digest(known, digest):
                return True
        if self._hashing >= _MAX_HASHING:
            raise Overloaded("too many passwords are waiting to be hashed")
        self._hashing += 1
        try:
            matches = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._hash_matches, stored or self._decoy_hash, password
            )
        finally:
            self._hashing -= 1
        if account is None or not stored or not matches:
            return False
        if self._by_key.get(account.key) is account:  # not replaced in the meantime
            self._verified[account.key] = digest
        return True

    def _hash_matches(self, stored: str, password: str) -> bool:
        import argon2  # here, since only hashed passwords need it

        try:
            return argon2.PasswordHasher().verify(stored, _octets(password))
        except argon2.exceptions.VerificationError:
            return False

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._secret, _octets(password), hashlib.sha256)


def _octets(password: str) -> bytes:
    return password.encode("utf-8", "surrogateescape")


def _decoy(hashes: list[str], former: str = "") -> str:
    """Return a dummy hash, as costly to verify as the costliest of `hashes`; "" for none.

    The former one is reused if possible, since making a hash is as costly.
    """
    if not any(hashes):
        return ""
    import argon2

    parameters = [argon2.extract_parameters(one) for one in hashes if one]
    costliest = max(parameters, key=lambda one: one.time_cost * one.memory_cost)
    if former and argon2.extract_parameters(former) == costliest:
        return former
    return argon2.PasswordHasher.from_parameters(costliest).hash(secrets.token_hex())
