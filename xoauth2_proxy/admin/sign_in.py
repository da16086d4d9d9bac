"""Signing a mailbox in: away to the provider, and back. RFC 6749 §4.1, RFC 9700 §4.4, §4.7.

The answer is let in by its state, which is good once, and by a cookie of the browser that began:
nobody can finish another's sign-in, and no provider one that belongs to another.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy import log
from xoauth2_proxy.admin.access_control import Kind
from xoauth2_proxy.errors import SignInRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.admin.access_control import Guard
    from xoauth2_proxy.admin.rendering import Theme
    from xoauth2_proxy.mailboxes import Mailboxes

_log = log.logger("admin")


class SignInPages:
    """Serves the two ends of a sign-in, and says what providers must know."""

    def __init__(self, mailboxes: Mailboxes, guard: Guard, theme: Theme) -> None:
        self._mailboxes = mailboxes
        self._guard = guard
        self._theme = theme

    def routes(self) -> Iterator[tuple[Kind, web.RouteDef]]:
        """Return what is served, and to whom."""
        yield Kind.PAGE, web.get("/providers", self._list_providers)
        yield Kind.PAGE, web.get("/oauth/{provider}/login", self._begin)
        yield Kind.OPEN, web.get("/oauth/{provider}/callback", self._finish)

    async def _list_providers(self, request: web.Request) -> web.Response:
        providers = self._mailboxes.providers
        addresses = {one.name: self._redirect_uri(request, one.name) for one in providers}
        return self._theme.page(request, "providers.html", providers=providers, addresses=addresses)

    async def _begin(self, request: web.Request) -> web.Response:
        if self._guard.is_from_elsewhere(request):
            raise web.HTTPForbidden(text="a sign-in begins on this server's own pages")
        provider = request.match_info["provider"]
        attempt = await self._mailboxes.begin_sign_in(
            request.query.get("mailbox", ""), provider, self._redirect_uri(request, provider)
        )
        response = web.Response(status=302, headers={"Location": attempt.url})
        self._guard.bind_sign_in(request, response, _named(provider, attempt.state))
        return response

    async def _finish(self, request: web.Request) -> web.Response:
        provider, answer = request.match_info["provider"], dict(request.query)
        if len(answer) != len(request.query):  # RFC 6749 §3.1
            raise SignInRefused("the answer says one thing twice")
        begun = _named(provider, answer.get("state", ""))
        if not self._guard.has_begun(request, begun):
            raise SignInRefused(
                "this sign-in was not begun in this browser, or more than five minutes ago: "
                "begin it again"
            )
        mailbox = await self._mailboxes.finish_sign_in(answer)
        _log.event(
            logging.INFO, "mailbox signed in", account=mailbox.account.key, by=request.remote
        )
        response = self._theme.page(request, "signed_in.html", address=mailbox.account.email)
        self._guard.end_sign_in(request, response, begun)
        return response

    def _redirect_uri(self, request: web.Request, provider: str) -> str:
        return f"{self._guard.origin(request)}/oauth/{provider}/callback"


def _named(provider: str, state: str) -> str:
    return f"{provider} {state}"
