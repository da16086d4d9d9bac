"""Reads the requests of clients, and refuses them. RFC 6749 §2.3 and §5.2."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from aiohttp import web

from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.refusals import format_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.sandbox.oauth.clients import Client, Clients

UNCACHED = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 §5.1


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the parameters of a form; {} if the body is none."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    pairs = (await request.post()).items()
    return {key: value for key, value in pairs if isinstance(value, str)}


def credentials(request: web.Request, form: Mapping[str, str]) -> tuple[str, str]:
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


def proven(clients: Clients, client_id: str, secret: str) -> Client:
    """Return the client. Raises `OAuthError`: it is not known, or the secret is wrong."""
    client = clients.find(client_id)
    if client is None or not client.proves_itself(secret):
        raise OAuthError("invalid_client", "The client or its secret is wrong.", 401)
    return client


def bearer_token(request: web.Request) -> str:
    """Return the access token of the request's header; "" if there is none. RFC 6750 §2.1."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def address_of(request: web.Request) -> str:
    """Return address and port of the client."""
    return format_address(request.transport and request.transport.get_extra_info("peername"))


def issuer_of(request: web.Request) -> str:
    """Return the issuer as the client knows it; its name is one of loopback: others are refused."""
    return f"http://{request.host}"


def error_response(word: str, description: str, status: int) -> web.Response:
    """Return the response to a refused request."""
    headers = dict(UNCACHED)
    if status == 401:  # RFC 6749 §5.2
        headers["WWW-Authenticate"] = 'Basic realm="sandbox"'
    body = {"error": word, "error_description": description}
    return web.json_response(body, status=status, headers=headers)
