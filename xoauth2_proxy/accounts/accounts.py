"""Who may use the relay: the accounts, and the check of a client's login and password.

An account is the relay's own record of a mailbox. Its local password is what the mail client
presents; it has nothing to do with the provider's password, which the relay never knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import CredentialsRejected, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_HASHING_THREADS = 2  # a flood of logins against hashed passwords may not take every core
_MAX_HASHING = 200  # at 30 to 60 ms each, nobody waits longer than a few seconds


class TlsMode(StrEnum):
    """How the connection to the upstream is protected."""

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
    """What one mailbox may take of its provider."""

    max_connections: int
    max_messages_per_connection: int
    max_connection_age_seconds: float
    idle_seconds: float  # an idle connection older than this is closed
    wait_seconds: float  # how long a message may wait for its turn or a free connection
    messages_per_minute: float = 0.0  # smoothed; 0: no limit


@dataclass(frozen=True, slots=True)
class LocalPassword:
    """What the mail client must present: either clear text or a valid argon2 hash (PHC string)."""

    clear_text: str = field(default="", repr=False)
    argon2_hash: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One mailbox: its login, its provider and how much of it may be used."""

    email: str  # as configured; compared case-insensitively
    provider: str  # the configuration's word: gmail, outlook, mock or a name under `providers`
    refresher: str  # which refresher gets its access tokens
    upstream: Upstream
    limits: Limits
    # Each RCPT is put to the provider at once, for true replies, at the price of round trips and of
    # a connection held from the first RCPT on; otherwise recipients are judged with the content.
    verifies: bool = False
    password: LocalPassword | None  # None: any password is accepted (`allow_any_password`)
    oauth: OAuthClient = field(default_factory=OAuthClient)

    @property
    def key(self) -> str:
        """The account's identity, whatever the letter case of the login."""
        return login_key(self.email)

    @property
    def token_identity(self) -> tuple[object, ...]:
        """All that a token request depends on; accounts for which it is equal can share a token."""
        return self.provider, self.refresher, self.email, self.oauth


def login_key(login: str) -> str:
    """Return the form in which logins are compared."""
    return login.strip().lower()


@dataclass(frozen=True, slots=True)
class Login:
    """A client that has proved who it is."""

    account: Account
    access_token: str = field(default="", repr=False)  # the client's own; "" for the account's


class Accounts:
    """The enabled accounts, by login."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._by_key = {account.key: account for account in accounts}
        self._secret = secrets.token_bytes(32)
        # Digests of hashed passwords that were verified, so that only a login's first AUTH pays
        # for argon2. One entry an account at most.
        self._verified: dict[str, bytes] = {}
        self._decoy_hash = _decoy([a.password.argon2_hash for a in self if a.password])
        self._threads = ThreadPoolExecutor(_HASHING_THREADS, "argon2")
        self._hashing = 0  # verifications under way or waiting for a thread

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, login: str) -> Account | None:
        """Return the account whose e-mail address is `login`, in any letter case."""
        return self._by_key.get(login_key(login))

    async def replace(self, accounts: Iterable[Account]) -> None:
        """Let these accounts take the place of all; passwords that did not change stay verified."""
        by_key = {account.key: account for account in accounts}
        hashes = [a.password.argon2_hash for a in by_key.values() if a.password]
        self._decoy_hash = await asyncio.to_thread(_decoy, hashes, self._decoy_hash)
        for key in list(self._verified):
            new, old = by_key.get(key), self._by_key.get(key)
            if new is None or old is None or new.password != old.password:
                del self._verified[key]
        self._by_key = by_key

    async def authenticate(self, login: str, password: str) -> Account:
        """Return the account that `login` and `password` open.

        An unknown login costs the same work as a wrong password, so neither words nor timing tell
        which logins exist.

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
        if self._by_key.get(account.key) is account:  # not replaced while it was verified
            self._verified[account.key] = digest
        return True

    def _hash_matches(self, stored: str, password: str) -> bool:
        import argon2  # not above: a relay whose passwords are clear text never needs it

        try:
            return argon2.PasswordHasher().verify(stored, _octets(password))
        except argon2.exceptions.VerificationError:
            return False

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._secret, _octets(password), hashlib.sha256)


def _octets(password: str) -> bytes:
    return password.encode("utf-8", "surrogateescape")


def _decoy(hashes: list[str], former: str = "") -> str:
    """Return a hash of nothing, as costly to verify as the costliest of `hashes`; "" for none.

    It is the former one if that will do, for making one is as costly.
    """
    if not any(hashes):
        return ""
    import argon2

    parameters = [argon2.extract_parameters(one) for one in hashes if one]
    costliest = max(parameters, key=lambda one: one.time_cost * one.memory_cost)
    if former and argon2.extract_parameters(former) == costliest:
        return former
    return argon2.PasswordHasher.from_parameters(costliest).hash(secrets.token_hex())
