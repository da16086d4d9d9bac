"""The ways to get an access token, by the name an account's provider gives.

A way of your own is a factory under the entry point group `xoauth2_proxy.refreshers`
(`oauth.refreshers.registry`).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from xoauth2_proxy.errors import GrantRevoked

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import Grant, Issued


def nobody_signed_in(mailbox: str) -> GrantRevoked:
    """Return the error for a mailbox that waits for a person's first sign-in."""
    return GrantRevoked(f"nobody has signed in yet: xoauth2-proxy login {shlex.quote(mailbox)}")


class Refresher(Protocol):
    """One way to get access tokens. It keeps nothing: `oauth.source` does."""

    async def refresh(self, grant: Grant) -> Issued:
        """Return a new access token, and the refresh token if it was replaced.

        It is called for one mailbox at a time, and may be cancelled. It ends within 30 s.

        Raises:
            GrantRevoked: a person must sign the mailbox in again.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
        """
        ...


@runtime_checkable
class ChecksTokens(Protocol):
    """A refresher that can also judge a token which a client brought, without asking anyone."""

    def check(self, mailbox: str, access_token: str) -> None:
        """Return if the token opens the mailbox, whose key (`Account.key`) is given.

        Raises:
            CredentialsRejected: it is another mailbox's, expired or forged.
        """
        ...
