"""Receives the provider's redirect on a loopback address of this machine. RFC 8252 §7.3.

I1: one answer is accepted, and only with the attempt's state; others change nothing.
I2: it listens on loopback only, and only until the answer is handled.
Addresses contain codes, so requests are not logged.
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


class LoopbackRedirect:
    """A context manager that listens on the redirect URI's host and `port`."""

    def __init__(self, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self.port = port  # 0: any free one; known once entered
        self._host = host
        self._state = ""
        self._answer: asyncio.Future[Mapping[str, str]] | None = None
        self._outcome: asyncio.Future[tuple[bool, str]] | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Start listening. Raises `SignInRefused`: the port is in use."""
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
        self._show_outcome(False, "The sign-in was cancelled.")
        assert self._runner is not None  # noqa: S101 - entered before
        await self._runner.cleanup()

    async def result(
        self,
        state: str,
        finish: Callable[[Mapping[str, str]], Awaitable[_T]],
        wait_seconds: float = WAIT_SECONDS,
    ) -> _T:
        """Return the result of `finish` for the answer; the page shows the person the outcome.

        Raises:
            SignInRefused: no answer came in time.
            ProxyError: raised by `finish`.
        """
        loop = asyncio.get_running_loop()
        self._state, self._answer, self._outcome = state, loop.create_future(), loop.create_future()
        try:
            async with asyncio.timeout(wait_seconds):
                answer = await self._answer
        except TimeoutError:
            raise SignInRefused(f"no one signed in within {wait_seconds:.0f} s") from None
        try:
            outcome = await finish(answer)
        except ProxyError as error:
            self._show_outcome(False, f"{error}")
            raise
        self._show_outcome(True, "The mailbox is signed in. You can close this page.")
        return outcome

    def _show_outcome(self, is_success: bool, text: str) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result((is_success, text))

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        if (refusal := self._error_page(request)) is not None:
            return refusal
        if self._answer is None or self._outcome is None or not self._is_answer(request.query):
            return _page(400, "Not expected", "No sign-in waits for this answer.")
        if self._answer.done():
            return _page(400, "Not expected", "This answer has come before.")
        self._answer.set_result(dict(request.query))
        is_success, text = await self._outcome
        return _page(200, "Signed in", text) if is_success else _page(400, "Not signed in", text)

    def _error_page(self, request: web.BaseRequest) -> web.Response | None:
        # DNS may point other names here.
        own = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if request.headers.get("Host", "") not in own:
            return _page(400, "Not found", "This server has another host name.")
        if request.path != "/":
            return _page(404, "Not found", "There is nothing at this address.")
        if request.method != "GET":
            return _page(405, "Not allowed", "Only GET is allowed here.", Allow="GET")
        return None

    def _is_answer(self, query: Mapping[str, str]) -> bool:
        is_ours = hmac.compare_digest(query.get("state", "").encode(), self._state.encode())
        return is_ours and ("code" in query or "error" in query)


def parse_redirect(text: str) -> dict[str, str]:
    """Return the query of a redirect that a person pasted: the whole address, or its query.

    A text without parameters is a code; then the result has no state.
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
    """Return sockets on one loopback port, for IPv4 and, if the machine has it, for IPv6.

    A browser tries both for `localhost`; a program that held the other could read the code.
    """
    for _ in range(_PORT_TRIES):
        try:
            first = _listening_socket(socket.AF_INET, "127.0.0.1", port)
        except OSError as error:
            raise SignInRefused(
                f"port {port} of 127.0.0.1 cannot be used: {error.strerror}"
            ) from None
        if not with_ipv6:
            return [first]
        try:
            return [first, _listening_socket(socket.AF_INET6, "::1", first.getsockname()[1])]
        except OSError as error:
            if error.errno in _NO_IPV6:
                return [first]
            first.close()
            if port:
                raise SignInRefused(
                    f"port {port} of ::1 cannot be used: {error.strerror}"
                ) from None
    raise SignInRefused("no port is free on both 127.0.0.1 and ::1")


def _listening_socket(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
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
