"""The clients seen lately as a page, and the form for the credential that lets one in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.admin.access_control import RouteKind
from xoauth2_proxy.admin.device_views import device_table, row, suggested_name
from xoauth2_proxy.admin.paging import near, number
from xoauth2_proxy.clients.record import ClientSeen
from xoauth2_proxy.oauth.mailbox_status import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xoauth2_proxy.admin.rendering import Renderer
    from xoauth2_proxy.clients.record import ClientRecord
    from xoauth2_proxy.mailboxes.operations import Mailboxes

_MAX_SEARCH = 254  # characters; an address
_LISTED = 500  # mailboxes to choose from; beyond, a person types the address


class DevicePages:
    """Serves the page *Devices*."""

    def __init__(self, clients: ClientRecord, mailboxes: Mailboxes, renderer: Renderer) -> None:
        self._clients = clients
        self._mailboxes = mailboxes
        self._renderer = renderer

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        yield RouteKind.PAGE, web.get("/devices", self._list)
        yield RouteKind.PAGE, web.get("/devices/new", self._ask)

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        shown = device_table(
            self._clients.newest_first(),
            search=query.get("q", "")[:_MAX_SEARCH].strip(),
            page=number(query.get("page", "")),
            now=time.time(),
            only_refused=query.get("show") == "refused",
        )
        pages = near(shown["page"], shown["pages"])
        next_page = shown["page"] + 1 if shown["page"] < shown["pages"] else 0
        return self._renderer.page(
            request,
            "devices.html",
            list=shown,
            links={page: _place(query, page) for page in pages},
            next_link=_place(query, next_page) if next_page else "",
        )

    async def _ask(self, request: web.Request) -> web.Response:
        """Ask which mailbox the client may send as; everything else is filled in."""
        query = request.query
        address = query.get("address", "")
        seen = self._clients.find(address) or ClientSeen(address)
        listing = await self._mailboxes.listing()
        ready = [one for one in listing if one.status.state is not State.SIGN_IN_NEEDED]
        known = {one.account.key: one.account.email for one in listing}
        likely = known.get(login_key(seen.sender)) or known.get(seen.account)
        return self._renderer.page(
            request,
            "new_device.html",
            one=row(seen, time.time()),
            has_password=query.get("proof") != "address",
            name=suggested_name(seen),
            mailboxes=list(known.values())[:_LISTED],
            has_more=len(known) > _LISTED,
            likely=likely or next((one.account.email for one in ready or listing), ""),
        )


def _place(query: Mapping[str, str], page: int) -> str:
    kept = {name: query[name] for name in ("q", "show") if query.get(name)}
    return urlencode(kept | {"page": str(page)})
