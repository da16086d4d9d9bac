"""Acme: a provider that the relay does not know, whose accounts service is not OAuth.

Its access tokens are the sandbox's, so that a mail server really judges them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from aiohttp import web

from tests.support.waiting import until
from xoauth2_proxy.oauth.refreshers.contract import RETRY_AFTER_SECONDS, Outcome

if TYPE_CHECKING:
    from types import TracebackType

    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

APP_KEY = "app-key-of-the-operator"

_PAGE = """<!doctype html><title>Acme</title><form method="post">
<input name="login" value="{mailbox}"><button name="says" value="yes">Allow</button>
<button name="says" value="no">Refuse</button></form>"""

_REFUSALS = {
    Outcome.REVOKED: (400, "key-ended"),
    Outcome.REFUSED: (400, "app-unknown"),
    Outcome.IN_TROUBLE: (503, "trouble"),
    Outcome.BUSY: (429, "busy"),
}


@dataclass(slots=True)
class _Code:
    """A code or a device's ticket, until it is exchanged."""

    challenge: str
    mailbox: str = ""
    is_refused: bool = False


@dataclass(eq=False)
class AcmeServer:
    """The accounts service, on loopback. `keys` are in force, each of a mailbox."""

    tokens: MockTokens
    rotates: bool = False
    outcome: Outcome = Outcome.GRANTED  # of every renewal
    keys: dict[str, str] = field(default_factory=dict)
    renewals: int = 0
    scopes: list[str] = field(default_factory=list)  # as asked for
    held: int = 0  # requests that are not answered
    url: str = ""

    async def __aenter__(self) -> Self:
        self._codes: dict[str, _Code] = {}
        self._shown: dict[str, str] = {}  # ticket by the code that a person types
        self._is_up = threading.Event()
        # In a thread: the contract counts the tasks of the test's loop.
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        await asyncio.to_thread(self._is_up.wait)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        await asyncio.to_thread(self._thread.join)

    async def _run(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.add_routes(
            [
                web.get("/connect", self._page),
                web.post("/connect", self._decide),
                web.post("/key", self._exchange),
                web.post("/device", self._begin_device),
                web.post("/device/key", self._poll_device),
                web.post("/renew", self._renew),
                web.post("/end", self._end),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._is_up.set()
        await self._ending.wait()
        await runner.cleanup()

    def type_code(self, shown: str, mailbox: str) -> None:
        """Type a device's code on Acme's page, and allow."""
        self._codes[self._shown[shown]].mailbox = mailbox

    async def is_held(self) -> None:
        """Return when a request is kept waiting."""
        await until(lambda: self.held > 0)

    async def _page(self, request: web.Request) -> web.Response:
        page = _PAGE.format(mailbox=html.escape(request.query["mailbox"]))
        return web.Response(text=page, content_type="text/html")

    async def _decide(self, request: web.Request) -> web.Response:
        form, query = await request.post(), request.query
        self.scopes.append(query["scope"])
        answer = {"state": query["state"]}
        if form.get("says") == "yes":
            answer["code"] = secrets.token_urlsafe()
            self._codes[answer["code"]] = _Code(query["challenge"], str(form["login"]))
        else:
            answer["error"] = "access_denied"
        raise web.HTTPFound(f"{query['back']}?{urlencode(answer)}")

    async def _exchange(self, request: web.Request) -> web.Response:
        asked = await self._body(request)
        code = self._codes.pop(asked["code"], None)
        digest = hashlib.sha256(asked["verifier"].encode()).digest()
        if code is None or code.challenge != base64.urlsafe_b64encode(digest).rstrip(b"=").decode():
            return _problem("key-ended")
        return self._give_key(code.mailbox)

    async def _begin_device(self, request: web.Request) -> web.Response:
        self.scopes.append((await self._body(request))["scope"])
        ticket, shown = secrets.token_urlsafe(), f"ACME-{secrets.token_hex(4).upper()}"
        self._codes[ticket], self._shown[shown] = _Code(""), ticket
        return web.json_response({"ticket": ticket, "show": shown, "seconds": 600, "pause": 0.05})

    async def _poll_device(self, request: web.Request) -> web.Response:
        code = self._codes[(await self._body(request))["ticket"]]
        return self._give_key(code.mailbox) if code.mailbox else _problem("wait")

    async def _renew(self, request: web.Request) -> web.Response:
        asked = await self._body(request)
        self.renewals += 1
        key, app_key = asked["key"], asked["app_key"]
        mailbox = self.keys.get(key, "")
        if self.outcome in _REFUSALS:
            status, word = _REFUSALS[self.outcome]
            again = {"Retry-After": f"{RETRY_AFTER_SECONDS:.0f}"} if status == 429 else {}
            return _problem(word, status, again, quoted=f"{key} of {app_key}")
        if self.outcome is Outcome.GARBLED:
            return web.Response(text=f"<h1>{key}</h1>", content_type="text/html")
        if self.outcome is Outcome.SILENT:
            self.held += 1
            assert request.transport is not None
            await until(request.transport.is_closing)
        if not mailbox:
            return _problem("key-ended")
        if self.rotates or self.outcome is Outcome.ROTATED:
            del self.keys[key]
            return self._give_key(mailbox)
        return web.json_response(self._token(mailbox))

    async def _end(self, request: web.Request) -> web.Response:
        self.keys.pop((await self._body(request))["key"], None)
        return web.json_response({})

    async def _body(self, request: web.Request) -> dict[str, str]:
        body: dict[str, str] = await request.json()
        if body["app_key"] != APP_KEY:
            raise web.HTTPForbidden(text='{"problem": "app-unknown"}')
        return body

    def _give_key(self, mailbox: str) -> web.Response:
        key = f"acme-key-{secrets.token_urlsafe()}"
        self.keys[key] = mailbox
        return web.json_response(self._token(mailbox) | {"key": key, "mailbox": mailbox})

    def _token(self, mailbox: str) -> dict[str, Any]:
        return {"token": self.tokens.mint(mailbox), "seconds": 3600}


def _problem(
    word: str, status: int = 400, headers: dict[str, str] | None = None, quoted: str = ""
) -> web.Response:
    return web.json_response(
        {"problem": word, "about": quoted}, status=status, headers=headers or {}
    )
