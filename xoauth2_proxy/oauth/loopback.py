"""Waits on this machine for the browser that the provider sends back. RFC 8252 §7.3.

I1: one answer is taken, and only with the state of the attempt; others change nothing.
I2: nothing listens off loopback, and nothing listens once the answer was dealt with.
Codes stand in addresses, so requests are not logged.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import html
import socket
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from xoauth2_proxy.errors import ProxyError, SignInRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

_T = TypeVar("_T")

WAIT_SECONDS = 300.0  # a password manager and a second factor take their time

_PORT_TRIES = 10  # for a port that is free on both of loopback's addresses
_CLOSE_SECONDS = 2.0  # for the page to reach the browser
_NO_IPV6 = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""


class Loopback:
    """Listens while it is entered, on `redirect_uri`'s host name or address and `port`."""

    def __init__(self, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self.port = port  # 0: any free one; known once entered
        self._host = host
        self._state = ""
        self._answer: asyncio.Future[Mapping[str, str]] | None = None
        self._told: asyncio.Future[tuple[bool, str]] | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen. Raises `SignInRefused`: the port is taken."""
        sockets = _sockets(self.port, with_ipv6=self._host == "localhost")
        self.port = sockets[0].getsockname()[1]
        server = web.Server(self._serve, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS)
        try:
            await self._runner.setup()
            for one in sockets:
                await web.SockSite(self._runner, one).start()
        except BaseException:
            for one in sockets:
                one.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if self._told is not None and not self._told.done():
            self._told.set_result((False, "The sign-in was given up."))
        assert self._runner is not None  # noqa: S101 - entered before
        await self._runner.cleanup()

    async def result(
        self,
        state: str,
        finish: Callable[[Mapping[str, str]], Awaitable[_T]],
        wait_seconds: float = WAIT_SECONDS,
    ) -> _T:
        """Return what `finish` makes of the answer; its page tells the person how it went.

        Raises:
            SignInRefused: nobody came in time.
            ProxyError: whatever `finish` raises.
        """
        loop = asyncio.get_running_loop()
        self._state, self._answer, self._told = state, loop.create_future(), loop.create_future()
        try:
            async with asyncio.timeout(wait_seconds):
                answer = await self._answer
        except TimeoutError:
            raise SignInRefused(f"nobody signed in within {wait_seconds:.0f} s") from None
        try:
            outcome = await finish(answer)
        except ProxyError as error:
            self._tell(False, f"{error}")
            raise
        self._tell(True, "The mailbox is signed in. You can close this page.")
        return outcome

    def _tell(self, is_success: bool, text: str) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result((is_success, text))

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        if self._answer is None or self._told is None or not self._is_answer(request.query):
            return _page(400, "Not this one", "No sign-in waits for this answer.")
        if self._answer.done():
            return _page(400, "Not this one", "This answer has come before.")
        self._answer.set_result(dict(request.query))
        is_success, text = await self._told
        return _page(200, "Signed in", text) if is_success else _page(400, "Not signed in", text)

    def _refusal(self, request: web.BaseRequest) -> web.Response | None:
        if not self._is_ours(request.headers.get("Host", "")):
            return _page(400, "Not here", "This address is not served here.")
        if request.path != "/":
            return _page(404, "Not here", "There is nothing at this address.")
        if request.method != "GET":
            return _page(405, "Not so", "Only GET is understood here.", Allow="GET")
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether loopback was asked for by its name; a stranger's name may point here as well."""
        return host in {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    def _is_answer(self, query: Mapping[str, str]) -> bool:
        is_ours = hmac.compare_digest(query.get("state", "").encode(), self._state.encode())
        return is_ours and ("code" in query or "error" in query)


def answer_in(text: str) -> dict[str, str]:
    """Return the query of the redirect that a person copied: of the whole address, or alone.

    A text without any parameter is a code; of {"code": …} the state is not known.
    """
    text = text.strip().strip("<>\"'")
    query = urlsplit(text).query or text.lstrip("?")
    if "=" not in query.rstrip("="):
        return {"code": text} if text else {}
    return dict(parse_qsl(query))


def _page(status: int, title: str, text: str, **headers: str) -> web.Response:
    return web.Response(
        status=status,
        text=_PAGE.format(title=html.escape(title), text=html.escape(text)),
        content_type="text/html",
        headers=_HEADERS | headers,
    )


def _sockets(port: int, *, with_ipv6: bool) -> list[socket.socket]:
    """Return sockets on one port of loopback, for IPv4 and, as far as there is any, for IPv6.

    A browser tries both for `localhost`, and whoever held the other could read the code.
    """
    for _ in range(_PORT_TRIES):
        try:
            first = _bound(socket.AF_INET, "127.0.0.1", port)
        except OSError as error:
            raise SignInRefused(f"port {port} cannot be used here: {error.strerror}") from None
        if not with_ipv6:
            return [first]
        try:
            return [first, _bound(socket.AF_INET6, "::1", first.getsockname()[1])]
        except OSError as error:
            if error.errno in _NO_IPV6:
                return [first]
            first.close()
            if port:
                raise SignInRefused(f"port {port} of ::1 is taken: {error.strerror}") from None
    raise SignInRefused("there is no port free on both 127.0.0.1 and ::1")


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen()
    except OSError:
        one.close()
        raise
    return one
