"""What the accounts of a provider have in common, and how entries and accounts change that.

The account beats the provider's entry, which beats what is built in, key by key; but a client id
comes with its own secret or certificate, and an issuer with its own endpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.accounts.accounts import Limits, TlsMode, Upstream
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, MOCK, RefresherInfo
from xoauth2_proxy.network import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

SANDBOX = "sandbox"  # the provider whose mailboxes sign in at the sandbox
SANDBOX_CLIENT_ID = "xoauth2-proxy"  # the client that the sandbox always knows; it is public


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What the accounts of one provider have in common."""

    name: str
    refresher: str
    plug_in: RefresherInfo | None = None  # what the refresher declares, if it is not built in
    upstream: Upstream
    limits: Limits
    built_in_client: OAuthClient = field(default_factory=OAuthClient)
    application_scopes: tuple[str, ...] = ()  # instead of the scopes for client_credentials
    connections_allowed: int | None = None  # the provider's own cap per mailbox; None: unknown
    # What the operator's entry says.
    is_upstream_written: bool = False
    client_fields: dict[str, Any] = field(default_factory=dict, repr=False)
    has_own_client: bool = False  # with whatever identifies it
    opens_every_mailbox: bool = False  # of an organization, without a sign-in
    # Secrets and files that it names and that are not there, as problems by JSON path. They are
    # told once an account needs them; until then, `client_fields` is empty.
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def refresher_info(self) -> RefresherInfo:
        """What its refresher declares."""
        return self.plug_in or BUILT_IN_REFRESHERS.get(self.refresher) or RefresherInfo()

    def client_of(self, account_fields: dict[str, Any]) -> OAuthClient:
        """Return the client of an account that writes these fields."""
        client = _overlaid(_overlaid(self.built_in_client, self.client_fields), account_fields)
        written = self.client_fields.keys() | account_fields.keys()
        if "grant_type" not in written and client.service_account is not None:
            client = replace(client, grant_type=GrantType.SERVICE_ACCOUNT)
        if "scopes" not in written and client.grant_type is GrantType.CLIENT_CREDENTIALS:
            client = replace(client, scopes=self.application_scopes)
        return client

    def is_left_to_sandbox(self, client: OAuthClient) -> bool:
        """Return whether an account with this client signs in at the sandbox, or needs no sign-in.

        An issuer that is written is another server.
        """
        if self.refresher == MOCK:
            return True
        return self.name == SANDBOX and client.issuer == self.built_in_client.issuer

    def faults_of_use(self, upstream: Upstream, limits: Limits) -> Iterator[tuple[str, str]]:
        """Yield what may not be done here: TLS left out, or the provider's own cap exceeded."""
        if upstream.tls is TlsMode.NONE and upstream.host and not is_loopback(upstream.host):
            yield (
                "upstream.tls",
                f"none is for loopback only, and {upstream.host} is not; "
                "write starttls or implicit",
            )
        allowed = self.connections_allowed
        if allowed is not None and limits.max_connections > allowed:
            yield (
                "limits.max_connections",
                f"{self.name} allows {allowed} connections per mailbox at one time",
            )


def _overlaid(base: OAuthClient, written: dict[str, Any]) -> OAuthClient:
    is_another_client = base.client_id != written.get("client_id", base.client_id)
    if (base.client_id and is_another_client) or written.keys() & {"client_secret", "certificate"}:
        base = replace(base, client_secret="", certificate=None, secret_expires_on=None)
    if base.options and "options" in written:
        written = written | {"options": base.options | written["options"]}
    if "issuer" in written:
        base = replace(base, token_endpoint="", authorization_endpoint="")
    return replace(base, **written)
