"""The ways to get an access token, by the name that an account's provider gives.

Plug-ins add more under the entry point group `xoauth2_proxy.refreshers` (docs/refreshers.md).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import GrantRevoked, OwnTokenRequired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.oauth.attempt import Attempt, DeviceAttempt, SignInResult
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse


def check_client(grant: Grant) -> None:
    """Raise unless the grant names a client, and has a refresh token if it needs one.

    Raises:
        GrantRevoked: a person must sign in for the first time.
        OwnTokenRequired: no client id is configured.
    """
    if not grant.client.client_id:
        raise OwnTokenRequired("no client_id is configured; clients must bring their own token")
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


@runtime_checkable
class SignsIn(Protocol):
    """A refresher that signs people in itself, in a browser.

    The methods raise as `Refresher.refresh`, and `SignInRefused` if the person may not.
    """

    async def authorization_url(self, grant: Grant, attempt: Attempt) -> str:
        """Return the address of the provider's page, which sends `attempt.state` back."""
        ...

    async def exchange(
        self, grant: Grant, attempt: Attempt, answer: Mapping[str, str]
    ) -> SignInResult:
        """Return the tokens for the provider's answer, and who signed in.

        `answer` is the query of the redirect to `attempt.redirect_uri`; its state is the attempt's,
        and it is no error. If the person pasted the code alone, it is all that `answer` has.
        """
        ...


@runtime_checkable
class SignsInOnDevice(Protocol):
    """A refresher that signs people in itself, on another device. RFC 8628."""

    async def begin_device(self, grant: Grant) -> DeviceAttempt:
        """Return the code for the person, and where to type it. Raises as `Refresher.refresh`."""
        ...

    async def poll_device(self, grant: Grant, attempt: DeviceAttempt) -> SignInResult:
        """Return the tokens and who signed in.

        Raises as `Refresher.refresh`: until the person has signed in, a `TokenError` whose
        `oauth_error` is authorization_pending or slow_down; in the end perhaps access_denied.
        """
        ...


@runtime_checkable
class Revokes(Protocol):
    """A refresher that can end a grant at the provider."""

    async def revoke(self, grant: Grant) -> bool:
        """End the grant; return False if the provider cannot. Raises as `Refresher.refresh`."""
        ...
