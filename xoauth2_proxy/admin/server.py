"""The admin HTTP server: health and metrics, and, where it is given mailboxes, all about them.

With a token configured, every request needs it (`guard`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from xoauth2_proxy.admin.access_control import Guard, Kind
from xoauth2_proxy.admin.accounts import MAX_BODY_BYTES, AccountsApi, refused
from xoauth2_proxy.admin.health import Health, Status
from xoauth2_proxy.admin.http_errors import Refusal, refusal
from xoauth2_proxy.admin.login import Entrance
from xoauth2_proxy.admin.pages import Pages
from xoauth2_proxy.admin.rendering import HEADERS, Theme
from xoauth2_proxy.admin.sign_in import SignInPages
from xoauth2_proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from xoauth2_proxy.mailboxes import Mailboxes
    from xoauth2_proxy.metrics import MergedMetrics, Metrics

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHUTDOWN_SECONDS = 2.0
_FOR_PROGRAMS = frozenset({Kind.API, Kind.MONITOR, Kind.PROBE})  # they are shown no pages


class AdminServer:
    """Serves what operators and their monitoring ask for."""

    def __init__(
        self,
        health: Health,
        metrics: Metrics | MergedMetrics,
        token: str,
        mailboxes: Mailboxes | None = None,
        public_url: str = "",
    ) -> None:
        """Without mailboxes it serves health and metrics alone.

        `public_url` is where browsers reach it, if that is not where it listens: behind a proxy
        that adds TLS, as https://relay.example.com.
        """
        self._health = health
        self._metrics = metrics
        kinds: dict[str, Kind] = {}
        self._guard = Guard(token, public_url, kinds)
        self._theme: Theme | None = None
        app = web.Application(
            middlewares=[self._tell, self._guard.admit], client_max_size=MAX_BODY_BYTES
        )
        for kind, route in self._routes(mailboxes):
            kinds[route.path] = kind
            route.register(app.router)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )

    def _routes(self, mailboxes: Mailboxes | None) -> Iterator[tuple[Kind, web.RouteDef]]:
        yield Kind.MONITOR, web.get("/health", self._get_health)
        yield Kind.PROBE, web.get("/health/live", self._get_live)
        yield Kind.PROBE, web.get("/health/ready", self._get_ready)
        yield Kind.MONITOR, web.get("/metrics", self._get_metrics)
        if mailboxes is not None:
            theme = self._theme = Theme(self._guard)
            yield from AccountsApi(mailboxes).routes()
            yield from Pages(mailboxes, self._guard, theme).routes()
            yield from SignInPages(mailboxes, self._guard, theme).routes()
            yield from Entrance(self._guard, theme).routes()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address and port in use. Raises `OSError`."""
        self._guard.listens_on = host
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        address = self._runner.addresses[0]
        return address[0], address[1]

    async def stop(self) -> None:
        """Stop listening and end the requests under way."""
        await self._runner.cleanup()

    @web.middleware
    async def _tell(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Put every refusal into the form that its reader wants, and the headers on everything."""
        if self._theme is not None and self._guard.kind(request) not in _FOR_PROGRAMS:
            await self._theme.load()
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = error if error.status < 400 else self._told(request, error)
            if response is error:
                error.headers.update(_missing(error))
                raise
        except (ProxyError, OSError) as error:
            response = self._refused(request, refusal(error))
        response.headers.update(_missing(response))
        return response

    def _told(self, request: web.Request, error: web.HTTPException) -> web.StreamResponse:
        if self._guard.kind(request) in {Kind.MONITOR, Kind.PROBE} and not _is_for_programs(
            request
        ):
            return error
        response = self._refused(request, Refusal(error.status, error.text or error.reason))
        for name in ("WWW-Authenticate", "Retry-After", "Allow"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response

    def _refused(self, request: web.Request, what: Refusal) -> web.Response:
        if self._theme is None or self._guard.kind(request) in _FOR_PROGRAMS:
            return refused(what)
        page = self._theme.page(request, "refused.html", what.status, what=what)
        page.headers.update(what.headers)
        return page

    async def _get_health(self, _request: web.Request) -> web.Response:
        is_well = self._health.status is Status.HEALTHY
        return web.json_response(self._health.report(), status=200 if is_well else 503)

    async def _get_live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _get_ready(self, _request: web.Request) -> web.Response:
        status = self._health.status
        return web.json_response(
            {"status": status}, status=200 if status is Status.HEALTHY else 503
        )

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._metrics.registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


def _is_for_programs(request: web.Request) -> bool:
    """Whether who asks for something that is not there expects JSON."""
    return request.path == "/accounts" or request.path.startswith("/accounts/")


def _missing(response: web.StreamResponse) -> dict[str, str]:
    return {name: value for name, value in HEADERS.items() if name not in response.headers}
