"""The credentials of a mailbox as HTML pages: list, make, revoke. Without scripts."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from xoauth2_proxy.accounts.credential import end_of
from xoauth2_proxy.admin.access_control import RouteKind, form_fields
from xoauth2_proxy.admin.http_errors import http_error
from xoauth2_proxy.admin.json_requests import log_change
from xoauth2_proxy.admin.views import date_text
from xoauth2_proxy.errors import ProxyError
from xoauth2_proxy.mailboxes.interface import UnknownCredential
from xoauth2_proxy.network import network_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from xoauth2_proxy.admin.http_errors import HttpError
    from xoauth2_proxy.admin.rendering import Renderer
    from xoauth2_proxy.mailboxes.credential_changes import ListedCredential
    from xoauth2_proxy.mailboxes.operations import Mailboxes

_LIST = "/mailboxes/credentials"
_TEXTS = ("name", "login", "expires")
_LISTS = ("networks", "senders")
_NUMBERS = ("messages_per_minute", "messages_per_day", "max_connections")
_SHOWN_AGAIN = (*_TEXTS, *_LISTS, *_NUMBERS, "proof", "allow_public_networks")
_SEPARATORS = re.compile(r"[\s,;]+")
_MAX_VALUE = 10_000  # characters of a field; a hundred networks fit
_PROOFS = {
    "key": "Generated password",
    "password": "Password",
    "address": "Address only",
}


class CredentialPages:
    """Serves the pages of a mailbox's credentials."""

    def __init__(
        self,
        mailboxes: Mailboxes,
        renderer: Renderer,
        listeners: Callable[[], list[dict[str, str]]],
    ) -> None:
        """`listeners` returns what a mail program needs for each (`views.listener_settings`)."""
        self._listeners = listeners
        self._credentials = mailboxes.credentials
        self._renderer = renderer

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        for route in (
            web.get(_LIST, self._list),
            web.get(f"{_LIST}/new", self._ask_for_new),
            web.post(f"{_LIST}/new", self._add),
            web.get(f"{_LIST}/revoke", self._confirm),
            web.post(f"{_LIST}/revoke", self._revoke),
        ):
            yield RouteKind.PAGE, route

    async def _list(self, request: web.Request) -> web.Response:
        account, listed = self._credentials.listing(request.query.get("mailbox", ""))
        return self._renderer.page(
            request,
            "credentials.html",
            address=account.email,
            rows=[_row(one, time.time()) for one in listed],
            revoked=request.query.get("revoked", ""),
        )

    async def _ask_for_new(self, request: web.Request) -> web.Response:
        return self._form(request, {"proof": "key"} | dict(request.query))

    def _form(
        self, request: web.Request, values: Mapping[str, str], error: HttpError | None = None
    ) -> web.Response:
        """Return the form for a new credential; links to it may fill its fields in."""
        account, _ = self._credentials.listing(values.get("mailbox", ""))
        problems = {path.partition("[")[0]: text for path, text in error.problems} if error else {}
        known = {*_SHOWN_AGAIN}
        return self._renderer.page(
            request,
            "new_credential.html",
            error.status if error else 200,
            address=account.email,
            values={name: values.get(name, "")[:_MAX_VALUE] for name in _SHOWN_AGAIN},
            problems={path: text for path, text in problems.items() if path in known},
            others=[text for path, text in problems.items() if path not in known]
            or ([error.text] if error and not problems else []),
        )

    async def _add(self, request: web.Request) -> web.Response:
        form = {name: value.strip() for name, value in (await form_fields(request)).items()}
        mailbox, has_password = form.get("mailbox", ""), form.get("proof") != "address"
        try:
            made = await self._credentials.add(
                mailbox, _document(form, has_password=has_password), has_password=has_password
            )
        except (ProxyError, OSError) as error:
            return self._form(request, form, http_error(error))
        name = made.credential.name
        log_change("credential made", request, made.account.key, credential=name)
        return self._renderer.page(
            request,
            "credential_made.html",
            201,
            address=made.account.email,
            credential=made.credential,
            networks=[network_text(one) for one in made.credential.networks],
            password=made.password,
            listeners=self._listeners(),
        )

    async def _confirm(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        account, listed = self._credentials.listing(request.query.get("mailbox", ""))
        for one in listed:
            if one.credential.name == name:
                return self._renderer.page(
                    request,
                    "revoke_credential.html",
                    address=account.email,
                    one=_row(one, time.time()),
                )
        raise UnknownCredential(f"{account.email} has no credential {name}")

    async def _revoke(self, request: web.Request) -> web.Response:
        form = await form_fields(request)
        name = form.get("name", "")
        account = await self._credentials.revoke(form.get("mailbox", ""), name)
        log_change("credential revoked", request, account.key, credential=name)
        place = urlencode({"mailbox": account.email, "revoked": name})
        return web.Response(status=303, headers={"Location": f"{_LIST}?{place}"})


def _document(form: Mapping[str, str], *, has_password: bool) -> dict[str, Any]:
    """Return the keys of a credential that the form describes; empty fields are left out."""
    document: dict[str, Any] = {name: form[name] for name in _TEXTS if form.get(name)}
    if not has_password:
        document.pop("login", None)
        if form.get("allow_public_networks"):
            document["allow_public_networks"] = True
    for name in _LISTS:
        if items := [one for one in _SEPARATORS.split(form.get(name, "")) if one]:
            document[name] = items
    for name in _NUMBERS:
        if text := form.get(name, ""):
            document[name] = int(text) if text.isascii() and text.isdigit() else text
    document.setdefault("name", "")
    return document


def _row(listed: ListedCredential, now: float) -> dict[str, Any]:
    """Return a credential as a row of the table."""
    one = listed.credential
    limits = [
        f"{number:g} {unit}"
        for number, unit in (
            (one.messages_per_minute, "messages a minute"),
            (one.messages_per_day, "messages a day"),
            (one.max_connections, "connections"),
        )
        if number
    ]
    return {
        "name": one.name,
        "login": one.login,
        "proof": _PROOFS[listed.proof],
        "state": listed.state,
        "networks": [network_text(network) for network in one.networks],
        "senders": one.senders,
        "limits": limits,
        "expires": date_text(end_of(one.expires), now) if one.expires else None,
        "is_made": listed.source == "made",
        "is_own": listed.source == "account",
    }
