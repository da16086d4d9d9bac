"""Login and logout pages: the token is entered once for a session. Also serves static files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy import log
from xoauth2_proxy.admin.access_control import RouteKind, form_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.admin.access_control import AccessControl
    from xoauth2_proxy.admin.rendering import Renderer

_log = log.logger("admin")


class LoginPages:
    """Serves login, logout and static files."""

    def __init__(self, access: AccessControl, renderer: Renderer) -> None:
        self._access = access
        self._renderer = renderer

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        yield RouteKind.OPEN, web.get("/static/{name}", self._static)
        if self._access.has_token:
            yield RouteKind.OPEN, web.get("/login", self._show_form)
            yield RouteKind.OPEN, web.post("/login", self._log_in)
            yield RouteKind.PAGE, web.post("/logout", self._log_out)

    async def _static(self, request: web.Request) -> web.Response:
        return self._renderer.static(request.match_info["name"])

    async def _show_form(self, request: web.Request) -> web.Response:
        if name := self._access.local_name(request):
            raise web.HTTPFound(f"{name}/login")
        return self._renderer.page(request, "login.html", error="")

    async def _log_in(self, request: web.Request) -> web.Response:
        given = (await form_fields(request)).get("token", "").strip()
        if not self._access.is_token(request, given):
            _log.event(logging.WARNING, "wrong token on the sign-in page", by=request.remote)
            return self._renderer.page(
                request, "login.html", 401, error="This is not the token of this proxy."
            )
        _log.event(logging.INFO, "signed in to the admin pages", by=request.remote)
        response = _redirect("/")
        self._access.log_in(request, response)
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        response = _redirect("/login")
        self._access.log_out(request, response)
        return response


def _redirect(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})
