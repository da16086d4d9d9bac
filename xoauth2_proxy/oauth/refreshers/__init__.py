"""The ways to get an access token, by the name that an account's provider gives.

Plug-ins add more under the entry point group `xoauth2_proxy.refreshers` (docs/refreshers.md).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointRefused

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse


def check_client(grant: Grant) -> None:
    """Raise unless the grant names a client, and has a refresh token if it needs one.

    Raises:
        GrantRevoked: a person must sign in for the first time.
        TokenEndpointRefused: no client id is configured.
    """
    if not grant.client.client_id:
        raise TokenEndpointRefused("no client_id is configured; clients must bring their own token")
    if grant.client.grant_type is GrantType.REFRESH_TOKEN and not grant.refresh_token:
        command = f"xoauth2-proxy login {shlex.quote(grant.mailbox)}"
        raise GrantRevoked(f"no one has signed in yet: {command}")


class Refresher(Protocol):
    """One way to get access tokens. It stores nothing: `oauth.refresh` does."""

    async def refresh(self, grant: Grant) -> TokenResponse:
        """Return a new access token, and the refresh token if it was replaced.

        It must end within 30 s, and may be cancelled. There is one call at a time for a mailbox.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must correct the configuration.
            TokenEndpointUnavailable: transient.
        """
        ...


@runtime_checkable
class ChecksTokens(Protocol):
    """A refresher that can also check a token that a client brought, without a request."""

    def check(self, mailbox: str, access_token: str) -> None:
        """Return if the token is valid for the mailbox, given by its `Account.key`.

        Raises `CredentialsRejected`: it is for another mailbox, expired or forged.
        """
        ...
