"""The admin HTTP server: `/health`, `/health/live`, `/health/ready` and `/metrics`.

With a token configured, every request needs it as a bearer token (RFC 6750 §2.1).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from xoauth2_proxy.admin.health import Health, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.metrics import MergedMetrics, Metrics

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHUTDOWN_SECONDS = 2.0


class AdminServer:
    """Serves what operators and their monitoring ask for."""

    def __init__(self, health: Health, metrics: Metrics | MergedMetrics, token: str) -> None:
        self._health = health
        self._metrics = metrics
        self._token = token.encode()
        app = web.Application(middlewares=[self._authorize])
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/health/live", self._get_live)
        app.router.add_get("/health/ready", self._get_ready)
        app.router.add_get("/metrics", self._get_metrics)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address and port in use. Raises `OSError`."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        address = self._runner.addresses[0]
        return address[0], address[1]

    async def stop(self) -> None:
        """Stop listening and end the requests under way."""
        await self._runner.cleanup()

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._token:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            is_right = hmac.compare_digest(
                given.strip().encode("utf-8", "surrogateescape"), self._token
            )
            if scheme.lower() != "bearer" or not is_right:
                raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

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
