"""The provider's OAuth 2.0 token endpoint, with faults on request.

RFC 6749 §6 (refresh token) and §4.4 (client credentials); OpenID Connect Discovery 1.0. There is
no sign-in: every mailbox has granted everything.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from aiohttp import web

from xoauth2_proxy.sandbox.faults import TokenAction, TokenFault
from xoauth2_proxy.sandbox.refusals import format_address
from xoauth2_proxy.sandbox.tokens.token_factory import GrantEnded, TokenKind
from xoauth2_proxy.sandbox.tokens.token_verifier import TooManyRevoked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xoauth2_proxy.sandbox.counters import Counters
    from xoauth2_proxy.sandbox.faults import FaultScript
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
    from xoauth2_proxy.sandbox.refusals import Refusals
    from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory

_HANG_SECONDS = 600.0
_UNCACHED = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 §5.1
_TRUNCATED_BYTES = 25  # of the JSON, which is longer

# With these actions the access token is of the kind that has the same name.
_BAD_TOKENS = frozenset(TokenAction) & frozenset(TokenKind)
_ERRORS = {  # status, error ("": the name of the action), description
    TokenAction.INVALID_GRANT: (400, "", "Token has been expired or revoked."),
    TokenAction.INVALID_CLIENT: (401, "", "The client is unknown, on request."),
    TokenAction.INTERACTION_REQUIRED: (
        400,
        "",
        "AADSTS50076: Due to a configuration change made by your administrator, you must use "
        "multi-factor authentication.",
    ),
    TokenAction.TEMPORARILY_UNAVAILABLE: (400, "", "Try again later."),
    TokenAction.RATE_LIMITED: (429, "temporarily_unavailable", "Too many requests."),
    TokenAction.SERVER_ERROR: (500, "server_error", "Something went wrong, on request."),
    TokenAction.UNAVAILABLE: (503, "temporarily_unavailable", "Not now, on request."),
}
_NO_MAILBOX = "client_credentials need the parameter mailbox, or a client_id that is one"
_UNKNOWN_GRANT_TYPE = "only refresh_token and client_credentials are known"


class _Refused(Exception):
    def __init__(self, word: str, description: str, status: int = 400) -> None:
        super().__init__(word)
        self.word, self.description, self.status = word, description, status


@dataclass(frozen=True, slots=True)
class _TokenRequest:
    grant_type: str
    mailbox: str  # that the request names, good or not; "": none
    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scope: str
    client: str  # address:port


@dataclass(eq=False, repr=False)
class TokenEndpoint:
    """Answers token requests and counts them."""

    settings: TokenEndpointSettings
    factory: TokenFactory
    faults: FaultScript[TokenFault]
    counters: Counters
    refusals: Refusals
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield web.post("/oauth/token", self._token)
        yield web.get("/.well-known/openid-configuration", self._discovery)

    def end(self) -> None:
        """End the requests that hang."""
        self._stopping.set()

    async def _discovery(self, request: web.Request) -> web.Response:
        issuer = f"http://{request.host}"  # a loopback name: others are refused
        return web.json_response(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "grant_types_supported": ["refresh_token", "client_credentials"],
                "response_types_supported": [],
                "subject_types_supported": ["public"],
                "token_endpoint_auth_methods_supported": [
                    "client_secret_basic",
                    "client_secret_post",
                    "none",
                ],
            }
        )

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self.counters.token_requests += 1
        token_request = await self._read(request)
        fault = self.faults.next("token", token_request.mailbox, token_request.grant_type)
        if fault is None:
            return self._answer(token_request)
        self.counters.faults_met[f"{fault.step}:{fault.action}"] += 1
        if fault.action is not TokenAction.DELAY:
            self._record_refusal(
                token_request, f"({fault.action.meaning})", fault.describe(fault.action)
            )
        return await self._apply_fault(fault, request, token_request)

    async def _read(self, request: web.Request) -> _TokenRequest:
        form: dict[str, str] = {}
        if request.content_type == "application/x-www-form-urlencoded":
            pairs = (await request.post()).items()
            form = {key: value for key, value in pairs if isinstance(value, str)}
        client_id, client_secret = _client(request, form)
        refresh_token = form.get("refresh_token", "")
        if form.get("grant_type") == "refresh_token":
            mailbox = self.factory.mailbox_of(refresh_token)
        else:
            mailbox = form.get("mailbox", client_id if "@" in client_id else "").lower()
        return _TokenRequest(
            form.get("grant_type", ""),
            mailbox,
            client_id,
            client_secret,
            refresh_token,
            form.get("scope", ""),
            format_address(request.transport and request.transport.get_extra_info("peername")),
        )

    def _answer(
        self, token_request: _TokenRequest, kind: TokenKind = TokenKind.VALID
    ) -> web.Response:
        try:
            self._check_client(token_request)
            body = self._issue(token_request, kind)
        except _Refused as refusal:
            self._record_refusal(
                token_request, f"{refusal.status} {refusal.word}", refusal.description
            )
            return _error(refusal.word, refusal.description, refusal.status)
        return web.json_response(body, headers=_UNCACHED)

    def _record_refusal(self, token_request: _TokenRequest, reply: str, reason: str) -> None:
        self.refusals.add(
            token_request.client, token_request.mailbox, "TOKEN", reply.encode(), reason
        )

    def _check_client(self, token_request: _TokenRequest) -> None:
        if not self.settings.clients:
            return
        expected = self.settings.clients.get(token_request.client_id)
        given = token_request.client_secret.encode()
        if expected is None or not hmac.compare_digest(expected.encode(), given):
            raise _Refused("invalid_client", "The client or its secret is wrong.", 401)

    def _issue(self, token_request: _TokenRequest, kind: TokenKind) -> dict[str, object]:
        body: dict[str, object] = {"token_type": "Bearer"}
        match token_request.grant_type:
            case "refresh_token":
                try:
                    refresh_token = self.factory.use(token_request.refresh_token)
                except GrantEnded as ended:
                    raise _Refused("invalid_grant", ended.reason) from None
                if refresh_token:
                    body["refresh_token"] = refresh_token
            case "client_credentials":
                if not token_request.mailbox:
                    raise _Refused("invalid_request", _NO_MAILBOX)
            case _:
                raise _Refused("unsupported_grant_type", _UNKNOWN_GRANT_TYPE)
        seconds = self.settings.ttl_seconds
        try:
            body["access_token"] = self.factory.mint(token_request.mailbox, kind, seconds)
        except TooManyRevoked as error:  # because of a fault that has to be noticed
            raise _Refused("server_error", str(error), 500) from None
        body["expires_in"] = int(seconds) if seconds.is_integer() else seconds
        if token_request.scope:
            body["scope"] = token_request.scope
        return body

    async def _apply_fault(
        self, fault: TokenFault, request: web.Request, token_request: _TokenRequest
    ) -> web.StreamResponse:
        match fault.action:
            case TokenAction.DELAY:
                await self._wait(fault.seconds)
                return self._answer(token_request)
            case TokenAction.HANG:
                await self._wait(_HANG_SECONDS)
                return await _cut_off(request)
            case TokenAction.DROP:
                return await _cut_off(request)
            case TokenAction.TRUNCATED:
                return await _cut_off(request, self._answer(token_request).body)
            case action if action in _BAD_TOKENS:
                return self._answer(token_request, TokenKind(action.value))
        return _refusal(fault)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _client(request: web.Request, form: Mapping[str, str]) -> tuple[str, str]:
    """Return the id and secret that the client sent. RFC 6749 §2.3.1."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        pair = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    client_id, _, secret = pair.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _refusal(fault: TokenFault) -> web.Response:
    if fault.action is TokenAction.GARBAGE:
        return web.Response(text="<h1>It works</h1>", content_type="text/html")
    status, word, description = _ERRORS[fault.action]
    response = _error(word or fault.action.value, description, status)
    if status in (429, 503) and fault.retry_after_seconds:
        response.headers["Retry-After"] = str(fault.retry_after_seconds)
    return response


def _error(word: str, description: str, status: int) -> web.Response:
    headers = dict(_UNCACHED)
    if status == 401:  # RFC 6749 §5.2
        headers["WWW-Authenticate"] = 'Basic realm="sandbox"'
    body = {"error": word, "error_description": description}
    return web.json_response(body, status=status, headers=headers)


async def _cut_off(request: web.Request, body: object = None) -> web.StreamResponse:
    """Send the first octets of an answer, if there is one, and close."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if isinstance(body, bytes):
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:_TRUNCATED_BYTES])
    if request.transport is not None:
        request.transport.close()
    return response
