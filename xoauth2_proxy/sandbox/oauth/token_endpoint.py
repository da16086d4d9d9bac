"""The provider's OAuth 2.0 token endpoint, with faults on request. RFC 6749 §3.2."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.sandbox.faults import TokenAction, TokenFault
from xoauth2_proxy.sandbox.limits import Window
from xoauth2_proxy.sandbox.oauth.client_requests import (
    UNCACHED,
    address_of,
    credentials,
    error_response,
    proven,
    read_form,
)
from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.oauth.token_grants import TokenRequest
from xoauth2_proxy.sandbox.tokens.token_factory import TokenKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.sandbox.faults import FaultScript
    from xoauth2_proxy.sandbox.oauth.clients import Clients
    from xoauth2_proxy.sandbox.oauth.token_grants import TokenGrants
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
    from xoauth2_proxy.sandbox.provider_state import ProviderState

_HANG_SECONDS = 600.0
_TRUNCATED_BYTES = 25  # of the JSON, which is longer
_LIMIT = "requests_per_minute"

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


class TokenEndpoint:
    """Answers token requests and counts them."""

    def __init__(
        self,
        provider: ProviderState,
        settings: TokenEndpointSettings,
        clients: Clients,
        grants: TokenGrants,
        faults: FaultScript[TokenFault],
    ) -> None:
        self._counters, self._refusals = provider.counters, provider.refusals
        self._clients = clients
        self._grants = grants
        self._faults = faults
        behaviour = provider.behaviour
        limit = settings.requests_per_minute if behaviour.rate_limits else 0
        self._minute_seconds = behaviour.minute_seconds
        self._window = Window(limit, self._minute_seconds)
        self._stopping = asyncio.Event()

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield web.post("/oauth/token", self._token)

    def begin(self) -> None:
        """Let requests wait again."""
        self._stopping.clear()

    def end(self) -> None:
        """End the requests that hang."""
        self._stopping.set()

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self._counters.token_requests += 1
        token_request = await self._read(request)
        if (refusal := self._refuse_rate(token_request)) is not None:
            return refusal
        fault = self._faults.next("token", token_request.mailbox, token_request.grant_type)
        if fault is None:
            return await self._answer(token_request)
        self._counters.faults_met[f"{fault.step}:{fault.action}"] += 1
        if fault.action is not TokenAction.DELAY:
            self._record_refusal(
                token_request, f"({fault.action.meaning})", fault.describe(fault.action)
            )
        return await self._apply_fault(fault, request, token_request)

    async def _read(self, request: web.Request) -> TokenRequest:
        form = await read_form(request)
        client_id, client_secret = credentials(request, form)
        return TokenRequest(
            form.get("grant_type", ""),
            self._grants.mailbox_of(form, client_id),
            client_id,
            client_secret,
            form,
            address_of(request),
        )

    def _refuse_rate(self, token_request: TokenRequest) -> web.Response | None:
        now = time.monotonic()
        if self._window.has_room(now):
            self._window.take(now)
            return None
        self._counters.refused_by_limit[_LIMIT] += 1
        self._record_refusal(token_request, "429 temporarily_unavailable", f"limit {_LIMIT}")
        response = error_response("temporarily_unavailable", "Too many requests.", 429)
        response.headers["Retry-After"] = str(max(1, round(self._minute_seconds)))
        return response

    async def _answer(
        self, token_request: TokenRequest, kind: TokenKind = TokenKind.VALID
    ) -> web.Response:
        try:
            client = proven(self._clients, token_request.client_id, token_request.client_secret)
            body = await self._grants.issue(token_request, client, kind)
        except OAuthError as error:
            self._record_refusal(token_request, f"{error.status} {error.word}", error.description)
            return error_response(error.word, error.description, error.status)
        return web.json_response(body, headers=UNCACHED)

    def _record_refusal(self, token_request: TokenRequest, reply: str, reason: str) -> None:
        self._refusals.add(
            token_request.client, token_request.mailbox, "TOKEN", reply.encode(), reason
        )

    async def _apply_fault(
        self, fault: TokenFault, request: web.Request, token_request: TokenRequest
    ) -> web.StreamResponse:
        match fault.action:
            case TokenAction.DELAY:
                await self._wait(fault.seconds)
                return await self._answer(token_request)
            case TokenAction.HANG:
                await self._wait(_HANG_SECONDS)
                return await _cut_off(request)
            case TokenAction.DROP:
                return await _cut_off(request)
            case TokenAction.TRUNCATED:
                return await _cut_off(request, (await self._answer(token_request)).body)
            case action if action in _BAD_TOKENS:
                return await self._answer(token_request, TokenKind(action.value))
        return _refusal(fault)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _refusal(fault: TokenFault) -> web.Response:
    if fault.action is TokenAction.GARBAGE:
        return web.Response(text="<h1>It works</h1>", content_type="text/html")
    status, word, description = _ERRORS[fault.action]
    response = error_response(word or fault.action.value, description, status)
    if status in (429, 503) and fault.retry_after_seconds:
        response.headers["Retry-After"] = str(fault.retry_after_seconds)
    return response


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
