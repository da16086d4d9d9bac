"""An authorization server as a client sees it: metadata, registration, codes, revocation. Blocking.

OpenID Connect Discovery 1.0, RFC 6749 §4.1, RFC 7009, RFC 7591, RFC 7636. No error quotes a code,
a token or a secret.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode, urlsplit

from bench.targets.blocking_http import NoAnswer, ask, shown
from bench.targets.target_request import TargetError
from xoauth2_proxy.network import fault_of_url, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.targets.blocking_http import HttpAnswer

_SECONDS = 10.0  # for one request
_WELL_KNOWN = "/.well-known/openid-configuration"
_BASIC, _POST, _NONE = "client_secret_basic", "client_secret_post", "none"  # RFC 7591 §2
_NO_TOKEN = "none-of-yours"  # noqa: S105 - a refresh token that no server has issued


class ProviderError(TargetError):
    """The authorization server cannot be used at all; the text says why."""


class SignInFailed(Exception):
    """One user is not signed in; the text says why, without the user's name."""


class OutcomeUnknown(SignInFailed):
    """There was no usable response: a grant may have begun."""


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """An OAuth client and where its users may be sent back to."""

    client_id: str
    secret: str = field(default="", repr=False)  # "": it is public
    redirect_uris: tuple[str, ...] = ()  # (): unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """An authorization code and what belongs to it. RFC 7636 §4.5."""

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """An authorization server whose metadata are known."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str  # "": it registers no clients
    revocation_endpoint: str  # "": it revokes nothing
    authentication_methods: tuple[str, ...]

    def authorization_url(self, client: RegisteredClient, **parameters: str) -> str:
        """Return the address where a user signs in, to be sent back with a code."""
        query = urlencode({"response_type": "code", "client_id": client.client_id, **parameters})
        separator = "&" if urlsplit(self.authorization_endpoint).query else "?"
        return f"{self.authorization_endpoint}{separator}{query}"

    def register(self, redirect_uri: str, scopes: Sequence[str]) -> RegisteredClient:
        """Return a new client. RFC 7591 §3. Raises `ProviderError`."""
        document = {
            "client_name": "xoauth2-bench",
            "application_type": "native",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": self._registered_method(),
            "scope": " ".join(scopes),
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        what = f"{self.issuer} registers no client"
        try:
            url, body = self.registration_endpoint, json.dumps(document).encode()
            response = ask("POST", url, _SECONDS, body=body, headers=headers)
        except NoAnswer as error:
            raise ProviderError(f"{what}: {error}. Give a --client-id.") from error
        answer = response.json_object() or {}
        if response.status not in {200, 201} or not isinstance(answer.get("client_id"), str):
            reason = _reason(response)
            raise ProviderError(f"{what}: {reason}. Give a --client-id.")
        secret = answer.get("client_secret")
        return RegisteredClient(
            answer["client_id"], secret if isinstance(secret, str) else "", (redirect_uri,)
        )

    def knows(self, client: RegisteredClient) -> bool:
        """Return whether the server still knows the client. Raises `ProviderError`.

        A refresh token that does not exist is refused after the client was checked: RFC 6749 §5.2.
        """
        form = {"grant_type": "refresh_token", "refresh_token": _NO_TOKEN}
        try:
            answer = self._post(self.token_endpoint, client, form).json_object() or {}
        except NoAnswer as error:
            raise ProviderError(f"{self.token_endpoint} does not answer: {error}") from error
        return answer.get("error") not in {"invalid_client", "unauthorized_client"}

    def redeem(self, client: RegisteredClient, redemption: Redemption) -> str:
        """Return the refresh token for a code. RFC 6749 §4.1.3.

        Raises:
            OutcomeUnknown: there is no usable response.
            SignInFailed: the code is refused, or gives no refresh token.
        """
        form = {
            "grant_type": "authorization_code",
            "code": redemption.code,
            "redirect_uri": redemption.redirect_uri,
            "code_verifier": redemption.verifier,
        }
        try:
            response = self._post(self.token_endpoint, client, form)
        except NoAnswer as error:
            raise OutcomeUnknown(f"the token endpoint does not answer: {error}") from None
        answer = response.json_object()
        if answer is None or response.status >= 500:
            raise OutcomeUnknown(f"the token endpoint answers {response.status} without tokens")
        if response.status != 200:
            secrets = (redemption.code, redemption.verifier, client.secret)
            raise SignInFailed(f"no tokens for the code: {_reason(response, secrets)}")
        if token := _text(answer, "refresh_token"):
            return token
        if self.revocation_endpoint:  # the access token is of no use here
            with suppress(SignInFailed):
                self.revoke(client, _text(answer, "access_token"), "access_token")
        raise SignInFailed("the provider gives no refresh token; ask for it with --scopes")

    def revoke(self, client: RegisteredClient, token: str, kind: str = "refresh_token") -> None:
        """Revoke a token, a refresh token with its grant. RFC 7009 §2.

        Raises:
            SignInFailed: it is not revoked; the text says why.
        """
        form = {"token": token, "token_type_hint": kind}
        try:
            response = self._post(self.revocation_endpoint, client, form)
        except NoAnswer as error:
            raise OutcomeUnknown(f"it does not answer: {error}") from None
        if response.status != 200:
            raise SignInFailed(_reason(response, (token, client.secret)))

    def _post(self, url: str, client: RegisteredClient, form: Mapping[str, str]) -> HttpAnswer:
        """Send a form as this client. RFC 6749 §2.3.1. Raises `NoAnswer`."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        if client.secret and self._has(_BASIC):
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form = {**form, "client_id": client.client_id}
            if client.secret:
                form = {**form, "client_secret": client.secret}
        return ask("POST", url, _SECONDS, body=urlencode(form).encode(), headers=headers)

    def _registered_method(self) -> str:
        return next((one for one in (_BASIC, _POST, _NONE) if self._has(one)), _BASIC)

    def _has(self, method: str) -> bool:
        # Nothing said means basic: OpenID Connect Discovery 1.0 §3.
        return method in (self.authentication_methods or (_BASIC,))


def discover(issuer: str, *, needs_registration: bool, allow_remote: bool) -> AuthorizationServer:
    """Return the server of an issuer. OpenID Connect Discovery 1.0 §4.

    Raises:
        ProviderError: it may not be asked, or its metadata cannot be used; the text says what is
            missing.
    """
    check_address(issuer, "the issuer", allow_remote=allow_remote)
    url = issuer.rstrip("/") + _WELL_KNOWN
    try:
        response = ask("GET", url, _SECONDS, headers={"Accept": "application/json"})
    except NoAnswer as error:
        raise ProviderError(f"{issuer} does not answer: {error}") from error
    found = response.json_object()
    if response.status != 200 or found is None:
        raise ProviderError(
            f"{url} answers {response.status} without metadata; is this the issuer?"
        )
    if str(found.get("issuer", "")).rstrip("/") != issuer.rstrip("/"):
        raise ProviderError(f"{url} names another issuer: {shown(found.get('issuer'))}")
    wanted = ["authorization_endpoint", "token_endpoint"]
    wanted += ["registration_endpoint"] if needs_registration else []
    if missing := [name for name in wanted if not _text(found, name)]:
        advice = ". Give a --client-id" if missing == ["registration_endpoint"] else ""
        raise ProviderError(f"The metadata of {issuer} name no {', no '.join(missing)}{advice}.")
    for name in (*wanted, "revocation_endpoint"):
        if address := _text(found, name):
            check_address(address, f"the {name}", allow_remote=allow_remote)
    methods = found.get("token_endpoint_auth_methods_supported")
    return AuthorizationServer(
        issuer,
        _text(found, "authorization_endpoint"),
        _text(found, "token_endpoint"),
        _text(found, "registration_endpoint"),
        _text(found, "revocation_endpoint"),
        tuple(map(str, methods)) if isinstance(methods, list) else (),
    )


def check_address(url: str, what: str, *, allow_remote: bool) -> None:
    """Raise `ProviderError` unless a server that gets secrets may be there."""
    if fault := fault_of_url(url):
        raise ProviderError(f"The URL of {what}, {shown(url)}, {fault}.")
    if not allow_remote and not is_loopback(urlsplit(url).hostname or ""):
        raise ProviderError(
            f"{what[0].upper()}{what[1:]} {shown(url)} is not on loopback: give --allow-remote "
            "only for a provider that is yours."
        )


def challenge_of(verifier: str) -> str:
    """Return the code challenge of a verifier. RFC 7636 §4.2 (S256)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _reason(response: HttpAnswer, secrets: Sequence[str] = ()) -> str:
    answer = response.json_object() or {}
    word, description = _text(answer, "error"), _text(answer, "error_description")
    text = f"{word}: {description}" if description else word
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return shown(text) or f"it answers {response.status}"
