"""Signs access tokens for mock mailboxes, which only the sandbox provider accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.errors import CredentialsRejected
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

LIFETIME_SECONDS = 3600.0  # what Google and Microsoft usually grant


class MockRefresher:
    """Signs tokens locally, without network or provider."""

    def __init__(self, tokens: MockTokens, lifetime_seconds: float = LIFETIME_SECONDS) -> None:
        self._tokens = tokens
        self._lifetime_seconds = lifetime_seconds

    async def refresh(self, grant: Grant) -> TokenResponse:
        """Return a freshly signed token."""
        value = self._tokens.mint(grant.mailbox, ttl_seconds=self._lifetime_seconds)
        return TokenResponse(access_token=value, lifetime_seconds=self._lifetime_seconds)

    def check(self, mailbox: str, access_token: str) -> None:
        """Return if this machine's key signed the token, and it is valid now for the mailbox.

        Raises `CredentialsRejected`: it is not.
        """
        try:
            opened = self._tokens.verify(access_token)
        except MockTokenInvalid as error:
            raise CredentialsRejected(f"mock token: {error.reason}") from None
        if opened != mailbox:
            raise CredentialsRejected("mock token: another mailbox's")
