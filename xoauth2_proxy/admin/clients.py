"""The clients seen lately as a JSON API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.admin.access_control import RouteKind
from xoauth2_proxy.admin.json_requests import answer
from xoauth2_proxy.clients.causes import explain
from xoauth2_proxy.clients.interface import Refused
from xoauth2_proxy.oauth.mailbox_status import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.clients.record import ClientRecord, ClientSeen


class ClientsApi:
    """Serves `/clients`."""

    def __init__(self, clients: ClientRecord) -> None:
        self._clients = clients

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        yield RouteKind.API, web.get("/clients", self._list)

    async def _list(self, _request: web.Request) -> web.Response:
        return answer(clients=[client_json(one) for one in self._clients.newest_first()])


def client_json(seen: ClientSeen) -> dict[str, object]:
    """Return a client as a JSON object, with the cause and the remedy in words."""
    said = explain(Refused(seen.reason), seen) if seen.reason else None
    return seen.to_json() | {
        "first_seen": rfc3339(seen.first_seen),
        "last_seen": rfc3339(seen.last_seen),
        "last_sent": rfc3339(seen.last_sent) if seen.last_sent else None,
        "tls": seen.tls or None,
        "cause": said.cause if said else "",
        "remedy": said.remedy if said else "",
    }
