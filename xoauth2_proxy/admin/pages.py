"""The mailboxes as HTML pages, without scripts.

Changes are forms. Signing in is a link: the content security policy's `form-action` also forbids
that a form is redirected to another site.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from xoauth2_proxy import log
from xoauth2_proxy.admin.access_control import RouteKind, form_fields
from xoauth2_proxy.admin.http_errors import http_error
from xoauth2_proxy.admin.json_requests import log_change
from xoauth2_proxy.admin.paging import near, number
from xoauth2_proxy.admin.views import PAGE_SIZE, mailbox_table, row
from xoauth2_proxy.errors import ProxyError
from xoauth2_proxy.mailboxes.additions import Proposal
from xoauth2_proxy.oauth.mailbox_status import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from xoauth2_proxy.admin.access_control import AccessControl
    from xoauth2_proxy.admin.health import Health
    from xoauth2_proxy.admin.http_errors import HttpError
    from xoauth2_proxy.admin.rendering import Renderer
    from xoauth2_proxy.mailboxes.operations import Mailboxes

_MAX_SEARCH = 254  # characters; an address
_REQUIRED = ("email", "provider")
_OPTIONAL = ("sign_in_as", "client_id", "client_secret", "tenant")
_SHOWN_AGAIN = ("email", "provider", "sign_in_as", "client_id", "tenant")  # no secrets

# The list's message after a change; the mailbox's name follows it.
_DONE = {
    "refreshed": "The provider issued a new access token for",
    "revoked": "Sign-in revoked:",
    "removed": "Removed:",
    "reloaded": "The configuration was reloaded.",
}

_log = log.logger("admin")


class MailboxPages:
    """Serves the list of mailboxes and their operations."""

    def __init__(
        self,
        mailboxes: Mailboxes,
        access: AccessControl,
        renderer: Renderer,
        listeners: Callable[[], list[dict[str, str]]],
        health: Health,
    ) -> None:
        """`listeners` returns what a mail program needs for each (`views.listener_settings`)."""
        self._mailboxes = mailboxes
        self._listeners = listeners
        self._access = access
        self._renderer = renderer
        self._health = health

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        for route in (
            web.get("/", self._list),
            web.get("/mailboxes/new", self._ask_for_new),
            web.post("/mailboxes/new", self._add),
            web.post("/mailboxes/refresh", self._refresh),
            web.get("/mailboxes/revoke", self._confirm),
            web.post("/mailboxes/revoke", self._revoke),
            web.get("/mailboxes/remove", self._confirm),
            web.post("/mailboxes/remove", self._remove),
            web.post("/configuration/reload", self._reload),
        ):
            yield RouteKind.PAGE, route

    async def _list(self, request: web.Request) -> web.Response:
        if name := self._access.local_name(request):
            raise web.HTTPFound(f"{name}{request.path_qs}")
        query = request.query
        state = query.get("state", "")
        shown = mailbox_table(
            await self._mailboxes.listing(),
            search=query.get("q", "")[:_MAX_SEARCH].strip(),
            state=state if state in set(State) else "",
            page=number(query.get("page", "")),
            now=time.time(),
            disabled=self._mailboxes.disabled(),
        )
        return self._renderer.page(
            request,
            "mailboxes.html",
            list=shown,
            most_disabled=PAGE_SIZE,
            listeners=[one.report() for one in self._health.listeners],
            here=_place(query),
            links={page: _place(query, page=page) for page in near(shown["page"], shown["pages"])},
            next_link=_place(query, page=shown["page"] + 1)
            if shown["page"] < shown["pages"]
            else "",
            done=_DONE.get(query.get("done", ""), ""),
            done_with=query.get("mailbox", ""),
        )

    async def _ask_for_new(self, request: web.Request) -> web.Response:
        return self._form_for_new(request, request.query)

    def _form_for_new(
        self, request: web.Request, values: Mapping[str, str], error: HttpError | None = None
    ) -> web.Response:
        problems = dict(error.problems) if error else {}
        known = {*_REQUIRED, *_OPTIONAL}
        return self._renderer.page(
            request,
            "new.html",
            error.status if error else 200,
            providers=self._mailboxes.providers,
            values={name: values.get(name, "") for name in _SHOWN_AGAIN},
            problems={path: text for path, text in problems.items() if path in known},
            others=[text for path, text in problems.items() if path not in known]
            or ([error.text] if error and not problems else []),
        )

    async def _add(self, request: web.Request) -> web.Response:
        form = {name: value.strip() for name, value in (await form_fields(request)).items()}
        document: dict[str, Any] = {name: form.get(name, "") for name in _REQUIRED}
        document |= {name: form[name] for name in _OPTIONAL if form.get(name)}
        try:
            result = await self._mailboxes.add([("", Proposal(document))])
            if result.failed:
                raise result.failed[0][1]
        except (ProxyError, OSError) as error:
            return self._form_for_new(request, form, http_error(error))
        (added,) = result.added
        log_change("mailbox added", request, added.mailbox)
        mailbox = await self._mailboxes.find(added.mailbox)
        return self._renderer.page(
            request,
            "added.html",
            201,
            mailbox=row(mailbox, time.time()),
            password=added.password,
            listeners=self._listeners(),
        )

    async def _refresh(self, request: web.Request) -> web.Response:
        form = await form_fields(request)
        mailbox = await self._mailboxes.refresh(form.get("mailbox", ""))
        log_change("mailbox refreshed", request, mailbox.account.key)
        return _done("refreshed", form, mailbox.account.email)

    async def _confirm(self, request: web.Request) -> web.Response:
        template = f"{request.path.rpartition('/')[2]}.html"
        mailbox = await self._mailboxes.find(request.query.get("mailbox", ""))
        return self._renderer.page(
            request, template, mailbox=row(mailbox, time.time()), here=_place(request.query)
        )

    async def _revoke(self, request: web.Request) -> web.Response:
        form = await form_fields(request)
        revoked = await self._mailboxes.revoke(form.get("mailbox", ""))
        address = revoked.mailbox.account.email
        log_change("grant revoked", request, revoked.mailbox.account.key)
        if revoked.left_over:
            return self._renderer.page(
                request, "revoked.html", address=address, left_over=revoked.left_over
            )
        return _done("revoked", form, address)

    async def _remove(self, request: web.Request) -> web.Response:
        form = await form_fields(request)
        address = form.get("mailbox", "")
        await self._mailboxes.remove(address)
        log_change("mailbox removed", request, address)
        return _done("removed", form, address)

    async def _reload(self, request: web.Request) -> web.Response:
        await self._mailboxes.reload()
        _log.event(logging.INFO, "configuration read again", by=request.remote)
        return _done("reloaded", {}, "")


def _done(what: str, form: Mapping[str, str], address: str) -> web.Response:
    place = dict(_pairs(form)) | {"done": what} | ({"mailbox": address} if address else {})
    return web.Response(status=303, headers={"Location": f"/?{urlencode(place)}"})


def _place(query: Mapping[str, str], **changed: object) -> str:
    """Return the query of a view of the list: its search and its page."""
    return urlencode(dict(_pairs(query)) | changed)


def _pairs(query: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in ("q", "state", "page"):
        if query.get(name):
            yield name, query[name]
