"""Authlib as a client of any OAuth 2.0 server: it builds the requests, and `endpoint` sends them.

Blocking, for threads. The only importer of Authlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

import requests
from authlib.integrations.requests_client.oauth2_session import OAuth2ClientAuth
from authlib.oauth2.client import OAuth2Client

from xoauth2_proxy.errors import TokenEndpointUnavailable
from xoauth2_proxy.oauth import endpoint, responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.oauth_client import OAuthClient
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

BASIC, POST, NONE = "client_secret_basic", "client_secret_post", "none"  # RFC 7591 §2


class _Client(OAuth2Client):  # type: ignore[misc] # Authlib has no types
    client_auth_class = OAuth2ClientAuth  # the one that requests can call


def authlib_client(
    session: requests.Session | None,
    client: OAuthClient,
    method: str,
    *,
    scope: str = "",
    redirect_uri: str = "",
) -> Any:  # noqa: ANN401 - Authlib has no types
    """Return Authlib's client; `method` is how it authenticates at the token endpoint."""
    return _Client(
        session,
        client_id=client.client_id,
        client_secret=client.client_secret or None,
        token_endpoint_auth_method=method,
        scope=scope or None,
        redirect_uri=redirect_uri or None,
        code_challenge_method="S256",
    )


def authentication_method(client: OAuthClient, metadata: Mapping[str, object]) -> str:
    """Return how the client authenticates at a server with this metadata. RFC 6749 §2.3."""
    if not client.client_secret:
        return NONE
    supported = metadata.get("token_endpoint_auth_methods_supported")
    if not isinstance(supported, list) or BASIC in supported:
        return BASIC  # also where nothing is said: OpenID Connect Discovery 1.0 §3
    return POST


def basic_credentials(client: OAuthClient, method: str) -> tuple[str, str] | None:
    """Return user name and password for HTTP Basic; None: Authlib puts them into the body.

    Authlib does not form-encode them, as RFC 6749 §2.3.1 requires.
    """
    if method != BASIC:
        return None
    return quote_plus(client.client_id), quote_plus(client.client_secret)


def request_tokens(authlib: Any, url: str, grant: Grant, **form: str) -> TokenResponse:  # noqa: ANN401
    """Return the token endpoint's response to `form`; no error quotes the form's values.

    Raises `TokenError`: there are no tokens.
    """
    received: list[TokenResponse] = []
    secrets = [value for name, value in form.items() if name not in ("grant_type", "scope")]

    def read(response: requests.Response) -> requests.Response:
        received.append(responses.tokens_of(response, grant, secrets))
        return response

    authlib.register_compliance_hook("access_token_response", read)
    auth = basic_credentials(grant.client, authlib.token_endpoint_auth_method)
    # As a body, not as arguments: those would reach requests under names like `verify`.
    parameters = urlencode(grant.client.parameters)
    try:
        authlib.fetch_token(url, body=parameters, auth=auth, **form)
    except requests.RequestException as error:
        raise endpoint.connection_error(error, url) from None
    except (TypeError, ValueError):
        pass  # Authlib fails on an `expires_in` that is not a number, which `read` has accepted
    if not received:  # not raised above: that error, which may quote secrets, would be its context
        raise TokenEndpointUnavailable("the response cannot be read")
    return received[0]
