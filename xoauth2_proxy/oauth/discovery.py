"""Finds the endpoints of an authorization server from its issuer's name.

OpenID Connect Discovery 1.0, then RFC 8414 where a server has only that. What a document says is
believed because TLS says who served it, and only if it speaks of the issuer that was asked for.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from xoauth2_proxy.errors import TokenEndpointRefused, TokenEndpointUnavailable
from xoauth2_proxy.oauth import endpoint

_FRESH_SECONDS = 3600.0  # endpoints move once in years, and then the old ones stay for a while
_MAX_KEPT = 256  # more issuers than any relay has

_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Microsoft Entra answers for a tenant's alias (common, consumers, a domain) with a template or with
# the tenant's id: learn.microsoft.com/entra/identity-platform/v2-protocols-oidc, 2026-09.
_ENTRA_PATH = re.compile(r"/[^/]+/v2\.0")
_ENTRA_TENANT_PATH = re.compile(r"/(\{tenantid\}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/v2\.0")

_Key = tuple[str, Path | None]  # issuer, and whose certificates are trusted

_kept: dict[_Key, tuple[float, dict[str, Any]]] = {}
_kept_lock = threading.Lock()


def discover(
    session: requests.Session, issuer: str, *needs: str, ca_file: Path | None = None
) -> dict[str, Any]:
    """Return the metadata of `issuer`, at most an hour old; for threads, it blocks.

    `ca_file` is the one that the session was opened with: what one trusts is not told to others.
    The result has `token_endpoint` and each of the keys in `needs`, as text; its `issuer` is the
    one that ID tokens name, with a template instead of the tenant in Microsoft's case.

    Raises:
        TokenEndpointRefused: there is no such document, or it cannot be used; the text says why.
        TokenEndpointUnavailable: transient.
    """
    key = (issuer, ca_file)
    now = time.monotonic()
    with _kept_lock:
        at, metadata = _kept.get(key, (-_FRESH_SECONDS, {}))
    if now - at >= _FRESH_SECONDS:
        metadata = _checked(issuer, _fetch(session, issuer))
        _keep(key, now, metadata)
    for name in ("token_endpoint", *needs):
        if not isinstance(metadata.get(name), str) or not metadata[name]:
            raise TokenEndpointRefused(f"the metadata of {issuer} has no {name}")
    return dict(metadata)


def _keep(key: _Key, now: float, metadata: dict[str, Any]) -> None:
    if urlsplit(key[0]).scheme != "https":
        return  # a server on this machine: near, and being tried out with one set-up after another
    with _kept_lock:
        _kept.pop(key, None)
        while len(_kept) >= _MAX_KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (now, metadata)


def _fetch(session: requests.Session, issuer: str) -> dict[str, Any]:
    for url in _addresses(issuer):
        try:
            response = session.get(url, headers={"Accept": "application/json"})
        except requests.RequestException as error:
            raise endpoint.unreachable(error, url) from None
        if response.status_code != 404:
            return _document(response, url)
    raise TokenEndpointRefused(f"{issuer} publishes no metadata: is it the issuer?")


def _addresses(issuer: str) -> tuple[str, str]:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{root}{path}/.well-known/openid-configuration",
        f"{root}/.well-known/oauth-authorization-server{path}",  # RFC 8414 §3.1
    )


def _document(response: requests.Response, url: str) -> dict[str, Any]:
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise endpoint.refusal(status, {}, response.headers)
    if status != 200:
        raise TokenEndpointRefused(f"{url} answers with HTTP {status}")
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        # A page of maintenance or of a portal in between, more often than a wrong issuer.
        raise TokenEndpointUnavailable(f"{url} answers with something other than metadata")
    return document


def _checked(issuer: str, metadata: dict[str, Any]) -> dict[str, Any]:
    named = metadata.get("issuer")
    if not isinstance(named, str) or not named:
        raise TokenEndpointRefused(f"the metadata of {issuer} has no issuer")
    if not _is_same(issuer, named):
        raise TokenEndpointRefused(
            f"the metadata of {issuer} is of another issuer, {named[:200]!r}"
        )
    for name in _ENDPOINTS:
        url = metadata.get(name)
        if isinstance(url, str) and url and not _is_safe(url):
            raise TokenEndpointRefused(f"the {name} of {issuer} is not https")
    return metadata


def _is_same(asked: str, named: str) -> bool:
    """Return whether two names are one issuer's; OpenID Connect Discovery 1.0 §4.3.

    A final slash makes no difference: the document's place is the same with and without.
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
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    )
