"""Pages for people: the received messages, one message, and what was refused.

No script and nothing from elsewhere. Received content is shown as text; HTML also rendered, in a
frame that may do nothing and load nothing.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.sandbox.refusals import MAX_REFUSALS
from xoauth2_proxy.sandbox.web.json_api import MAX_EXAMINED, normalized_query, number_in, search
from xoauth2_proxy.sandbox.web.mime_view import frame_document, read, subject_of
from xoauth2_proxy.sandbox.web.server import CLEAR_PATH, POLICY, form_headers
from xoauth2_proxy.templating import PackagePages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xoauth2_proxy.sandbox.message_store import Message, MessageStore
    from xoauth2_proxy.sandbox.refusals import Refusals

_PAGE_MESSAGES = 50
_PAGE_REFUSALS = 50
_MAX_SHOWN_PATHS = 100
# The page's policy binds the document in a frame too, and mail contains styles and pictures.
_POLICY_WITH_HTML = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)


class MessagePages:
    """Serves `/`, `/messages/{seq}` and `/refused`."""

    def __init__(self, received: MessageStore, refusals: Refusals) -> None:
        self._received = received
        self._refusals = refusals
        filters: dict[str, Callable[..., object]] = {
            "size": _size,
            "moment": _moment,
            "frame_document": frame_document,
        }
        self._pages = PackagePages("xoauth2_proxy.sandbox.web", filters)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield web.get("/", self._list)
        yield web.post(CLEAR_PATH, self._clear)
        yield web.get("/messages/{seq:[0-9]{1,18}}", self._message)
        yield web.get("/refused", self._list_refused)
        yield web.get("/static/{name}", self._file)

    async def _list(self, request: web.Request) -> web.Response:
        received = self._received
        before = number_in(request, "before", received.total + 1)
        query = normalized_query(request.query.get("q", ""))
        if query:
            examined = received.before(before, MAX_EXAMINED)
            messages, oldest = await asyncio.to_thread(search, examined, query, _PAGE_MESSAGES)
        else:
            messages = received.before(before, _PAGE_MESSAGES)
            oldest = messages[-1].seq if messages else 0
        page = self._page(
            "messages.html",
            rows=[(message, self._subject(message)) for message in messages],
            query=query,
            total=received.total,
            held=len(received),
            older=oldest if received.before(oldest, 1) else 0,
            is_first=before > received.total,
        )
        page.headers.update(form_headers())
        return page

    async def _clear(self, _: web.Request) -> web.Response:
        self._received.clear()
        raise web.HTTPSeeOther("/")

    async def _message(self, request: web.Request) -> web.Response:
        message = self._received.find(int(request.match_info["seq"]))
        if message is None:
            return self._page("gone.html", 404)
        content = message.content
        reading = None if content is None else await asyncio.to_thread(read, content)
        page = self._page(
            "message.html",
            message=message,
            subject=self._subject(message),
            paths=message.forward_paths[:_MAX_SHOWN_PATHS],
            more_paths=max(0, len(message.forward_paths) - _MAX_SHOWN_PATHS),
            reading=reading,
            newer=message.seq + 1 if self._received.find(message.seq + 1) else 0,
            older=message.seq - 1 if self._received.find(message.seq - 1) else 0,
        )
        if reading is not None and any(part.is_html for part in reading.parts):
            page.headers["Content-Security-Policy"] = _POLICY_WITH_HTML
        return page

    async def _list_refused(self, request: web.Request) -> web.Response:
        refusals = self._refusals
        before = number_in(request, "before", refusals.total + 1)
        rows = refusals.before(before, _PAGE_REFUSALS)
        oldest = rows[-1].seq if rows else 0
        return self._page(
            "refused.html",
            rows=rows,
            total=refusals.total,
            most=MAX_REFUSALS,
            older=oldest if refusals.before(oldest, 1) else 0,
            is_first=before > refusals.total,
        )

    async def _file(self, request: web.Request) -> web.Response:
        file = self._pages.static(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return web.Response(body=file[0], content_type=file[1])

    def _page(self, template: str, status: int = 200, **values: object) -> web.Response:
        html = self._pages.render(template, **values)
        return web.Response(text=html, content_type="text/html", status=status)

    @staticmethod
    def _subject(message: Message) -> str:
        return "" if message.content is None else subject_of(message.content)


def _size(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size, unit = size_bytes / 1000, "kB"
    if size >= 1000:
        size, unit = size / 1000, "MB"
    return f"{size:.1f} {unit}" if size < 100 else f"{size:.0f} {unit}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
