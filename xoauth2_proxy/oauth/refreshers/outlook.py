"""Access tokens from Microsoft Entra: for a person who signed in, or for an application.

The only importer of msal, which knows Microsoft's endpoints and signs with certificates. Responses
are checked here, before it sees them: it would cache errors for a minute and more, even after the
configuration is corrected, and log responses that are not JSON.

Each refresh has its own msal application, whose token cache ends with it. Threads share only the
authorities' metadata.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import msal

from xoauth2_proxy.accounts.oauth_client import MICROSOFT_AUTHORITY, SHARED_TENANTS, GrantType
from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth import endpoint, responses
from xoauth2_proxy.oauth.refreshers import check_client
from xoauth2_proxy.oauth.refreshers.blocking import BlockingRefresher, LibraryExchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    import requests

    from xoauth2_proxy.accounts.oauth_client import OAuthClient
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

_TENANT = "common"  # people of any organisation, and personal accounts
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


# An authority's metadata and when they are fetched again (monotonic), by URL and `ca_file`.
_MetadataCache: TypeAlias = "dict[tuple[str, Path | None], tuple[str, float]]"


class OutlookRefresher(BlockingRefresher):
    """Asks Microsoft's token endpoint."""

    def __init__(
        self, threads: Executor, exchange_seconds: float = endpoint.EXCHANGE_SECONDS
    ) -> None:
        super().__init__(threads, exchange_seconds)
        self._metadata: _MetadataCache = {}

    def _ask(self, grant: Grant) -> TokenResponse:
        client = grant.client
        if client.grant_type not in _SCOPES:
            raise TokenEndpointRefused(f"Microsoft does not support {client.grant_type}")
        check_client(grant)
        with endpoint.open_session(client.ca_file, self._exchange_seconds) as session:
            exchange = LibraryExchange(session, grant)
            http = _MsalHttpClient(session, grant, exchange, self._metadata)
            response = exchange.run("msal", lambda: _acquire(_application(client, http), grant))
        # Only metadata that led to a token is cached.
        if len(self._metadata) + len(http.discovered) > _MAX_AUTHORITIES:
            self._metadata.clear()
        self._metadata.update(http.discovered)
        return response


def _application(client: OAuthClient, http: _MsalHttpClient) -> msal.ClientApplication:
    settings: dict[str, Any] = {
        "authority": _authority(client),
        "http_client": http,
        "instance_discovery": False,  # the authority is configured; Microsoft may not know it
    }
    credential: object = client.client_secret
    if client.certificate is not None:
        credential = _certificate(client.certificate)
    if credential:
        return msal.ConfidentialClientApplication(client.client_id, credential, **settings)
    if client.grant_type is GrantType.CLIENT_CREDENTIALS:
        raise TokenEndpointRefused("client_credentials need a client_secret or a certificate")
    return msal.PublicClientApplication(client.client_id, **settings)


def _acquire(application: msal.ClientApplication, grant: Grant) -> None:
    """Have msal request tokens."""
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
    if client.grant_type is GrantType.CLIENT_CREDENTIALS and client.tenant in SHARED_TENANTS:
        raise TokenEndpointRefused("client_credentials need a tenant: its id or domain")
    authority = client.authority or MICROSOFT_AUTHORITY
    return f"{authority.rstrip('/')}/{client.tenant or _TENANT}"


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
        exchange: LibraryExchange,
        cache: _MetadataCache,
    ) -> None:
        self._session = session
        self._client = grant.client
        self._secrets = responses.secrets_of(grant)
        self._exchange = exchange
        self._cache = cache
        self.discovered: _MetadataCache = {}

    def get(self, url: str, **kwargs: object) -> _MsalResponse:
        """Return an authority's metadata; a configured token endpoint replaces them."""
        if named := self._client.token_endpoint:
            metadata = {"token_endpoint": named, "authorization_endpoint": named}
            return _MsalResponse(json.dumps(metadata))
        key = (url, self._client.ca_file)
        text, stale_at = self._cache.get(key, ("", 0.0))
        if stale_at <= time.monotonic():
            response = endpoint.send_request(self._session, "GET", url)
            responses.json_object(response, self._secrets)
            text = response.text
            self.discovered[key] = text, time.monotonic() + _METADATA_SECONDS
        return _MsalResponse(text)

    def post(
        self,
        url: str,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **kwargs: object,
    ) -> _MsalResponse:
        """Return the response to a token request, with no more than msal needs."""
        form = {**(data or {}), **dict(self._client.parameters)}
        return _MsalResponse(self._exchange.send(url, form, headers))

    def close(self) -> None:
        """Do nothing: the refresher closes the session."""
