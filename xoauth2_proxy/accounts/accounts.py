"""Defines accounts, and finds them by login, password or the client's address.

An account is the relay's own record of a mailbox. The mail client logs in with its
local password, which is unrelated to the provider's password; the relay never knows the latter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import Credential, address_of, login_key
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.accounts.password_verifier import ANYBODY, PasswordVerifier, Turn
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, MOCK, RefresherInfo
from xoauth2_proxy.accounts.sender_rules import sender_rules
from xoauth2_proxy.errors import (
    CredentialDisabled,
    CredentialExpired,
    CredentialNotFromHere,
    CredentialsRejected,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from xoauth2_proxy.accounts.local_password import LocalPassword
    from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules
    from xoauth2_proxy.network import Network

_UNDECLARED = RefresherInfo()
_MAX_PASSWORD_LENGTH = 64  # where a text is either an access token or a password


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
    max_message_bytes: int = 0  # that the provider takes; 0: unknown


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
    password: LocalPassword | None  # None: its address is no login, unless it takes any password
    allow_any_password: bool = False
    client_tokens: bool = True  # clients may log in with access tokens of their own
    credentials: tuple[Credential, ...] = ()  # without the one of its own password
    senders: tuple[
        str, ...
    ] = ()  # address, `*@domain` or `*`; (): any, unless `from_rule` rewrites
    from_rule: FromRule | None = None
    oauth: OAuthClient = field(default_factory=OAuthClient)

    @property
    def key(self) -> str:
        """The account's identity, independent of the login's letter case."""
        return login_key(self.email)

    @property
    def takes_clients_tokens(self) -> bool:
        """Whether a client may have to bring an access token of its own, as far as is configured.

        Any account takes one that its provider accepts. But where the relay gets tokens itself and
        clients have passwords, a client that sees XOAUTH2 offered only tries its password with it.
        """
        is_without_client = self.refresher_info.needs_client and self.oauth.is_empty
        return is_without_client or self.refresher == MOCK

    @property
    def has_own_login(self) -> bool:
        """Whether its address is a login: with its own password, or with any."""
        return self.password is not None or self.allow_any_password

    @property
    def own_credential(self) -> Credential:
        """The credential of the account's own password, which is named after the mailbox."""
        return Credential(name=self.email, login=self.email, password=self.password)

    def sender_settings(
        self, credential: Credential | None
    ) -> tuple[tuple[str, ...], FromRule | None]:
        """Return the senders and the rule for From of a credential; None: a client's own token."""
        if credential is None:
            return self.senders, self.from_rule
        rule = self.from_rule if credential.from_rule is None else credential.from_rule
        return credential.senders or self.senders, rule

    def credential_of(self, former: Credential) -> Credential | None:
        """Return what this credential is by now; None if it must be proved again, or has ended."""
        own = self.own_credential
        if former.key == own.key and former.name == former.login:
            candidates: tuple[Credential, ...] = (own,) if self.has_own_login else ()
        else:
            candidates = tuple(one for one in self.credentials if one.name == former.name)
        for one in candidates:
            is_same = (one.key, one.password, one.networks) == (
                former.key,
                former.password,
                former.networks,
            )
            if is_same and one.enabled and not one.is_expired(time.time()):
                return one
        return None

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


@dataclass(frozen=True, slots=True)
class Login:
    """An authenticated client."""

    account: Account
    credential: Credential | None = None  # None: it logged in with a token of its own
    access_token: str = field(default="", repr=False)  # the client's own; "" for the account's
    token_digest: bytes = field(default=b"", repr=False)  # of that token; b"" for the account's

    @property
    def sender_rules(self) -> SenderRules | None:
        """What its messages' senders are checked against; None: they are not."""
        return sender_rules(*self.account.sender_settings(self.credential))


class Accounts:
    """The enabled accounts, by login and, where no password is needed, by network."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._by_key = {account.key: account for account in accounts}
        self._by_login = _by_login(self._by_key.values())
        self._by_network = _by_network(self._by_key.values())
        self.verifier = PasswordVerifier(self._passwords(self._by_key, self._by_login))

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, login: str) -> Account | None:
        """Return the account whose e-mail address is `login`, in any letter case."""
        return self._by_key.get(login_key(login))

    def credential(self, login: str) -> tuple[Account, Credential] | None:
        """Return the credential whose login this is, in any letter case, and its account.

        It may be disabled or expired.
        """
        key = login_key(login)
        if (found := self._by_login.get(key)) is not None:
            return found
        account = self._by_key.get(key)
        if account is None or not account.has_own_login:
            return None
        return account, account.own_credential

    def logins(self) -> Iterator[str]:
        """Yield every login: the mailboxes' addresses, and those of the credentials."""
        for account in self._by_key.values():
            yield account.email
            for one in account.credentials:
                if one.login:
                    yield one.login

    def without_password(self, peer: str) -> list[tuple[Account, Credential]]:
        """Return who a client of this address may send as without a password.

        These are the usable credentials of the most specific network that has any.
        """
        address = address_of(peer) if self._by_network else None
        if address is None:
            return []
        now = time.time()
        for (version, prefix), networks in self._by_network.items():
            if version != address.version:
                continue
            shift = address.max_prefixlen - prefix
            found = networks.get(int(address) >> shift, ())
            usable = [pair for pair in found if not pair[1].is_expired(now)]
            if usable:
                return usable
        return []

    async def replace(self, accounts: Iterable[Account]) -> None:
        """Replace all accounts; unchanged passwords stay verified."""
        by_key = {account.key: account for account in accounts}
        by_login = _by_login(by_key.values())
        by_network = _by_network(by_key.values())
        await self.verifier.replace(self._passwords(by_key, by_login))
        self._by_key, self._by_login, self._by_network = by_key, by_login, by_network

    async def use_credentials(self, account_key: str, credentials: Sequence[Credential]) -> None:
        """Replace the credentials of one account, if it is there; the others are not touched."""
        former = self._by_key.get(account_key)
        if former is None:
            return
        account = replace(former, credentials=tuple(credentials))
        new = _by_login([account])
        gone = [key for key in _by_login([former]) if key not in new]
        await self.verifier.change(
            {key: one.password for key, (_, one) in new.items()} | dict.fromkeys(gone)
        )
        self._by_key[account_key] = account
        for key in gone:
            del self._by_login[key]
        self._by_login |= new
        if any(one.password is None for one in (*former.credentials, *credentials)):
            self._by_network = _by_network(self._by_key.values())

    async def authenticate(
        self, login: str, password: str, peer: str = "", turn: Turn = ANYBODY
    ) -> Login:
        """Return the login for a user name and a password, of a client at the address `peer`.

        An unknown login costs the same work as a wrong password, so neither the reply nor its
        timing reveals which logins exist.

        Raises:
            CredentialsRejected: the login is unknown or the password wrong.
            CredentialDisabled, CredentialExpired, CredentialNotFromHere: the password is right.
            Overloaded: too many passwords are waiting to be hashed.
            What `turn.check` raises, if the password must be hashed.
        """
        found = self.credential(login)
        if found is not None and found[1].password is None:
            return Login(*found)  # `allow_any_password`
        if not await self.verifier.is_right(login_key(login), password, turn) or found is None:
            raise CredentialsRejected("login unknown or password wrong")
        check_usable(found[1], peer)
        return Login(*found)

    def authenticate_answer(
        self, login: str, challenge: bytes, digest: bytes, peer: str = ""
    ) -> Login:
        """Return the login for an answer to a CRAM-MD5 challenge; otherwise as `authenticate`."""
        found = self.credential(login)
        if not self.verifier.answers(login_key(login), challenge, digest) or found is None:
            raise CredentialsRejected("login unknown, password wrong or not known in clear")
        check_usable(found[1], peer)
        return Login(*found)

    async def with_password_as_token(
        self, login: str, text: str, peer: str = "", turn: Turn = ANYBODY, *, has_decoy: bool = True
    ) -> Login | None:
        """Return the login if `text`, sent where a token belongs, is its password; else None.

        Long texts are not hashed: they are tokens. `has_decoy` is that of
        `PasswordVerifier.is_right`. Raises as `authenticate`.
        """
        found = self.credential(login)
        password = found[1].password if found is not None else None
        if len(text) > _MAX_PASSWORD_LENGTH:
            if password is None or password.argon2_hash:
                return None
            has_decoy = False
        is_right = await self.verifier.is_right(login_key(login), text, turn, has_decoy=has_decoy)
        if found is None or password is None or not is_right:
            return None
        check_usable(found[1], peer)
        return Login(*found)

    def close(self) -> None:
        """Release the hashing threads."""
        self.verifier.close()

    def _passwords(
        self, by_key: dict[str, Account], by_login: dict[str, tuple[Account, Credential]]
    ) -> dict[str, LocalPassword]:
        own = {key: account.password for key, account in by_key.items() if account.password}
        others = {key: one.password for key, (_, one) in by_login.items() if one.password}
        return own | others


def check_usable(credential: Credential, peer: str) -> None:
    """Raise unless the credential is of use now, to a client of this address.

    Raises `CredentialDisabled`, `CredentialExpired`, `CredentialNotFromHere`.
    """
    if not credential.enabled:
        raise CredentialDisabled(
            f"the credential {credential.name} is disabled", reason="credential_disabled"
        )
    if credential.is_expired(time.time()):
        raise CredentialExpired(
            f"the credential {credential.name} expired on {credential.expires}",
            reason="credential_expired",
        )
    if credential.networks and not credential.admits(address_of(peer)):
        raise CredentialNotFromHere(
            f"the credential {credential.name} may not be used from {peer or 'an unknown address'}",
            reason="credential_network",
        )


def _by_login(accounts: Iterable[Account]) -> dict[str, tuple[Account, Credential]]:
    return {
        one.key: (account, one)
        for account in accounts
        for one in account.credentials
        if one.password is not None
    }


def _by_network(
    accounts: Iterable[Account],
) -> dict[tuple[int, int], dict[int, list[tuple[Account, Credential]]]]:
    """Return the credentials without a password, by network, the most specific networks first.

    The keys are the version of IP with the length of the prefix, and the prefix.
    """
    found: list[tuple[Network, Account, Credential]] = [
        (network, account, one)
        for account in accounts
        for one in account.credentials
        if one.password is None and one.enabled
        for network in one.networks
    ]
    by_network: dict[tuple[int, int], dict[int, list[tuple[Account, Credential]]]] = {}
    for network, account, one in sorted(found, key=lambda entry: -entry[0].prefixlen):
        shift = network.max_prefixlen - network.prefixlen
        prefixes = by_network.setdefault((network.version, network.prefixlen), {})
        prefixes.setdefault(int(network.network_address) >> shift, []).append((account, one))
    return by_network
