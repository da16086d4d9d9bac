"""Fetches an authorization server's metadata from its issuer identifier.

By OpenID Connect Discovery 1.0, or RFC 8414 if the server has only that. A document is trusted
because TLS identifies its server, and only if it names the issuer that was asked for.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xoauth2_proxy.errors import TokenEndpointRefused, TokenEndpointUnavailable
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.oauth import endpoint, responses

if TYPE_CHECKING:
    import requests

_FRESH_SECONDS = 3600.0  # endpoints move once in years, and the old ones work on for a while
_MAX_CACHED = 256  # more issuers than any relay has

_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
)
# For a tenant's alias (common, consumers, a domain) Microsoft Entra names a template or the
# tenant's id: learn.microsoft.com/entra/identity-platform/v2-protocols-oidc, 2026-09.
_ENTRA_PATH = re.compile(r"/[^/]+/v2\.0")
_ENTRA_TENANT_PATH = re.compile(r"/(\{tenantid\}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/v2\.0")

_Key = tuple[str, Path | None]  # issuer, and the trusted certificates

_cache: dict[_Key, tuple[float, dict[str, Any]]] = {}
_cache_lock = threading.Lock()


def discover(
    session: requests.Session, issuer: str, *needs: str, ca_file: Path | None = None
) -> dict[str, Any]:
    """Return the metadata of `issuer`, at most an hour old; for threads, it blocks.

    `ca_file` is the session's: the cache is separate for each. The result has `token_endpoint` and
    each key in `needs`, as text. Its `issuer` is the one in ID tokens; Microsoft's has a template
    for the tenant.

    Raises:
        TokenEndpointRefused: there is no document, or it cannot be used; the text says why.
        TokenEndpointUnavailable: transient.
    """
    key = (issuer, ca_file)
    now = time.monotonic()
    with _cache_lock:
        at, metadata = _cache.get(key, (-_FRESH_SECONDS, {}))
    if now - at >= _FRESH_SECONDS:
        metadata = _fetch(session, issuer)
        _check(issuer, metadata)
        # A server on this machine is near, and its configuration may change often.
        if urlsplit(issuer).scheme == "https":
            with _cache_lock:
                _cache.pop(key, None)
                while len(_cache) >= _MAX_CACHED:
                    del _cache[next(iter(_cache))]
                _cache[key] = (now, metadata)
    for name in ("token_endpoint", *needs):
        if not isinstance(metadata.get(name), str) or not metadata[name]:
            raise TokenEndpointRefused(f"the metadata of {issuer} has no {name}")
    return dict(metadata)


def _fetch(session: requests.Session, issuer: str) -> dict[str, Any]:
    parts = urlsplit(issuer)
    root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    for url in (
        f"{root}{path}/.well-known/openid-configuration",
        f"{root}/.well-known/oauth-authorization-server{path}",  # RFC 8414 §3.1
    ):
        response = endpoint.send_request(
            session, "GET", url, headers={"Accept": "application/json"}
        )
        if response.status_code != 404:
            return _metadata_in(response, url)
    raise TokenEndpointRefused(f"{issuer} publishes no metadata; check that it is the issuer")


def _metadata_in(response: requests.Response, url: str) -> dict[str, Any]:
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise responses.token_error(status, {}, response.headers)
    if status != 200:
        raise TokenEndpointRefused(f"{url} answers HTTP {status}")
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        # Usually a maintenance page or a captive portal, rather than a wrong issuer.
        raise TokenEndpointUnavailable(f"{url} does not answer with metadata")
    return document


def _check(issuer: str, metadata: dict[str, Any]) -> None:
    named = metadata.get("issuer")
    if not isinstance(named, str) or not named:
        raise TokenEndpointRefused(f"the metadata of {issuer} has no issuer")
    if not _is_same_issuer(issuer, named):
        raise TokenEndpointRefused(
            f"the metadata of {issuer} names another issuer, {named[:200]!r}"
        )
    for name in _ENDPOINTS:
        url = metadata.get(name)
        if isinstance(url, str) and url and not _is_safe(url):
            raise TokenEndpointRefused(f"the {name} of {issuer} is not https")


def _is_same_issuer(asked: str, named: str) -> bool:
    """Whether two identifiers name one issuer; OpenID Connect Discovery 1.0 §4.3.

    A final slash makes no difference: the document's address is the same.
    """
    if asked.rstrip("/") == named.rstrip("/"):
        return True
    one, other = urlsplit(asked), urlsplit(named)
    return (
        (one.scheme, one.netloc) == (other.scheme, other.netloc)
        and _ENTRA_PATH.fullmatch(one.path.rstrip("/")) is not None
        and _ENTRA_TENANT_PATH.fullmatch(other.path.rstrip("/")) is not None
    )


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "http":
        return is_loopback(host)
    return parts.scheme == "https" and bool(host)
