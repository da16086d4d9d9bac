"""The base of refreshers whose library blocks: runs it in a thread, with our transport."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import TokenEndpointRefused, TokenEndpointUnavailable, TokenError
from xoauth2_proxy.oauth import endpoint, responses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    import requests

    from xoauth2_proxy.oauth.grant import Grant, TokenResponse


class BlockingRefresher(ABC):
    """A refresher that requests tokens in the threads it is given."""

    def __init__(
        self, threads: Executor, exchange_seconds: float = endpoint.EXCHANGE_SECONDS
    ) -> None:
        self._threads = threads
        self._exchange_seconds = exchange_seconds

    async def refresh(self, grant: Grant) -> TokenResponse:
        """Return the token endpoint's response.

        If the caller is cancelled, the request goes on in its thread up to its own time limit, and
        the response is discarded. Raises: as `Refresher.refresh`.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask, grant)

    @abstractmethod
    def _ask(self, grant: Grant) -> TokenResponse:
        """Return the token endpoint's response; blocks."""


class LibraryExchange:
    """Sends a library's token request through our session, and keeps the response.

    The library gets only the access token. It could fail on the rest, and a refresh token that the
    provider issues only once would be lost.
    """

    def __init__(self, session: requests.Session, grant: Grant) -> None:
        self._session = session
        self._grant = grant
        self._response: TokenResponse | None = None

    def send(
        self, url: str, form: Mapping[str, str] | bytes, headers: Mapping[str, str] | None
    ) -> str:
        """Return the body of the response for the library. Raises one of our errors."""
        response = endpoint.send_request(self._session, "POST", url, form, headers)
        self._response = responses.tokens_of(response, self._grant)
        return json.dumps({"access_token": self._response.access_token})

    def run(self, library: str, request: Callable[[], object]) -> TokenResponse:
        """Return the response to the token request that `request` has the library send."""
        try:
            request()
        except TokenError:
            raise
        except Exception as error:
            # A key, a certificate, a URL or a scope is wrong. The library's errors have many types,
            # and their texts may quote secrets. After a good response they do not matter.
            if self._response is None:
                raise TokenEndpointRefused(f"{library}: {type(error).__name__}") from None
        if self._response is None:
            raise TokenEndpointUnavailable(f"{library} sent no request")
        return self._response
