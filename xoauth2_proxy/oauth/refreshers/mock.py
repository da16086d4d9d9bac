"""Signs access tokens for mock mailboxes, which only the sandbox provider accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.errors import CredentialsRejected
from xoauth2_proxy.oauth.grant import Issued
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

LIFETIME_SECONDS = 3600.0  # what Google and Microsoft usually grant


class MockRefresher:
    """Mints tokens locally: no network, no provider, no secret of anyone's."""

    def __init__(self, tokens: MockTokens, lifetime_seconds: float = LIFETIME_SECONDS) -> None:
        self._tokens = tokens
        self._lifetime_seconds = lifetime_seconds

    async def refresh(self, grant: Grant) -> Issued:
        """Return a freshly signed token."""
        value = self._tokens.mint(grant.mailbox, ttl_seconds=self._lifetime_seconds)
        return Issued(access_token=value, lifetime_seconds=self._lifetime_seconds)

    def check(self, mailbox: str, access_token: str) -> None:
        """Return if the token is signed by this machine's key, valid now and the mailbox's.

        Raises:
            CredentialsRejected: it is not.
        """
        try:
            opened = self._tokens.verify(access_token)
        except MockTokenInvalid as error:
            raise CredentialsRejected(f"mock token: {error.reason}") from None
        if opened != mailbox:
            raise CredentialsRejected("mock token: another mailbox's")
