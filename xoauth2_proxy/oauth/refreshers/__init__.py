"""The ways to get an access token, by the name an account's provider gives.

`gmail`, `outlook` and `oidc` have no refresher yet; an account of theirs works for clients that
bring their own token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.oauth.grant import AccessToken


class Refresher(Protocol):
    """One way to get access tokens. It keeps no cache: `oauth.source` does."""

    async def refresh(self, account: Account) -> AccessToken:
        """Return a new access token for `account`.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
        """
        ...


@runtime_checkable
class ChecksTokens(Protocol):
    """A refresher that can also judge a token which a client brought, without asking anyone."""

    def check(self, account: Account, access_token: str) -> None:
        """Return if the token opens the account's mailbox.

        Raises:
            CredentialsRejected: it is another mailbox's, expired or forged.
        """
        ...
