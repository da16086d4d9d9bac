"""A proxy's admin server and its sandbox's, over HTTP, that tell what a scripted server keeps."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.benchmark.scripted_server import ScriptedServer


@asynccontextmanager
async def stand_in(
    server: ScriptedServer, token_refreshes: int = 0, settings: object = None
) -> AsyncIterator[str]:
    """Serve /health, /metrics, /messages, /stats and /settings; yields the address of all."""
    peaks_from = 0  # connections that were there when the peaks began anew

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"sandbox": {"http": str(request.url.origin())}})

    async def metrics(_: web.Request) -> web.Response:
        name = "xoauth2_proxy_token_refreshes"
        lines = (
            f"# TYPE {name} counter",
            f'{name}_total{{provider="mock",result="ok"}} {token_refreshes}.0',
            f'{name}_total{{provider="mock",result="failed"}} 1.0',
            f'{name}_created{{provider="mock",result="ok"}} 1.7e9',
        )
        return web.Response(text="\n".join(lines) + "\n")

    async def messages(request: web.Request) -> web.Response:
        after, limit = int(request.query["after"]), int(request.query["limit"])
        entries = [
            {
                "seq": seq,
                "mailbox": accepted.mailbox,
                "message_id": accepted.message_id,
                "sha256": accepted.sha256,
                "forward_paths": accepted.forward_paths,
            }
            for seq, accepted in enumerate(server.accepted, 1)
        ]
        page = entries[after : after + limit]
        return web.json_response({"total": len(entries), "evicted": 0, "messages": page})

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "connections_opened": server.connections,
                "auth_accepted": server.logged_in,
                "auth_refused": 0,
                "transactions_accepted": len(server.accepted),
                "transactions_refused": server.contents - len(server.accepted),
                "turns": len(server.commands),
                "peak_by_mailbox": {
                    "someone@example.org": server.connections - peaks_from,
                    "other@x": 99,
                },
            }
        )

    async def begin_peaks(_: web.Request) -> web.Response:
        nonlocal peaks_from
        peaks_from = server.connections
        return web.json_response({})

    async def tell_settings(_: web.Request) -> web.Response:
        return web.json_response(settings)

    application = web.Application()
    for path, handler in (
        ("/health", health),
        ("/metrics", metrics),
        ("/messages", messages),
        ("/stats", stats),
        ("/settings", tell_settings),
    ):
        application.router.add_get(path, handler)
    application.router.add_delete("/stats/peaks", begin_peaks)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
