"""Received messages, refusals, counters and settings as JSON.

`GET /messages?after=&limit=&q=`, `GET /messages/{seq}/content`, `DELETE /messages`, `GET /stats`,
`DELETE /stats/peaks`, `GET /refusals?before=&limit=`, `GET /settings`, `GET /health`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.health_document import health_document
from xoauth2_proxy.sandbox.web.mime_view import subject_of
from xoauth2_proxy.sandbox.web.server import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from xoauth2_proxy.sandbox.message_store import Message
    from xoauth2_proxy.sandbox.provider_state import ProviderState

_DEFAULT_LIMIT = 1000
_MAX_LIMIT = 5000
_SHOWN = (
    *("seq", "id", "mailbox", "reverse_path", "forward_paths"),
    *("size_bytes", "sha256", "message_id", "via"),
)

MAX_EXAMINED = 5000  # messages for one request: reading a subject takes up to 0.1 ms
_MAX_QUERY_CHARACTERS = 200


@dataclass(eq=False, repr=False)
class JsonApi:
    """Serves a provider's messages, refusals and counters, and its present settings."""

    provider: ProviderState
    settings: Callable[[], Mapping[str, object]]

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        started_at = time.monotonic()

        async def health(_: web.Request) -> web.Response:
            return web.json_response(health_document("xoauth2-sandbox", "healthy", started_at))

        yield web.get("/health", health)
        yield web.get("/messages", self._list)
        yield web.delete("/messages", self._delete)
        yield web.get("/messages/{seq:[0-9]{1,18}}/content", self._content)
        yield web.get("/stats", self._stats)
        yield web.delete("/stats/peaks", self._reset_peaks)
        yield web.get("/refusals", self._list_refusals)
        yield web.get("/settings", self._show_settings)

    async def _list(self, request: web.Request) -> web.Response:
        after = number_in(request, "after", 0)
        limit = min(number_in(request, "limit", _DEFAULT_LIMIT), _MAX_LIMIT)
        received = self.provider.received
        found: dict[str, object] = {"total": received.total, "evicted": received.evicted}
        if query := normalized_query(request.query.get("q", "")):
            examined = received.after(after, MAX_EXAMINED)
            messages, last = await asyncio.to_thread(search, examined, query, limit)
            found["next_after"] = last or after  # where to search on
        else:
            messages = received.after(after, limit)
        found["messages"] = [_described(message) for message in messages]
        return web.json_response(found)

    async def _delete(self, request: web.Request) -> web.Response:
        if request.query:
            raise refusal(web.HTTPBadRequest, "DELETE /messages deletes all; it takes no query")
        return web.json_response({"deleted": self.provider.received.clear()})

    async def _content(self, request: web.Request) -> web.Response:
        message = self.provider.received.find(int(request.match_info["seq"]))
        if message is None or message.content is None:
            raise refusal(web.HTTPNotFound, "no such message, or its content is no longer stored")
        name = f'attachment; filename="message-{message.seq}.eml"'
        return web.Response(
            body=message.content,
            content_type="message/rfc822",
            headers={"Content-Disposition": name},
        )

    async def _stats(self, _: web.Request) -> web.Response:
        received = {
            "messages_total": self.provider.received.total,
            "messages_evicted": self.provider.received.evicted,
            "messages_held": len(self.provider.received),
            "refusals_total": self.provider.refusals.total,
            "grants_begun": self.provider.verifier.grants_begun,
            "grants_ended": self.provider.verifier.grants_ended,
        }
        return web.json_response(self.provider.counters.as_document() | received)

    async def _reset_peaks(self, _: web.Request) -> web.Response:
        self.provider.counters.reset_peaks()
        return web.json_response({})

    async def _list_refusals(self, request: web.Request) -> web.Response:
        before = number_in(request, "before", self.provider.refusals.total + 1)
        limit = min(number_in(request, "limit", _DEFAULT_LIMIT), _MAX_LIMIT)
        refusals = [
            asdict(one) | {"at": datetime.fromtimestamp(one.at, UTC).isoformat()}
            for one in self.provider.refusals.before(before, limit)
        ]
        return web.json_response({"total": self.provider.refusals.total, "refusals": refusals})

    async def _show_settings(self, _: web.Request) -> web.Response:
        return web.json_response(self.settings())


def number_in(request: web.Request, name: str, default: int) -> int:
    """Return a number of the query. Raises `HTTPBadRequest`."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise refusal(web.HTTPBadRequest, f"{name} must be a number of zero or more")
    return int(text)


def _described(message: Message) -> dict[str, object]:
    received_at = datetime.fromtimestamp(message.received_at, UTC).isoformat()
    return {name: getattr(message, name) for name in _SHOWN} | {"received_at": received_at}


def normalized_query(text: str) -> str:
    """Return a query without outer blanks, at most 200 characters long."""
    return text.strip()[:_MAX_QUERY_CHARACTERS]


def search(messages: Iterable[Message], query: str, limit: int) -> tuple[list[Message], int]:
    """Return the first `limit` messages that contain `query`, in any case of letters.

    Also returns the number of the last message that was examined; 0 if there was none. Meant for
    a thread: it may take half a second.
    """
    wanted = query.casefold()
    found: list[Message] = []
    seq = 0
    for message in messages:
        seq = message.seq
        if _contains(message, wanted):
            found.append(message)
            if len(found) >= limit:
                break
    return found, seq


def _contains(message: Message, wanted: str) -> bool:
    addresses = (message.mailbox, message.reverse_path, *message.forward_paths)
    if any(wanted in address.casefold() for address in addresses):
        return True
    content = message.content
    return content is not None and wanted in subject_of(content).casefold()
