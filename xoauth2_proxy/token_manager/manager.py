"""The token manager of asynchronous programs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from xoauth2_proxy.token_manager.base import ManagerBase
from xoauth2_proxy.token_manager.blocking import BlockingTokenManager

if TYPE_CHECKING:
    from types import TracebackType

    from xoauth2_proxy.errors import TokenError
    from xoauth2_proxy.oauth.token_info import TokenInfo
    from xoauth2_proxy.token_manager.tokens import Token


class TokenManager(ManagerBase):
    """Access tokens for the tasks of every event loop; `blocking` serves threads.

    Errors are `TokenError` and its subclasses, of `xoauth2_proxy.errors`.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def blocking(self) -> BlockingTokenManager:
        """The same manager for threads without an event loop; both share all tokens."""
        return BlockingTokenManager._of(self._service)

    async def get_token(self, name: str, force_refresh: bool = False) -> Token:
        """Return a token that is valid for at least a minute, usually for ten.

        It comes from memory, else from the store, else from the provider, who is asked once
        however many tasks, threads and processes wait. `force_refresh` asks the provider in any
        case. If the provider cannot be asked, a token in its last minute is returned.

        Raises:
            UnknownMailbox: there is no provider of this name.
            GrantRevoked: a person must sign in again.
            TokenEndpointRefused: the configuration must be corrected.
            TokenEndpointUnavailable, TokenStoreUnavailable: a retry may succeed.
            ManagerClosed: the manager is closed.
        """
        token = None if force_refresh else self._service.cached(name)
        if token is not None:
            return token
        return await asyncio.wrap_future(self._service.token(name, is_forced=force_refresh))

    async def token_info(self, name: str) -> TokenInfo:
        """Return what is known of the stored token; nothing is requested.

        Raises `UnknownMailbox`, `TokenStoreUnavailable`, `ManagerClosed`.
        """
        return await asyncio.wrap_future(self._service.info(name))

    async def clear_token(self, name: str | None = None) -> None:
        """Drop the access token, in memory and in the store, or without a name all of them.

        The grant stays, so the next `get_token` gets a new one. Raises as `token_info`.
        """
        await asyncio.wrap_future(self._service.clear(name))

    async def refresh_all(self) -> dict[str, Token | TokenError]:
        """Ask every provider for a new token; return the tokens and the errors, by name.

        Mailboxes whose clients bring their own tokens are left out. Raises `ManagerClosed`.
        """
        return await asyncio.wrap_future(self._service.refresh_all())

    async def close(self) -> None:
        """Let requests under way end, up to 12 seconds, and release everything.

        Their callers still get their tokens; later calls raise `ManagerClosed`.
        """
        ended = self._service.close()
        if ended is not None:
            await asyncio.wrap_future(ended)
