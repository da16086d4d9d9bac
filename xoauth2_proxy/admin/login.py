"""The way in and out: the token is shown once, for a session. Style sheets need no token."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy import log
from xoauth2_proxy.admin.access_control import Kind, form_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.admin.access_control import Guard
    from xoauth2_proxy.admin.rendering import Theme

_log = log.logger("admin")


class Entrance:
    """Serves the pages that let people in and out."""

    def __init__(self, guard: Guard, theme: Theme) -> None:
        self._guard = guard
        self._theme = theme

    def routes(self) -> Iterator[tuple[Kind, web.RouteDef]]:
        """Return what is served, and to whom."""
        yield Kind.OPEN, web.get("/static/{name}", self._static)
        if self._guard.has_token:
            yield Kind.OPEN, web.get("/login", self._ask)
            yield Kind.OPEN, web.post("/login", self._enter)
            yield Kind.PAGE, web.post("/logout", self._leave)

    async def _static(self, request: web.Request) -> web.Response:
        return self._theme.static(request.match_info["name"])

    async def _ask(self, request: web.Request) -> web.Response:
        if name := self._guard.local_name(request):
            raise web.HTTPFound(f"{name}/login")
        return self._theme.page(request, "login.html", error="")

    async def _enter(self, request: web.Request) -> web.Response:
        given = (await form_of(request)).get("token", "").strip()
        if not self._guard.is_token(request, given):
            _log.event(logging.WARNING, "wrong token on the sign-in page", by=request.remote)
            return self._theme.page(
                request, "login.html", 401, error="This is not the token of this relay."
            )
        _log.event(logging.INFO, "signed in to the admin pages", by=request.remote)
        response = _see("/")
        self._guard.enter(request, response)
        return response

    async def _leave(self, request: web.Request) -> web.Response:
        response = _see("/login")
        self._guard.leave(request, response)
        return response


def _see(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})
