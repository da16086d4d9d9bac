"""The clients that may ask for tokens, and where their people may be sent back to.

A client is registered (RFC 7591), named in the settings, or, if the settings name none, any: then a
person can be sent back to this machine only, so the sandbox is no open redirector (RFC 9700 §4.11).
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from xoauth2_proxy.accounts.providers import SANDBOX_CLIENT_ID
from xoauth2_proxy.network import fault_of_url, is_loopback
from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.provider_settings import SigningAlgorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_REGISTERED = 1000
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials", DEVICE_GRANT)
_NO_SECRET = "none"  # noqa: S105 - a public client's method
AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", _NO_SECRET)
_HOST = re.compile(r"[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\]")
_MAX_URI = 2000


@dataclass(frozen=True, slots=True)
class Client:
    """A program that asks for tokens."""

    client_id: str
    name: str = ""
    secret: str = field(default="", repr=False)  # "": it is public, or any secret is good
    must_prove: bool = False  # whether the secret is compared
    redirect_uris: tuple[str, ...] = ()  # registered ones; (): any on this machine
    id_token_algorithm: SigningAlgorithm | None = None  # None: as in the settings

    def proves_itself(self, secret: str) -> bool:
        """Return whether `secret` is the client's, or need not be."""
        return not self.must_prove or hmac.compare_digest(self.secret.encode(), secret.encode())

    def may_use(self, redirect_uri: str) -> bool:
        """Return whether the browser may be sent there with an answer.

        A registered URI is compared as a whole; of one on this machine the port may differ (RFC
        8252 §7.3).
        """
        if fault_of_redirect_uri(redirect_uri):
            return False
        if not self.redirect_uris:
            return is_on_this_machine(redirect_uri)
        return any(_is_same(redirect_uri, one) for one in self.redirect_uris)


class _Metadata(BaseModel):
    """The registration request. RFC 7591 §2; unknown keys are ignored."""

    redirect_uris: list[str] = Field(default=[], max_length=10)
    client_name: str = Field(default="", max_length=200)
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 - the name of a method
    grant_types: list[str] = Field(default=["authorization_code"], max_length=10)
    response_types: list[str] = Field(default=["code"], max_length=10)
    id_token_signed_response_alg: SigningAlgorithm | None = None
    scope: str = Field(default="", max_length=1000)


class Clients:
    """All clients of one sandbox."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """`settings` has secrets by client id; a public client's is ""."""
        self._is_open = not settings
        self._known = {
            client_id: Client(client_id, secret=secret, must_prove=True)
            for client_id, secret in settings.items()
        }
        self._known.setdefault(SANDBOX_CLIENT_ID, Client(SANDBOX_CLIENT_ID))
        self._registered: dict[str, Client] = {}

    def find(self, client_id: str) -> Client | None:
        """Return the client; None if it is not known."""
        found = self._registered.get(client_id) or self._known.get(client_id)
        return found or (Client(client_id) if self._is_open else None)

    def register(self, document: object) -> dict[str, object]:
        """Register a client; return what the response says, its secret included. RFC 7591 §3.2.1.

        Raises `OAuthError`: the request is invalid, or there are too many clients.
        """
        try:
            asked = _Metadata.model_validate(document)
        except ValidationError as error:
            place = ".".join(map(str, error.errors(include_url=False)[0]["loc"])) or "the body"
            raise OAuthError("invalid_client_metadata", f"{place} is not valid") from None
        _check(asked)
        if len(self._registered) >= MAX_REGISTERED:
            told = f"{MAX_REGISTERED} clients are registered, the most there can be"
            raise OAuthError("temporarily_unavailable", told, 503)
        is_public = asked.token_endpoint_auth_method == _NO_SECRET
        client = Client(
            secrets.token_urlsafe(12),
            name=asked.client_name,
            secret="" if is_public else secrets.token_urlsafe(32),
            must_prove=not is_public,
            redirect_uris=tuple(asked.redirect_uris),
            id_token_algorithm=asked.id_token_signed_response_alg,
        )
        self._registered[client.client_id] = client
        answer = asked.model_dump(mode="json", exclude_defaults=True) | {
            "client_id": client.client_id,
            "client_id_issued_at": int(time.time()),
            "token_endpoint_auth_method": asked.token_endpoint_auth_method,
            "grant_types": asked.grant_types,
            "response_types": asked.response_types,
            "redirect_uris": asked.redirect_uris,
        }
        if not is_public:
            answer |= {"client_secret": client.secret, "client_secret_expires_at": 0}
        return answer


def _check(asked: _Metadata) -> None:
    for uri in asked.redirect_uris:
        if fault := fault_of_redirect_uri(uri):
            raise OAuthError("invalid_redirect_uri", f"a redirect URI {fault}")
    if "authorization_code" in asked.grant_types and not asked.redirect_uris:
        raise OAuthError("invalid_redirect_uri", "authorization_code needs redirect_uris")
    method = asked.token_endpoint_auth_method
    faults = {
        "token_endpoint_auth_method": method not in AUTHENTICATION_METHODS,
        "grant_types": not set(asked.grant_types) <= set(GRANT_TYPES),
        "response_types": not set(asked.response_types) <= {"code"},
        "id_token_signed_response_alg": method == _NO_SECRET
        and asked.id_token_signed_response_alg is SigningAlgorithm.HS256,
    }
    for name, is_wrong in faults.items():
        if is_wrong:
            raise OAuthError("invalid_client_metadata", f"{name} is not supported")


def fault_of_redirect_uri(uri: str) -> str:
    """Return what is wrong with a redirect URI of any client; "" for nothing."""
    if len(uri) > _MAX_URI:
        return "is too long"
    if fault := fault_of_url(uri):
        return fault
    return "" if _HOST.fullmatch(_host_in(uri)) else "must name a host"


def is_on_this_machine(uri: str) -> bool:
    """Return whether a redirect URI without a fault is on loopback, without TLS."""
    parts = urlsplit(uri)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


def origin_of(uri: str) -> str:
    """Return scheme, host and port of a redirect URI without a fault."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _host_in(uri: str) -> str:
    netloc = urlsplit(uri).netloc
    return netloc.partition("]")[0] + "]" if "[" in netloc else netloc.partition(":")[0]


def _is_same(uri: str, registered: str) -> bool:
    if uri == registered:
        return True
    if not (is_on_this_machine(uri) and is_on_this_machine(registered)):
        return False
    one, other = urlsplit(uri), urlsplit(registered)
    return (one.hostname, one.path, one.query) == (other.hostname, other.path, other.query)
