"""Access tokens from Microsoft Entra: for a person who signed in, or for an application.

The only importer of msal, which knows Microsoft's endpoints and signs with certificates. Responses
are checked here, before it sees them: it would cache errors for a minute and more, so that a
corrected configuration would still fail, and log responses that are not JSON.

Each refresh has its own msal application, whose token cache ends with it. Threads share only the
authorities' metadata.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msal

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import (
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.refreshers import check_client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    import requests

    from xoauth2_proxy.accounts.oauth_client import OAuthClient
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

_AUTHORITY = "https://login.microsoftonline.com"
_TENANT = "common"  # whoever signed in, at work or at home
_MANY_TENANTS = frozenset({"", "common", "organizations", "consumers"})
_SCOPES = {
    GrantType.REFRESH_TOKEN: ["https://outlook.office.com/SMTP.Send"],
    GrantType.CLIENT_CREDENTIALS: ["https://outlook.office365.com/.default"],
}
_MSAL_SCOPES = frozenset({"openid", "profile", "offline_access"})  # it adds them, and refuses ours
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----\n?", re.DOTALL)
_METADATA_SECONDS = 3600.0  # how long an authority's metadata are used
_MAX_AUTHORITIES = 100  # whose metadata are kept


@dataclass(frozen=True, slots=True)
class _MsalResponse:
    """An HTTP response as msal expects it."""

    text: str = field(repr=False)  # it may hold a token
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def raise_for_status(self) -> None:
        """Do nothing: other responses were raised as errors."""


@dataclass(frozen=True, slots=True)
class _Metadata:
    text: str
    stale_at: float  # monotonic


class OutlookRefresher:
    """Asks Microsoft's token endpoint, in a thread: msal blocks."""

    def __init__(
        self, threads: Executor, exchange_seconds: float = endpoint.EXCHANGE_SECONDS
    ) -> None:
        self._threads = threads
        self._exchange_seconds = exchange_seconds
        self._known: dict[tuple[str, Path | None], _Metadata] = {}  # by URL and whom we trusted

    async def refresh(self, grant: Grant) -> TokenResponse:
        """Return a new access token, and the refresh token that replaces the old one.

        Raises:
            GrantRevoked: a person must sign in, again or for the first time.
            TokenEndpointRefused: the operator must correct the configuration.
            TokenEndpointUnavailable: transient.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask, grant)

    def _ask(self, grant: Grant) -> TokenResponse:
        client = grant.client
        if client.grant_type not in _SCOPES:
            raise TokenEndpointRefused(f"Microsoft does not support {client.grant_type}")
        check_client(grant)
        with endpoint.open_session(client.ca_file, self._exchange_seconds) as session:
            exchange = _MsalHttpClient(session, grant, self._known)
            try:
                _acquire(_application(client, exchange), grant)
            except TokenError:
                raise
            except Exception as error:
                # The authority's URL or metadata, a scope or the certificate is wrong; the texts
                # may quote what msal was given. After a good response nothing may fail: its refresh
                # token would be lost.
                if exchange.issued is None:
                    raise TokenEndpointRefused(f"msal: {type(error).__name__}") from None
        if exchange.issued is None:
            raise TokenEndpointUnavailable("msal sent no request")
        self._cache_metadata(exchange.discovered)
        return exchange.issued

    def _cache_metadata(self, discovered: dict[tuple[str, Path | None], _Metadata]) -> None:
        """Cache metadata that led to a token; other metadata is fetched again next time."""
        if len(self._known) + len(discovered) > _MAX_AUTHORITIES:
            self._known.clear()
        self._known.update(discovered)


def _application(client: OAuthClient, exchange: _MsalHttpClient) -> msal.ClientApplication:
    settings: dict[str, Any] = {
        "authority": _authority(client),
        "http_client": exchange,
        "instance_discovery": False,  # the authority is configured; Microsoft may not know it
    }
    if client.certificate is not None:
        credential: object = _certificate(client.certificate)
    elif client.client_secret:
        credential = client.client_secret
    elif client.grant_type is GrantType.CLIENT_CREDENTIALS:
        raise TokenEndpointRefused("client_credentials need a client_secret or a certificate")
    else:
        return msal.PublicClientApplication(client.client_id, **settings)
    return msal.ConfidentialClientApplication(client.client_id, credential, **settings)


def _acquire(application: msal.ClientApplication, grant: Grant) -> None:
    """Make msal request tokens; its HTTP client has them then."""
    client = grant.client
    scopes = [scope for scope in client.scopes if scope not in _MSAL_SCOPES]
    scopes = scopes or _SCOPES[client.grant_type]
    if client.grant_type is GrantType.CLIENT_CREDENTIALS:
        application.acquire_token_for_client(scopes)
    else:
        application.acquire_token_by_refresh_token(grant.refresh_token, scopes)


def _authority(client: OAuthClient) -> str:
    if client.token_endpoint:
        # Never used, but msal requires one.
        parts = urlsplit(client.token_endpoint)
        return f"{parts.scheme}://{parts.netloc}/{client.tenant or _TENANT}"
    if client.grant_type is GrantType.CLIENT_CREDENTIALS and client.tenant in _MANY_TENANTS:
        raise TokenEndpointRefused("client_credentials need a tenant: its id or domain")
    return f"{(client.authority or _AUTHORITY).rstrip('/')}/{client.tenant or _TENANT}"


def _certificate(path: Path) -> dict[str, str]:
    """Return the key and certificate for msal, which computes the SHA-256 thumbprint."""
    try:
        pem = path.read_text()
    except OSError as error:
        raise TokenEndpointRefused(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise TokenEndpointRefused(f"{path} is not PEM") from None
    blocks = [(block[1], block[0]) for block in _PEM.finditer(pem)]
    keys = [block for label, block in blocks if label.endswith("PRIVATE KEY")]
    certificates = [block for label, block in blocks if label == "CERTIFICATE"]
    if not keys or not certificates:
        raise TokenEndpointRefused(f"{path} does not hold both a certificate and its private key")
    return {"private_key": keys[0], "public_certificate": certificates[0]}


class _MsalHttpClient:
    """Sends msal's requests through our session, and returns good responses only."""

    def __init__(
        self,
        session: requests.Session,
        grant: Grant,
        known: Mapping[tuple[str, Path | None], _Metadata],
    ) -> None:
        self._session = session
        self._grant = grant
        self._known = known
        self._secrets = endpoint.secrets_of(grant)
        self.discovered: dict[tuple[str, Path | None], _Metadata] = {}
        self.issued: TokenResponse | None = None  # what the endpoint answered

    def get(self, url: str, **kwargs: object) -> _MsalResponse:
        """Return an authority's metadata."""
        if self._grant.client.token_endpoint:
            return _MsalResponse(_metadata(self._grant.client.token_endpoint))
        key = (url, self._grant.client.ca_file)
        kept = self._known.get(key)
        if kept is None or kept.stale_at <= time.monotonic():
            response = endpoint.send_request(self._session, "GET", url)
            endpoint.json_object(response, self._secrets)
            kept = _Metadata(response.text, time.monotonic() + _METADATA_SECONDS)
            self.discovered[key] = kept
        return _MsalResponse(kept.text)

    def post(
        self,
        url: str,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **kwargs: object,
    ) -> _MsalResponse:
        """Return the response to a token request, with no more than msal needs."""
        form = {**(data or {}), **dict(self._grant.client.parameters)}
        response = endpoint.send_request(self._session, "POST", url, form, headers)
        is_signed_in = self._grant.client.grant_type is GrantType.REFRESH_TOKEN
        answer = endpoint.json_object(response, self._secrets, is_signed_in=is_signed_in)
        self.issued = endpoint.token_response(answer)
        return _MsalResponse(json.dumps({"access_token": self.issued.access_token}))

    def close(self) -> None:
        """Do nothing: the refresher closes the session."""


def _metadata(token_endpoint: str) -> str:
    """Return what discovery would, for a token endpoint that the operator named."""
    return json.dumps({"token_endpoint": token_endpoint, "authorization_endpoint": token_endpoint})
