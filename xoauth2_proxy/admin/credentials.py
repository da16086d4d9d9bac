"""The credentials of a mailbox as a JSON API: list, make, revoke.

A response contains a secret only if the proxy has just generated it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.admin.access_control import RouteKind
from xoauth2_proxy.admin.json_requests import answer, email_of, fail, flag, json_body, log_change
from xoauth2_proxy.mailboxes.credential_changes import ListedCredential

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.mailboxes.operations import Mailboxes


class CredentialsApi:
    """Serves `/accounts/{email}/credentials`."""

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._credentials = mailboxes.credentials

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        for route in (
            web.get("/accounts/{email}/credentials", self._list),
            web.post("/accounts/{email}/credentials", self._add),
            web.delete("/accounts/{email}/credentials/{name}", self._revoke),
        ):
            yield RouteKind.API, route

    async def _list(self, request: web.Request) -> web.Response:
        account, listed = self._credentials.listing(email_of(request))
        return answer(email=account.email, credentials=[one.to_json() for one in listed])

    async def _add(self, request: web.Request) -> web.Response:
        document = await json_body(request)
        if not isinstance(document, dict):
            fail("", "must be an object")
        has_password = not flag(document, "no_password", default=False)
        made = await self._credentials.add(email_of(request), document, has_password=has_password)
        name = made.credential.name
        log_change("credential made", request, made.account.key, credential=name)
        shown = ListedCredential(made.credential, "made").to_json()
        secret = {"password": made.password} if made.password else {}
        return answer(201, email=made.account.email, credential=shown | secret)

    async def _revoke(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        account = await self._credentials.revoke(email_of(request), name)
        log_change("credential revoked", request, account.key, credential=name)
        return answer(email=account.email, revoked=name)
