"""What the operator's side needs of the relay that runs, and what it says of its mailboxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.mailbox_status import Standing
    from xoauth2_proxy.oauth.refreshers import Refresher

Document: TypeAlias = "dict[str, Any]"  # an account as accounts.json has it

MOCK = "mock"  # the refresher of the sandbox's mailboxes
_COMMAND = "command"
_DISPLAY_NAMES = {
    "gmail": "Google Gmail",
    "outlook": "Microsoft 365 and Outlook.com",
    "mock": "Sandbox",
}


class UnknownMailbox(ProxyError):
    """There is no such mailbox."""


class AlreadyThere(ProxyError):
    """The mailbox exists, and was not to be replaced."""


class TooSoon(ProxyError):
    """The provider was asked a moment ago."""

    is_transient = True

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds  # until it may be asked again


class WrittenInFile(ProxyError):
    """The mailbox is written in the configuration file, so it cannot be changed from here."""


class NotPossible(ProxyError):
    """It cannot be done with a mailbox of this kind; the text says why."""


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """A provider that accounts can name, and what they have of it unless they say otherwise."""

    name: str
    refresher: str
    client: OAuthClient

    @property
    def display_name(self) -> str:
        """The name for a person."""
        return _DISPLAY_NAMES.get(self.name, self.name)

    @property
    def obstacle(self) -> str:
        """Why nobody can sign in to it; "" if one can."""
        return sign_in_obstacle(self.refresher, self.client)

    @property
    def flows(self) -> tuple[str, ...]:
        """The ways to sign in. A device code has no use for Google's mail scope."""
        if self.obstacle:
            return ()
        return ("browser",) if self.refresher == "gmail" else ("browser", "device")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox, as its operator sees it."""

    account: Account
    standing: Standing
    is_added: bool  # while the relay ran; False: it is written in the configuration file

    @property
    def obstacle(self) -> str:
        """Why nobody can sign it in; "" if one can."""
        return sign_in_obstacle(self.account.refresher, self.account.oauth)

    @property
    def has_grant(self) -> bool:
        """Whether it lives on a right that someone granted, which can be renewed and revoked."""
        client = self.account.oauth
        return client.grant_type is GrantType.REFRESH_TOKEN and not client.is_empty


class Running(Protocol):
    """The relay that runs. `app` is one of a single process, `workers.parent` one of several."""

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The enabled accounts in force, by key."""
        ...

    @property
    def providers(self) -> Sequence[ProviderInfo]:
        """The providers that accounts can name."""
        ...

    @property
    def added(self) -> Collection[str]:
        """The keys of the accounts in force that were added while the relay ran."""
        ...

    def check(
        self, documents: Sequence[tuple[str, Document]], replaced: Collection[str]
    ) -> list[Account]:
        """Return the accounts that the documents make, in their order; blocks.

        They are judged as accounts that come over the network, beside those there are now but for
        `replaced`, the keys of added ones.

        Raises:
            ConfigError: with every problem; its JSON path begins with the document's own.
        """
        ...

    def refresher(self, name: str) -> Refresher | None:
        """Return the refresher of this name, though no account uses it yet. Raises `OSError`."""
        ...

    async def renew(self, account: Account) -> object:
        """Get a new token from the provider for an account in force, for every process to use.

        Raises: as `TokenSource.renew`.
        """
        ...

    async def prove(self, account: Account, access_token: str) -> None:
        """Return if the provider's mail server lets the mailbox in with this token.

        Raises:
            UpstreamAuthRejected: it does not.
            UpstreamError: it cannot be asked.
        """
        ...

    async def reload(self) -> None:
        """Read the configuration again, added accounts included, and go on with it everywhere.

        Raises:
            ConfigError: nothing has changed.
            OSError: the same.
        """
        ...

    def forget(self, mailbox: str) -> None:
        """Drop, in every process, what a mailbox (its key) can be sent with."""
        ...


class KeptAccounts(Protocol):
    """The accounts that were added while the relay ran, on disk. Blocking."""

    def keys(self) -> Collection[str]:
        """Return whose accounts are kept. Raises `OSError`."""
        ...

    def documents(self) -> Sequence[tuple[str, Document]]:
        """Return the accounts that are kept, each with its file's name. Raises `OSError`."""
        ...

    def add(self, document: Document) -> None:
        """Keep an account, in place of the mailbox's former one. Raises `OSError`."""
        ...

    def remove(self, key: str) -> bool:
        """Keep the account no longer; return whether it was kept. Raises `OSError`."""
        ...


def asks_alike(one: Account, other: Account) -> bool:
    """Whether both ask for tokens in the same way, so that the token of one is the other's."""
    return _asks_as(one) == _asks_as(other)


def _asks_as(account: Account) -> tuple[object, ...]:
    return account.provider, account.refresher, account.email, account.oauth


def sign_in_obstacle(refresher: str, client: OAuthClient) -> str:
    """Return why nobody can sign in with these settings; "" if one can."""
    if refresher == MOCK:
        return "mailboxes of the sandbox need no sign-in"
    if refresher == _COMMAND:
        return "a command prints its tokens"
    if client.grant_type is not GrantType.REFRESH_TOKEN:
        return f"the relay signs in by itself ({client.grant_type})"
    if not client.client_id:
        return "no client_id is configured; register the relay with the provider"
    has_address = client.issuer or client.authorization_endpoint
    if refresher not in {"gmail", "outlook"} and not has_address:
        return "neither issuer nor authorization_url is configured"
    return ""
