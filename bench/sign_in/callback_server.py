"""Receives the provider's redirects of many users on one loopback port. RFC 8252 §7.3.

I1: an answer counts only with a state that is expected, and once; others get 400.
I2: nothing is logged: the addresses contain codes.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aiohttp import web

from bench.sign_in.authorization_server import ProviderError, SignInFailed
from bench.targets.blocking_http import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

PATH = "/callback"
_CLOSE_SECONDS = 2.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = (
    '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{0}</title><h1>{0}</h1></html>\n'
)


@dataclass(frozen=True, slots=True)
class ExpectedAnswer:
    """The answer that one user will bring."""

    state: str = field(repr=False)
    _query: asyncio.Future[Mapping[str, str]] = field(repr=False)

    @property
    def has_come(self) -> bool:
        """Whether the user is back."""
        return self._query.done()

    async def code(self, issuer: str) -> str:
        """Wait for the answer and return its code. RFC 6749 §4.1.2, RFC 9207 §2.4.

        Raises:
            SignInFailed: the provider sent an error.
        """
        query = await asyncio.shield(self._query)
        if "error" in query:
            description = query.get("error_description", "")
            text = f"{query['error']}: {description}" if description else query["error"]
            raise SignInFailed(f"the provider refused: {shown(text)}")
        if query.get("iss", issuer).rstrip("/") != issuer.rstrip("/"):
            raise SignInFailed("the answer is another issuer's")
        return query["code"]


class CallbackServer:
    """Listens while it is entered."""

    def __init__(self, port: int = 0) -> None:
        self.port = port  # 0: any free one; known once entered
        self._expected: dict[str, ExpectedAnswer] = {}
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """The redirect URI."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def expect(self) -> ExpectedAnswer:
        """Return a new expected answer; `forget` it if its user has given up."""
        state = secrets.token_urlsafe(24)
        future = asyncio.get_running_loop().create_future()
        self._expected[state] = expected = ExpectedAnswer(state, future)
        return expected

    def forget(self, expected: ExpectedAnswer) -> None:
        """Refuse an answer from now on."""
        self._expected.pop(expected.state, None)

    async def __aenter__(self) -> Self:
        """Start to listen. Raises `ProviderError`: the port cannot be used."""
        server = web.Server(self._serve, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ProviderError(
                f"Port {self.port} of 127.0.0.1 cannot be used for the callback: {error.strerror}. "
                "Give another --callback-port."
            ) from None
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        self._expected.clear()
        assert self._runner is not None  # noqa: S101 - entered before
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        if request.headers.get("Host", "") != f"127.0.0.1:{self.port}" or request.path != PATH:
            return _page(404, "There is nothing here")
        if request.method != "GET":
            return _page(405, "Only GET is allowed here")
        query = dict(request.query)
        if len(query) != len(request.query) or not query.keys() & {"code", "error"}:
            return _page(400, "This is no answer of a provider")
        expected = self._expected.pop(query.get("state", ""), None)
        if expected is None:
            return _page(400, "No sign-in waits for this answer")
        expected._query.set_result(query)
        return _page(200, "Not signed in" if "error" in query else "Signed in")


def _page(status: int, title: str) -> web.Response:
    return web.Response(
        status=status, text=_PAGE.format(title), content_type="text/html", headers=_HEADERS
    )
