"""What a client asks for besides tokens: metadata, keys, registration, device codes, revocation.

OpenID Connect Discovery 1.0, RFC 7517, RFC 7591, RFC 8628 §3.1, RFC 7009, userinfo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from xoauth2_proxy.sandbox.oauth import client_requests
from xoauth2_proxy.sandbox.oauth.attempts import AuthorizationRequest
from xoauth2_proxy.sandbox.oauth.clients import AUTHENTICATION_METHODS, GRANT_TYPES
from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.oauth.id_tokens import person
from xoauth2_proxy.sandbox.provider_settings import SigningAlgorithm
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid
from xoauth2_proxy.sandbox.tokens.token_factory import GrantEnded
from xoauth2_proxy.sandbox.tokens.token_verifier import TooManyRevoked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.sandbox.oauth.attempts import Attempts
    from xoauth2_proxy.sandbox.oauth.clients import Clients
    from xoauth2_proxy.sandbox.oauth.id_tokens import IdTokens
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
    from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory
    from xoauth2_proxy.sandbox.tokens.token_verifier import TokenVerifier

SCOPES = {  # with what a person is told that they allow
    "openid": "know that it is you",
    "email": "see the mailbox's address",
    "profile": "see the mailbox's name",
    "smtp": "send mail as this mailbox",
    "offline_access": "keep access until you revoke it",
}


@dataclass(eq=False, repr=False)
class ClientEndpoints:
    """Serves programs; the pages for people are `SignInPages`."""

    settings: TokenEndpointSettings
    clients: Clients
    attempts: Attempts
    id_tokens: IdTokens
    factory: TokenFactory
    verifier: TokenVerifier

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield web.get("/.well-known/openid-configuration", self._metadata)
        yield web.get("/.well-known/oauth-authorization-server", self._metadata)  # RFC 8414 §3
        yield web.get("/oauth/jwks", self._keys)
        yield web.get("/oauth/userinfo", self._userinfo)
        yield web.post("/oauth/userinfo", self._userinfo)
        yield web.post("/oauth/register", self._register)
        yield web.post("/oauth/device_authorization", self._begin_device)
        yield web.post("/oauth/revoke", self._revoke)

    async def _metadata(self, request: web.Request) -> web.Response:
        issuer = client_requests.issuer_of(request)
        algorithms = [one.value for one in SigningAlgorithm]
        return web.json_response(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/oauth/authorize",
                "token_endpoint": f"{issuer}/oauth/token",
                "device_authorization_endpoint": f"{issuer}/oauth/device_authorization",
                "registration_endpoint": f"{issuer}/oauth/register",
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "userinfo_endpoint": f"{issuer}/oauth/userinfo",
                "jwks_uri": f"{issuer}/oauth/jwks",
                "scopes_supported": list(SCOPES),
                "claims_supported": ["iss", "aud", "exp", "iat", "auth_time", *person("")],
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": list(GRANT_TYPES),
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": algorithms,
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": list(AUTHENTICATION_METHODS),
                "revocation_endpoint_auth_methods_supported": list(AUTHENTICATION_METHODS),
                "authorization_response_iss_parameter_supported": True,  # RFC 9207
                "prompt_values_supported": ["none", "login", "consent", "select_account"],
                "request_parameter_supported": False,
                "request_uri_parameter_supported": False,
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response(await self.id_tokens.key_set())

    async def _userinfo(self, request: web.Request) -> web.Response:
        token = client_requests.bearer_token(request)
        try:
            claims = self.verifier.tokens.read(token)
        except MockTokenInvalid:
            return _unauthorized()
        if self.verifier.objection(claims.mailbox, token):
            return _unauthorized()
        return web.json_response(person(claims.mailbox), headers=client_requests.UNCACHED)

    async def _register(self, request: web.Request) -> web.Response:
        try:
            if request.content_type != "application/json":
                raise OAuthError("invalid_client_metadata", "the body must be application/json")
            try:
                document = json.loads(await request.text())
            except (ValueError, RecursionError):
                raise OAuthError("invalid_client_metadata", "the body is no JSON") from None
            answer = self.clients.register(document)
        except OAuthError as error:
            return client_requests.error_response(error.word, error.description, error.status)
        return web.json_response(answer, status=201, headers=client_requests.UNCACHED)

    async def _begin_device(self, request: web.Request) -> web.Response:
        form = await client_requests.read_form(request)
        issuer = client_requests.issuer_of(request)
        try:
            client_id, secret = client_requests.credentials(request, form)
            client = client_requests.proven(self.clients, client_id, secret)
        except OAuthError as error:
            return client_requests.error_response(error.word, error.description, error.status)
        device_code, user_code = self.attempts.begin_device(
            AuthorizationRequest(client=client, issuer=issuer, scope=form.get("scope", ""))
        )
        return web.json_response(
            {
                "device_code": device_code,
                "user_code": user_code,
                "verification_uri": f"{issuer}/oauth/device",
                "verification_uri_complete": f"{issuer}/oauth/device?user_code={user_code}",
                "expires_in": max(1, int(self.settings.device_code_seconds)),
                "interval": self.settings.device_interval_seconds,
            },
            headers=client_requests.UNCACHED,
        )

    async def _revoke(self, request: web.Request) -> web.Response:
        """Revoke a token; of an unknown one nothing is said. RFC 7009 §2.2."""
        form = await client_requests.read_form(request)
        token = form.get("token", "")
        try:
            client_id, secret = client_requests.credentials(request, form)
            client = client_requests.proven(self.clients, client_id, secret)
            if not token:
                raise OAuthError("invalid_request", "token is required")
            try:
                known = self.factory.read(token)
            except GrantEnded:
                self.verifier.revoke(token)  # an access token, or nothing that is known
            else:
                if known.client_id in ("", client.client_id):
                    self.factory.end_grant(known.grant)
        except TooManyRevoked as error:
            return client_requests.error_response("temporarily_unavailable", str(error), 503)
        except OAuthError as error:
            return client_requests.error_response(error.word, error.description, error.status)
        return web.Response(headers=client_requests.UNCACHED)


def _unauthorized() -> web.Response:
    challenge = 'Bearer realm="sandbox", error="invalid_token"'  # RFC 6750 §3
    return web.json_response(
        {"error": "invalid_token"}, status=401, headers={"WWW-Authenticate": challenge}
    )
