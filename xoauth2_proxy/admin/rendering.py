"""Renders templates as pages, with their security headers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy import __version__
from xoauth2_proxy.templating import PackagePages

if TYPE_CHECKING:
    from xoauth2_proxy.admin.access_control import AccessControl

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # Other sites get no referrer. With no-referrer, browsers would send `Origin: null` with our own
    # forms as well (Fetch standard, "append a request `Origin` header"), which proves nothing.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATIC_CACHE = "private, max-age=300"  # seconds; short, because a new version has new files


class Renderer:
    """Renders pages, and returns static files."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access
        self._pages = PackagePages("xoauth2_proxy.admin")

    async def load(self) -> None:
        """Prepare for rendering; required before the first page.

        The first call imports Jinja2 and reads the templates in a thread, because most relays never
        show a page. After it no page waits for the disk.
        """
        if not self._pages.is_loaded:
            await asyncio.to_thread(self._pages.load)

    def page(
        self, request: web.Request, template: str, status: int = 200, **values: object
    ) -> web.Response:
        """Return a page; its forms contain the CSRF token."""
        csrf_token, new = self._access.csrf_token(request)
        common = {"csrf": csrf_token, "version": __version__, "has_token": self._access.has_token}
        html = self._pages.render(template, **common | values)
        response = web.Response(text=html, content_type="text/html", status=status)
        if new:
            self._access.set_form_cookie(request, response, new)
        return response

    def static(self, name: str) -> web.Response:
        """Return a style sheet or picture. Raises `HTTPNotFound`."""
        file = self._pages.static(name)
        if file is None:
            raise web.HTTPNotFound
        headers = {"Content-Type": file[1], "Cache-Control": _STATIC_CACHE}
        return web.Response(body=file[0], headers=headers)
