"""Signs a mailbox in: to the provider's page, and back. RFC 6749 §4.1, RFC 9700 §4.4, §4.7.

The provider's answer must contain the attempt's state, which works once, and come from the browser
that began, which has a cookie. So nothing else can finish a sign-in, not even another provider.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy import log
from xoauth2_proxy.admin.access_control import RouteKind
from xoauth2_proxy.errors import SignInRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.admin.access_control import AccessControl
    from xoauth2_proxy.admin.rendering import Renderer
    from xoauth2_proxy.mailboxes.operations import Mailboxes

_log = log.logger("admin")


class SignInPages:
    """Serves the begin and end of a sign-in, and the providers' redirect addresses."""

    def __init__(self, mailboxes: Mailboxes, access: AccessControl, renderer: Renderer) -> None:
        self._mailboxes = mailboxes
        self._access = access
        self._renderer = renderer

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        yield RouteKind.PAGE, web.get("/providers", self._list_providers)
        yield RouteKind.PAGE, web.get("/oauth/{provider}/login", self._begin)
        yield RouteKind.OPEN, web.get("/oauth/{provider}/callback", self._finish)

    async def _list_providers(self, request: web.Request) -> web.Response:
        providers = self._mailboxes.providers
        addresses = {one.name: self._redirect_uri(request, one.name) for one in providers}
        return self._renderer.page(
            request, "providers.html", providers=providers, addresses=addresses
        )

    async def _begin(self, request: web.Request) -> web.Response:
        if self._access.is_cross_site(request):
            raise web.HTTPForbidden(text="a sign-in must begin on this server's own pages")
        provider = request.match_info["provider"]
        attempt = await self._mailboxes.begin_sign_in(
            request.query.get("mailbox", ""), provider, self._redirect_uri(request, provider)
        )
        response = web.Response(status=302, headers={"Location": attempt.url})
        self._access.bind_sign_in(request, response, _cookie_key(provider, attempt.state))
        return response

    async def _finish(self, request: web.Request) -> web.Response:
        provider, answer = request.match_info["provider"], dict(request.query)
        if len(answer) != len(request.query):  # RFC 6749 §3.1
            raise SignInRefused("the answer contains a parameter twice")
        begun = _cookie_key(provider, answer.get("state", ""))
        if not self._access.began_sign_in(request, begun):
            raise SignInRefused(
                "this sign-in did not begin in this browser, or began more than five minutes ago: "
                "start it again"
            )
        mailbox = await self._mailboxes.finish_sign_in(answer)
        _log.event(
            logging.INFO, "mailbox signed in", account=mailbox.account.key, by=request.remote
        )
        response = self._renderer.page(request, "signed_in.html", address=mailbox.account.email)
        self._access.end_sign_in(request, response, begun)
        return response

    def _redirect_uri(self, request: web.Request, provider: str) -> str:
        return f"{self._access.origin(request)}/oauth/{provider}/callback"


def _cookie_key(provider: str, state: str) -> str:
    return f"{provider} {state}"
