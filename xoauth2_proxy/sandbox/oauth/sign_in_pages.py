"""The pages where a person signs in and allows a client: after a redirect, or for a device.

RFC 6749 §4.1.1–4.1.2, RFC 8628 §3.3. They work without scripts and set no cookie. A form is
answered once: it holds a key that only its page knows, and a browser sends it from that page only.
I1: the browser is sent to a redirect URI only after the client's right to it was checked; before a
person has answered, only to one on this machine.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from xoauth2_proxy.sandbox.oauth import client_requests
from xoauth2_proxy.sandbox.oauth.attempts import (
    Attempt,
    Attempts,
    AuthorizationRequest,
    answer_device,
    check_challenge,
)
from xoauth2_proxy.sandbox.oauth.client_endpoints import SCOPES
from xoauth2_proxy.sandbox.oauth.clients import is_on_this_machine, origin_of
from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.web.server import AUTHORIZE_PATH, DEVICE_PATH, form_headers
from xoauth2_proxy.templating import PackagePages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xoauth2_proxy.sandbox.oauth.clients import Client, Clients
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
    from xoauth2_proxy.sandbox.refusals import Refusals

_MAILBOX = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,255}")
_MAX_PARAMETER = 2000
_REFUSED = "The person has refused."


class SignInPages:
    """Serves the authorization endpoint and the page where a device's code is typed."""

    def __init__(
        self,
        settings: TokenEndpointSettings,
        clients: Clients,
        attempts: Attempts,
        refusals: Refusals,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._attempts = attempts
        self._refusals = refusals
        self._pages = PackagePages("xoauth2_proxy.sandbox.oauth")

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield web.get(AUTHORIZE_PATH, self._begin)
        yield web.post(AUTHORIZE_PATH, self._answer)
        yield web.get(DEVICE_PATH, self._ask_for_code)
        yield web.post(DEVICE_PATH, self._take_code)
        yield web.get("/oauth/static/{name}", self._file)

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        query = {name: request.query[name] for name in request.query}
        try:
            client, redirect_uri = self._client_in(request, query)
        except OAuthError as error:  # whoever asks is unknown: no redirect (RFC 6749 §4.1.2.1)
            return self._refused(request, error)
        asked = AuthorizationRequest(
            client=client,
            issuer=client_requests.issuer_of(request),
            scope=query.get("scope", ""),
            login_hint=query.get("login_hint", ""),
            redirect_uri=redirect_uri,
            state=query.get("state", ""),
            nonce=query.get("nonce", ""),
            code_challenge=query.get("code_challenge", ""),
        )
        try:
            self._check(query)
        except OAuthError as error:
            if not is_on_this_machine(redirect_uri):  # RFC 9700 §4.11.2
                return self._refused(request, error)
            self._record(request, "", error)
            return _redirect(asked, error=error.word, error_description=error.description)
        return self._sign_in_page(Attempt(asked))

    def _client_in(self, request: web.Request, query: Mapping[str, str]) -> tuple[Client, str]:
        if len(request.query) != len(query):
            raise OAuthError("invalid_request", "A parameter is given twice.")
        if any(len(value) > _MAX_PARAMETER for value in query.values()):
            raise OAuthError("invalid_request", "A parameter is too long.")
        client_id, redirect_uri = query.get("client_id", ""), query.get("redirect_uri", "")
        client = self._clients.find(client_id) if client_id else None
        if client is None:
            raise OAuthError("invalid_request", "There is no client with this client_id.")
        if not redirect_uri:
            raise OAuthError("invalid_request", "redirect_uri is missing.")
        if not client.may_use(redirect_uri):
            told = "is not one of those registered for it"
            if not client.redirect_uris:
                told = "is not an http address of this machine, and none is registered"
            raise OAuthError("invalid_request", f"The client's redirect_uri {told}.")
        return client, redirect_uri

    def _check(self, query: Mapping[str, str]) -> None:
        for name in ("request", "request_uri"):
            if name in query:
                raise OAuthError(f"{name}_not_supported", f"{name} is not supported.")
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type must be code.")
        if query.get("response_mode", "query") != "query":
            raise OAuthError("invalid_request", "response_mode must be query.")
        check_challenge(
            query.get("code_challenge", ""),
            query.get("code_challenge_method", "plain"),  # RFC 7636 §4.3
            is_required=self._settings.requires_pkce,
        )
        if "none" in query.get("prompt", "").split():  # OpenID Connect Core §3.1.2.1
            raise OAuthError("login_required", "Nobody stays signed in here.")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        form = await client_requests.read_form(request)
        attempt = self._attempts.answered(form.get("attempt", ""))
        if attempt is None:
            told = "It was answered before, or is too old. Start the sign-in again in the program."
            return self._message("This page has expired", told, 400)
        if form.get("answer") == "deny":
            return self._end(request, attempt, is_allowed=False)
        if attempt.mailbox:
            return self._end(request, attempt, is_allowed=form.get("answer") == "allow")
        mailbox = form.get("login", "").strip().lower()
        if not _MAILBOX.fullmatch(mailbox):
            return self._sign_in_page(attempt, mailbox, "Type an e-mail address.")
        if not form.get("password"):
            return self._sign_in_page(attempt, mailbox, "Type a password; any one will do.")
        return self._consent_page(replace(attempt, mailbox=mailbox))

    def _end(
        self, request: web.Request, attempt: Attempt, *, is_allowed: bool
    ) -> web.StreamResponse:
        if not is_allowed:
            self._record(request, attempt.mailbox, OAuthError("access_denied", _REFUSED))
        if attempt.device is not None:
            answer_device(attempt, is_allowed=is_allowed)
            if is_allowed:
                told = f"The device may now use {attempt.mailbox}. You can close this page."
                return self._message("Device allowed", told)
            return self._message("Device refused", "You can close this page.")
        if is_allowed:
            return _redirect(attempt.request, code=self._attempts.code_for(attempt))
        return _redirect(attempt.request, error="access_denied", error_description=_REFUSED)

    # A device.

    async def _ask_for_code(self, request: web.Request) -> web.Response:
        return self._code_page(request.query.get("user_code", "")[:20])

    async def _take_code(self, request: web.Request) -> web.Response:
        user_code = (await client_requests.read_form(request)).get("user_code", "")[:20]
        attempt = self._attempts.device_with(user_code)
        if attempt is None:
            return self._code_page(user_code, "No device shows this code, or it has expired.", 400)
        return self._sign_in_page(attempt)

    # Pages.

    def _sign_in_page(self, attempt: Attempt, typed: str = "", fault: str = "") -> web.Response:
        return self._form_page(
            "sign_in.html", attempt, typed=typed or attempt.request.login_hint, fault=fault
        )

    def _consent_page(self, attempt: Attempt) -> web.Response:
        scopes = [(one, SCOPES.get(one, "")) for one in attempt.request.scope.split()]
        return self._form_page("consent.html", attempt, scopes=scopes)

    def _form_page(self, template: str, attempt: Attempt, **values: object) -> web.Response:
        request = attempt.request
        back = origin_of(request.redirect_uri) if request.redirect_uri else ""
        page = self._page(
            template,
            400 if values.get("fault") else 200,
            key=self._attempts.begin(attempt),
            client=request.client.name or request.client.client_id or "A program",
            mailbox=attempt.mailbox,
            back=back,
            path=AUTHORIZE_PATH,
            **values,
        )
        # Browsers let a form's answer redirect only to what the page's policy names.
        page.headers.update(form_headers(back))
        return page

    def _code_page(self, user_code: str, fault: str = "", status: int = 200) -> web.Response:
        page = self._page("device.html", status, user_code=user_code, fault=fault, path=DEVICE_PATH)
        page.headers.update(form_headers())
        return page

    def _message(self, title: str, text: str, status: int = 200) -> web.Response:
        return self._page("message.html", status, title=title, text=text)

    def _refused(self, request: web.Request, error: OAuthError) -> web.Response:
        self._record(request, "", error)
        return self._message("Sign-in not possible", error.description, error.status)

    def _record(self, request: web.Request, mailbox: str, error: OAuthError) -> None:
        client = client_requests.address_of(request)
        reply = f"{error.status} {error.word}"
        self._refusals.add(client, mailbox, "AUTHORIZE", reply.encode(), error.description)

    def _page(self, template: str, status: int, **values: object) -> web.Response:
        html = self._pages.render(template, **values)
        return web.Response(text=html, content_type="text/html", status=status)

    async def _file(self, request: web.Request) -> web.Response:
        file = self._pages.static(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return web.Response(body=file[0], content_type=file[1])


def _redirect(asked: AuthorizationRequest, **answer: str) -> web.Response:
    """Return the response that leads back to the client. RFC 6749 §4.1.2, RFC 9207."""
    if asked.state:
        answer["state"] = asked.state
    answer["iss"] = asked.issuer
    separator = "&" if urlsplit(asked.redirect_uri).query else "?"
    location = f"{asked.redirect_uri}{separator}{urlencode(answer)}"
    return web.Response(status=303, headers={"Location": location})
