"""The sandbox over HTTP: what was received, its content, the counters.

Loopback only, without login; so that no web page a person visits can use their browser to reach
it, requests must name a loopback host (DNS rebinding) and deletions must not come from a page.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.sandbox.office import Counters
    from xoauth2_proxy.sandbox.received import Message, Received

_DEFAULT_LIMIT = 1000
_MAX_LIMIT = 5000
_STOP_SECONDS = 1.0


class Web:
    """The HTTP server of the sandbox."""

    def __init__(self, received: Received, counters: Counters) -> None:
        self._received = received
        self._counters = counters
        app = web.Application(middlewares=[_loopback_names_only])
        app.router.add_get("/messages", self._list)
        app.router.add_delete("/messages", self._delete)
        app.router.add_get("/messages/{seq:[0-9]{1,18}}/content", self._content)
        app.router.add_get("/stats", self._stats)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen on a loopback address, and return the address bound.

        Raises:
            ValueError: `host` is not a loopback address.
        """
        if not ipaddress.ip_address(host).is_loopback:
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

    async def _list(self, request: web.Request) -> web.Response:
        after = _number(request, "after", 0)
        limit = min(_number(request, "limit", _DEFAULT_LIMIT), _MAX_LIMIT)
        received = self._received
        messages = [_described(message) for message in received.after(after, limit)]
        return web.json_response(
            {"total": received.total, "evicted": received.evicted, "messages": messages}
        )

    async def _delete(self, request: web.Request) -> web.Response:
        if "Origin" in request.headers:
            raise _refusal(web.HTTPForbidden, "not from a web page")
        return web.json_response({"deleted": self._received.clear()})

    async def _content(self, request: web.Request) -> web.Response:
        message = self._received.find(int(request.match_info["seq"]))
        if message is None or message.content is None:
            raise _refusal(web.HTTPNotFound, "no such message, or its content is gone")
        return web.Response(body=message.content, content_type="message/rfc822")

    async def _stats(self, _: web.Request) -> web.Response:
        received = {
            "messages_total": self._received.total,
            "messages_evicted": self._received.evicted,
            "messages_held": len(self._received),
        }
        return web.json_response(asdict(self._counters) | received)


@web.middleware
async def _loopback_names_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if not _is_loopback_name(request.headers.get("Host", "")):
        raise _refusal(web.HTTPForbidden, "not a loopback host name")
    return await handler(request)


def _is_loopback_name(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _refusal(web.HTTPBadRequest, f"{name} must be a number of zero or more")
    return int(text)


def _refusal(kind: type[web.HTTPException], message: str) -> web.HTTPException:
    return kind(text=json.dumps({"error": message}), content_type="application/json")


def _described(message: Message) -> dict[str, object]:
    return {
        "seq": message.seq,
        "id": message.id,
        "mailbox": message.mailbox,
        "reverse_path": message.reverse_path,
        "forward_paths": message.forward_paths,
        "size_bytes": message.size_bytes,
        "sha256": message.sha256,
        "message_id": message.message_id,
        "via": message.via,
        "received_at": datetime.fromtimestamp(message.received_at, UTC).isoformat(),
    }
