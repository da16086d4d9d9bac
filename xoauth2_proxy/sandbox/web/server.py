"""The sandbox's HTTP server, guarded against web pages.

It listens on loopback only and has no login. A web page must not reach it through a visitor's
browser: requests must name a loopback host (DNS rebinding), and changes must not come from a page.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.network import host_of, is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

_STOP_SECONDS = 1.0
_MAX_REQUEST_BYTES = 1024 * 1024
_SAFE_METHODS = frozenset({"GET", "HEAD"})

# The paths that forms of the sandbox's own pages post to.
CLEAR_PATH = "/clear"
AUTHORIZE_PATH = "/oauth/authorize"
DEVICE_PATH = "/oauth/device"
_FORM_PATHS = frozenset({CLEAR_PATH, AUTHORIZE_PATH, DEVICE_PATH})

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-DNS-Prefetch-Control": "off",  # for links in received mail
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class HttpServer:
    """The HTTP server of the sandbox."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        app = web.Application(middlewares=[_guarded], client_max_size=_MAX_REQUEST_BYTES)
        app.on_response_prepare.append(_add_headers)
        app.add_routes(routes)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_STOP_SECONDS,
            handler_cancellation=True,  # stop working when the client disconnects
        )

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen on a loopback address, and return the address bound.

        Raises `ValueError`: `host` is not a loopback address.
        """
        if not is_loopback(host):
            raise ValueError(f"the sandbox listens on loopback only, not on {host}")
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except BaseException:
            await self.stop()
            raise
        address = self._runner.addresses[0]
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Stop listening and close every connection; bounded in time."""
        await self._runner.cleanup()


def form_headers(*origins: str) -> dict[str, str]:
    """Return the headers of a page with a form, whose answer may redirect to these origins."""
    targets = " ".join(("'self'", *filter(None, origins)))
    return {
        "Content-Security-Policy": POLICY.replace("form-action 'none'", f"form-action {targets}"),
        # With no-referrer, browsers would send `Origin: null` with the form (Fetch standard).
        "Referrer-Policy": "same-origin",
    }


def refusal(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    """Return the exception to raise for an answer with this message as JSON."""
    return kind(text=json.dumps({"error": message}), content_type="application/json")


@web.middleware
async def _guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if not is_loopback(host_of(request.headers.get("Host", ""))):
        raise refusal(web.HTTPForbidden, "not a loopback host name")
    # Browsers send the page's origin with every request but GET and HEAD (Fetch standard).
    if request.method not in _SAFE_METHODS and "Origin" in request.headers:
        is_own_form = request.method == "POST" and request.path in _FORM_PATHS
        if not is_own_form or request.headers["Origin"] != f"http://{request.host}":
            raise refusal(web.HTTPForbidden, "not from a web page")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
