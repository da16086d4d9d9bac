"""Refreshers for scenarios: tokens that come when a test says so, or as it wrote them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import GrantRevoked
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.oauth.refreshers.mock import LIFETIME_SECONDS, MockRefresher

if TYPE_CHECKING:
    from collections.abc import Collection

    from xoauth2_proxy.errors import TokenError
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens


class GatedRefresher:
    """Gives out good tokens, but only once the gate is open."""

    def __init__(self, tokens: MockTokens, gated: Collection[str] | None = None) -> None:
        self.requests: list[str] = []  # whose, in order
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self._gated = gated  # None: everyone
        self._inner = MockRefresher(tokens)

    async def refresh(self, grant: Grant) -> TokenResponse:
        self.requests.append(grant.mailbox.lower())
        if self._gated is None or grant.mailbox.lower() in self._gated:
            self.asked.set()
            await self.gate.wait()
        return await self._inner.refresh(grant)


class PartlyDeadRefresher:
    """Gives out good tokens, but the grants of some mailboxes are dead."""

    def __init__(self, tokens: MockTokens, dead: Collection[str]) -> None:
        self.requests: list[str] = []  # whose, in order
        self._dead = dead
        self._inner = MockRefresher(tokens)

    async def refresh(self, grant: Grant) -> TokenResponse:
        self.requests.append(grant.mailbox.lower())
        if grant.mailbox.lower() in self._dead:
            raise GrantRevoked("Token has been revoked", oauth_error="invalid_grant")
        return await self._inner.refresh(grant)


class WrittenRefresher:
    """Answers each request with the next item: an error, or a token as it is written.

    The last item is the answer to every further request.
    """

    def __init__(self, *script: TokenError | str) -> None:
        self.requests = 0
        self._script = list(script)

    async def refresh(self, grant: Grant) -> TokenResponse:
        self.requests += 1
        item = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(item, str):
            return TokenResponse(access_token=item, lifetime_seconds=LIFETIME_SECONDS)
        raise item
