"""An OpenID provider whose requests a test can hold, refuse or leave without an answer.

It is the sandbox behind a server that passes requests on: tokens, pages and grants are real.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.accounts import TlsMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_HOP = frozenset({"transfer-encoding", "content-length", "connection", "content-encoding", "date"})


@dataclass
class HeldProvider:
    """The provider and what it is to do with requests."""

    sandbox: Sandbox
    issuer: str = ""
    holds: str = ""  # "METHOD /path" whose requests wait for `release`
    is_held_afterwards: bool = False  # the sandbox has answered when the request is held
    is_dropped: bool = False  # what was held gets no answer
    answers: dict[str, Callable[[int], web.Response | None]] = field(default_factory=dict)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    def hold(self, what: str, *, afterwards: bool = False) -> None:
        """Let requests of this kind wait from now on."""
        self.holds, self.is_held_afterwards = what, afterwards

    async def is_held(self) -> None:
        """Return when a request is held."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.held.wait()

    @property
    def grants(self) -> tuple[int, int]:
        """How many grants have begun, and how many were revoked."""
        verifier = self.sandbox._started.verifier
        return verifier.grants_begun, verifier.grants_ended

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a run whose users sign in here."""
        upstream = f"127.0.0.1:{self.sandbox.smtp_port}"
        return ("--issuer", self.issuer, "--upstream", upstream, "--upstream-tls", "none")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        what = f"{request.method} {request.path}"
        self.asked.append(what)
        if (answer := self.answers.get(what)) is not None:
            response = answer(self.asked.count(what))
            if response is not None:
                return response
        if what == self.holds and not self.is_held_afterwards:
            await self._wait(request)
        response = await self._passed_on(request)
        if what == self.holds and self.is_held_afterwards:
            await self._wait(request)
        return response

    async def _wait(self, request: web.Request) -> None:
        self.held.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.release.wait()
        if self.is_dropped and request.transport is not None:
            request.transport.close()

    async def _passed_on(self, request: web.Request) -> web.Response:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as http,
            http.request(
                request.method,
                f"{self.sandbox.http_url}{request.path_qs}",
                headers=request.headers,  # Host too: it names the issuer
                data=await request.read(),
                allow_redirects=False,
            ) as answer,
        ):
            headers = [(k, v) for k, v in answer.headers.items() if k.lower() not in _HOP]
            body = await answer.read()
            return web.Response(status=answer.status, body=body, headers=headers)


@asynccontextmanager
async def held_provider(directory: Path) -> AsyncIterator[HeldProvider]:
    """Serve a provider with its mail server, which speaks without TLS."""
    async with Sandbox(directory, tls=TlsMode.NONE) as sandbox:
        provider = HeldProvider(sandbox)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", provider.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield provider
        finally:
            provider.release.set()
            await runner.cleanup()
