"""A token endpoint that is strict about refresh tokens, and the mail server that takes its tokens.

Each refresh token works once; using one again ends the grant (RFC 9700 §4.14.2).
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Literal, Self

from aiohttp import web

if TYPE_CHECKING:
    from types import TracebackType

_WORK_SECONDS = 0.02  # what a request takes, so that two at one time would meet


class RotatingEndpoint:
    """Serves one grant, on the event loop of the test."""

    def __init__(self, lifetime_seconds: float) -> None:
        self.lifetime_seconds = lifetime_seconds
        self.newest = "rt-0"  # the refresh token that works
        self.is_revoked = False
        self.requests = 0
        self.at_one_time = 0  # the most there were
        self.holds: Literal["", "before", "after"] = ""  # keep the next one, before it rotates
        self.is_holding = asyncio.Event()
        self.users: dict[str, set[str]] = {}  # access token → names of who used it
        self._inside = 0
        self._numbers = itertools.count(1)
        self._ends = asyncio.Event()
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_get("/mail", self._mail)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()
        await self._runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        self.requests += 1
        self._inside += 1
        self.at_one_time = max(self.at_one_time, self._inside)
        try:
            return await self._answer(str((await request.post())["refresh_token"]))
        finally:
            self._inside -= 1

    async def _answer(self, refresh_token: str) -> web.Response:
        held, self.holds = self.holds, ""
        if held == "before":
            await self._keep()
        await asyncio.sleep(_WORK_SECONDS)
        if refresh_token != self.newest:
            self.is_revoked = True
        if self.is_revoked:
            return web.json_response({"error": "invalid_grant"}, status=400)
        number = next(self._numbers)
        self.newest = f"rt-{number}"
        self.users[f"at-{number}"] = set()
        if held == "after":
            await self._keep()
        return web.json_response(
            {
                "access_token": f"at-{number}",
                "refresh_token": self.newest,
                "expires_in": self.lifetime_seconds,
                "token_type": "Bearer",
            }
        )

    async def _keep(self) -> None:
        """Answer no more: whoever asked is going to be killed."""
        self._inside -= 1
        self.is_holding.set()
        try:
            await self._ends.wait()
        finally:
            self._inside += 1
        raise web.HTTPServiceUnavailable

    async def _mail(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if self.is_revoked or token not in self.users:
            raise web.HTTPUnauthorized
        self.users[token].add(request.headers["X-Name"])
        return web.Response()
