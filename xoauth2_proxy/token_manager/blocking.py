"""The token manager of threads, and of programs without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from xoauth2_proxy.token_manager.base import ManagerBase

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType

    from xoauth2_proxy.errors import TokenError
    from xoauth2_proxy.oauth.token_info import TokenInfo
    from xoauth2_proxy.token_manager.tokens import Token

T = TypeVar("T")


class BlockingTokenManager(ManagerBase):
    """`TokenManager`, but that each method waits for its result. Safe in every thread.

    The errors are those of `TokenManager`. Inside an event loop it would stop the loop while it
    waits: use `TokenManager` there, and `TokenManager.blocking` in the same program's threads.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def get_token(self, name: str, force_refresh: bool = False) -> Token:
        """As `TokenManager.get_token`."""
        token = None if force_refresh else self._service.cached(name)
        if token is not None:
            return token
        self._service.check_blocking()
        return _result(self._service.token(name, is_forced=force_refresh))

    def token_info(self, name: str) -> TokenInfo:
        """As `TokenManager.token_info`."""
        self._service.check_blocking()
        return _result(self._service.info(name))

    def clear_token(self, name: str | None = None) -> None:
        """As `TokenManager.clear_token`."""
        self._service.check_blocking()
        _result(self._service.clear(name))

    def refresh_all(self) -> dict[str, Token | TokenError]:
        """As `TokenManager.refresh_all`."""
        self._service.check_blocking()
        return _result(self._service.refresh_all())

    def close(self) -> None:
        """As `TokenManager.close`."""
        self._service.check_blocking()
        ended = self._service.close()
        if ended is not None:
            ended.result()


def _result(future: Future[T]) -> T:
    """Return the result; if the wait is interrupted, as by Ctrl+C, the request's caller is gone."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
