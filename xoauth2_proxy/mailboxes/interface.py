"""The running relay as mailbox operations use it, and the mailboxes and errors that they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.accounts.refresher_info import MOCK, RefresherInfo
from xoauth2_proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.mailboxes.runtime_accounts import RuntimeAccounts
    from xoauth2_proxy.mailboxes.runtime_credentials import RuntimeCredentials
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.mailbox_status import MailboxStatus
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore

_OAUTH_FLOWS = ("browser", "device")  # of a plug-in whose provider speaks OAuth

Document: TypeAlias = "dict[str, Any]"  # an account as accounts.json has it

_DISPLAY_NAMES = {
    "gmail": "Google Gmail",
    "outlook": "Microsoft 365 and Outlook.com",
    "mock": "Sandbox",
    "sandbox": "Sandbox with sign-in",
}


class UnknownMailbox(ProxyError):
    """There is no such mailbox."""


class MailboxExists(ProxyError):
    """The mailbox exists already, and the proposal does not overwrite."""


class UnknownCredential(ProxyError):
    """The mailbox has no such credential."""


class CredentialExists(ProxyError):
    """The mailbox has a credential of this name already."""


class NeedsAdminToken(ProxyError):
    """Without `admin.token`, any user of this machine could do this; the text says what to do."""


class RefreshTooSoon(ProxyError):
    """The provider was asked for a token less than a minute ago."""

    is_transient = True

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds  # until it may be asked again


class DefinedInFile(ProxyError):
    """The mailbox is defined in the configuration file, so it can be changed only there."""


class NotSupported(ProxyError):
    """A mailbox of this kind does not support the operation; the text says why."""


class NotEnabled(ProxyError):
    """The configuration does not allow the operation; the text says which key does."""


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """A provider that accounts can name, with its default OAuth settings."""

    name: str
    refresher: RefresherInfo
    client: OAuthClient

    @property
    def display_name(self) -> str:
        """The name shown to people."""
        declared = self.refresher.display_name if self.refresher.origin else ""
        return _DISPLAY_NAMES.get(self.name) or declared or self.name

    @property
    def obstacle(self) -> str:
        """Why signing in is impossible; "" if it is possible."""
        return sign_in_obstacle(self.refresher, self.client)

    @property
    def flows(self) -> tuple[str, ...]:
        """The ways to sign in."""
        return () if self.obstacle else self.refresher.flows or _OAUTH_FLOWS

    def to_json(self) -> dict[str, object]:
        """Return the provider as interfaces show it."""
        return {
            "name": self.name,
            "display_name": self.display_name,
            "refresher": self.refresher.name,
            "flows": self.flows,
            "scopes": self.client.scopes,
            "can_sign_in": not self.obstacle,
            "reason": self.obstacle,
        }


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox, as its operator sees it."""

    account: Account
    status: MailboxStatus
    is_added: bool  # added at run time; False: defined in the configuration file

    @property
    def obstacle(self) -> str:
        """Why signing in is impossible; "" if it is possible."""
        return sign_in_obstacle(self.account.refresher_info, self.account.oauth)

    @property
    def has_grant(self) -> bool:
        """Whether a person granted access, which can be refreshed and revoked."""
        is_personal = self.account.oauth.grant_type is GrantType.REFRESH_TOKEN
        return is_personal and self.account.keeps_tokens


@dataclass(slots=True, kw_only=True)
class RelayControl:
    """The running relay: its accounts in force, and what mailbox operations need of it."""

    accounts: Mapping[str, Account]  # the enabled accounts in force, by key
    disabled: Sequence[DisabledAccount] = ()
    added: Collection[str]  # keys of the accounts in force that were added at run time
    providers: Sequence[ProviderInfo]
    # Return what every installed refresher declares, by name; blocks, since plug-ins are loaded.
    all_refreshers: Callable[[], list[RefresherInfo]]
    account_files: RuntimeAccounts
    credential_files: RuntimeCredentials
    made: Collection[str]  # keys of the credentials in force that were made at run time
    has_token: bool  # whether the admin server asks for a token
    store: TokenStore
    metrics: Metrics
    threads: Executor  # for requests that block
    warn_days: int
    serves_tokens: bool = False  # whether access tokens may be given to programs

    # Return the accounts that the documents (each with its JSON path) define, in their order;
    # blocks. The keys are of added accounts that the documents replace.
    # Raises `ConfigError` with every problem.
    check: Callable[[Sequence[tuple[str, Document]], Collection[str]], list[Account]]
    # Return the credential that the document describes for an account in force; blocks.
    # Raises `ConfigError` with every problem.
    check_credential: Callable[[Document, Account], Credential]
    # Put other credentials of an account in force, given by its key, in all processes.
    use_credentials: Callable[[str, Sequence[Credential], Collection[str]], Awaitable[None]]
    # Return the refresher of this name, even if no account uses it yet. Raises `OSError`.
    refresher: Callable[[str], Refresher | None]
    # Get a new token for an account in force, for all processes. Raises as `TokenSource.refresh`.
    refresh: Callable[[Account], Awaitable[AccessToken]]
    # Return the token of an account in force. Raises as `TokenSource.token_for`.
    token_for: Callable[[Account], Awaitable[AccessToken]]
    # Log in at the provider's mail server with this access token. Raises `UpstreamAuthRejected` if
    # the server refuses it, `UpstreamError` if the server cannot be asked.
    log_in: Callable[[Account, str], Awaitable[None]]
    # Read the configuration and the added accounts again, in all processes.
    # Raises `ConfigError` or `OSError`; then nothing has changed.
    reload: Callable[[], Awaitable[None]]
    # Drop a mailbox's tokens and connections (by its key), in all processes.
    forget: Callable[[str], None]


def sign_in_obstacle(refresher: RefresherInfo, client: OAuthClient) -> str:
    """Return why signing in is impossible with these settings; "" if it is possible."""
    if refresher.fault:
        return f"the refresher {refresher.name} is disabled: {refresher.fault}"
    if refresher.name == MOCK:
        return "sandbox mailboxes need no sign-in"
    if refresher.name == "command":
        return "its tokens come from a command"
    if client.grant_type is not GrantType.REFRESH_TOKEN:
        return f"the proxy signs in by itself ({client.grant_type})"
    signs_in = bool(refresher.origin and refresher.flows)
    return "" if signs_in else _client_obstacle(refresher, client)


def _client_obstacle(refresher: RefresherInfo, client: OAuthClient) -> str:
    """Return what the client lacks for a sign-in that the relay conducts."""
    if not client.client_id and refresher.origin:
        where = refresher.kept_in and f"; it keeps its credentials in {refresher.kept_in}"
        return f"{refresher.label} has no sign-in of its own{where}"
    if not client.client_id:
        return "no client_id is configured; register the proxy with the provider"
    has_address = client.issuer or client.authorization_endpoint
    if refresher.name not in {"gmail", "outlook"} and not has_address:
        return "neither issuer nor authorization_url is configured"
    return ""
