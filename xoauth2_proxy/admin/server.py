"""The admin HTTP server: health and metrics, and the mailboxes as pages and JSON.

With a token configured, requests need it, except probes and the login page (`access_control`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from xoauth2_proxy.admin.access_control import (
    MONITORING,
    AccessControl,
    RouteKind,
    form_fields,
)
from xoauth2_proxy.admin.accounts import MAX_BODY_BYTES, AccountsApi
from xoauth2_proxy.admin.clients import ClientsApi
from xoauth2_proxy.admin.credential_pages import CredentialPages
from xoauth2_proxy.admin.credentials import CredentialsApi
from xoauth2_proxy.admin.devices import DevicePages
from xoauth2_proxy.admin.health import Health, Status
from xoauth2_proxy.admin.http_errors import HttpError, http_error
from xoauth2_proxy.admin.json_requests import error_response
from xoauth2_proxy.admin.login import LoginPages
from xoauth2_proxy.admin.pages import MailboxPages
from xoauth2_proxy.admin.rendering import HEADERS, Renderer
from xoauth2_proxy.admin.sign_in import SignInPages
from xoauth2_proxy.admin.views import listener_settings
from xoauth2_proxy.clients.record import ClientRecord
from xoauth2_proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from xoauth2_proxy.mailboxes.operations import Mailboxes
    from xoauth2_proxy.metrics import MergedMetrics, Metrics

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHUTDOWN_SECONDS = 2.0
_RETRIED = "/mailboxes/refresh"  # the only change that a person may ask for again and again
_FOR_PROGRAMS = MONITORING | {RouteKind.API, RouteKind.SECRET}  # their errors are JSON, not pages


class AdminServer:
    """The admin server of one relay."""

    def __init__(
        self,
        health: Health,
        metrics: Metrics | MergedMetrics,
        token: str,
        mailboxes: Mailboxes | None = None,
        public_url: str = "",
        clients: ClientRecord | None = None,
    ) -> None:
        """Without `mailboxes`, only health and metrics are served.

        `public_url` is the address for browsers if it is not the one it listens on, as behind a TLS
        proxy: https://relay.example.com.
        """
        self._health = health
        self._metrics = metrics
        kinds: dict[str, RouteKind] = {}
        self._access = AccessControl(token, public_url, kinds)
        self._renderer: Renderer | None = None
        app = web.Application(
            middlewares=[self._render_errors, self._access.admit], client_max_size=MAX_BODY_BYTES
        )
        for kind, route in self._routes(mailboxes, clients or ClientRecord()):
            kinds[route.path] = kind
            route.register(app.router)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )

    def _routes(
        self, mailboxes: Mailboxes | None, clients: ClientRecord
    ) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        yield RouteKind.MONITOR, web.get("/health", self._get_health)
        yield RouteKind.PROBE, web.get("/health/live", self._get_live)
        yield RouteKind.PROBE, web.get("/health/ready", self._get_ready)
        yield RouteKind.MONITOR, web.get("/metrics", self._get_metrics)
        if mailboxes is not None:
            renderer = self._renderer = Renderer(self._access)
            yield from AccountsApi(mailboxes).routes()
            yield from CredentialsApi(mailboxes).routes()
            yield from MailboxPages(
                mailboxes, self._access, renderer, self._listeners, self._health
            ).routes()
            yield from CredentialPages(mailboxes, renderer, self._listeners).routes()
            yield from ClientsApi(clients).routes()
            yield from DevicePages(clients, mailboxes, renderer).routes()
            yield from SignInPages(mailboxes, self._access, renderer).routes()
            yield from LoginPages(self._access, renderer).routes()

    async def open(self, host: str) -> web.Server:
        """Prepare the application, which listens on `host`; return the factory of its protocols."""
        self._access.listens_on = host
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - `setup` made it
        return self._runner.server

    async def stop(self) -> None:
        """Stop the application; running requests get `_SHUTDOWN_SECONDS`."""
        await self._runner.cleanup()

    @web.middleware
    async def _render_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Render every error as a page or JSON, and add the security headers."""
        if self._renderer is not None and self._access.kind(request) not in _FOR_PROGRAMS:
            await self._renderer.load()
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = error if error.status < 400 else self._http_error(request, error)
            if response is error:
                error.headers.update(_missing(error))
                raise
        except (ProxyError, OSError) as error:
            response = self._error_response(request, http_error(error), await _fields(request))
        response.headers.update(_missing(response))
        return response

    def _http_error(self, request: web.Request, error: web.HTTPException) -> web.StreamResponse:
        is_api = f"{request.path}/".startswith("/accounts/")  # or would be, if it were known
        if self._access.kind(request) in MONITORING and not is_api:
            return error
        response = self._error_response(
            request, HttpError(error.status, error.text or error.reason)
        )
        for name in ("WWW-Authenticate", "Retry-After", "Allow"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response

    def _error_response(
        self, request: web.Request, what: HttpError, fields: Mapping[str, str] | None = None
    ) -> web.Response:
        if self._renderer is None or self._access.kind(request) in _FOR_PROGRAMS:
            return error_response(what)
        fields = fields or {}  # a request that was not let in is not shown again
        page = self._renderer.page(
            request,
            "refused.html",
            what.status,
            what=what,
            mailbox=fields.get("mailbox", ""),
            retry=request.path_qs if request.method == "GET" and fields.get("mailbox") else "",
            form=_retried(request.path, fields),
        )
        page.headers.update(what.headers)
        return page

    def _listeners(self) -> list[dict[str, str]]:
        return [listener_settings(one) for one in self._health.listeners]

    async def _get_health(self, _request: web.Request) -> web.Response:
        is_well = self._health.status is Status.HEALTHY
        return web.json_response(self._health.report(), status=200 if is_well else 503)

    async def _get_live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _get_ready(self, _request: web.Request) -> web.Response:
        status = self._health.readiness
        return web.json_response(
            {"status": status}, status=200 if status is Status.HEALTHY else 503
        )

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._metrics.registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


async def _fields(request: web.Request) -> Mapping[str, str]:
    """Return what the person had filled in, which was read before the request failed."""
    return await form_fields(request) if request.method == "POST" else request.query


def _retried(path: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the form that asks for the same again, if that can do no harm; else {}."""
    if path != _RETRIED or not fields.get("mailbox"):
        return {}
    return {"action": path, "fields": {name: fields[name] for name in fields if name != "csrf"}}


def _missing(response: web.StreamResponse) -> dict[str, str]:
    return {name: value for name, value in HEADERS.items() if name not in response.headers}
