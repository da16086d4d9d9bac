"""Turns templates and values into pages, with the headers that keep them to themselves."""

from __future__ import annotations

import asyncio
import mimetypes
from importlib import resources
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

    from xoauth2_proxy.admin.access_control import Guard

_PACKAGE = "xoauth2_proxy.admin"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # Other sites are told nothing. With no-referrer, browsers would send `Origin: null` with our
    # own forms (Fetch standard, "append a request `Origin` header"), and it could not be checked.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATIC_CACHE = "private, max-age=300"  # seconds; short, for a new version brings new ones


class Theme:
    """The look of the pages."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._static: dict[str, bytes] = {}
        self._environment: Environment | None = None
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Return when pages can be made.

        The first call reads templates and files, and imports Jinja2, in a thread: most relays never
        show a page. Afterwards no page waits for a disk.
        """
        if self._environment is not None:
            return
        async with self._loading:
            if self._environment is None:
                self._static = await asyncio.to_thread(_static_files)
                self._environment = await asyncio.to_thread(_compiled_templates)

    @property
    def _templates(self) -> Environment:
        assert self._environment is not None  # noqa: S101 - `load` has been awaited
        return self._environment

    def page(
        self, request: web.Request, template: str, status: int = 200, **values: object
    ) -> web.Response:
        """Return the page; its forms bring back what proves that this server made them."""
        mark, new = self._guard.form_mark(request)
        common = {"csrf": mark, "version": __version__, "has_token": self._guard.has_token}
        html = self._templates.get_template(template).render(common | values)
        response = web.Response(text=html, content_type="text/html", status=status)
        if new:
            self._guard.remember(request, response, new)
        return response

    def static(self, name: str) -> web.Response:
        """Return a style sheet or picture. Raises `HTTPNotFound`."""
        body = self._static.get(name)
        if body is None:
            raise web.HTTPNotFound
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return web.Response(
            body=body, headers={"Content-Type": kind, "Cache-Control": _STATIC_CACHE}
        )


def _static_files() -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in resources.files(_PACKAGE).joinpath("static").iterdir()
        if file.is_file()
    }


def _compiled_templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in templates.list_templates():
        templates.get_template(name)
    return templates
