"""Asks any OAuth 2.0 token endpoint for access tokens; only importer of Authlib besides signing in.

For the grants of a person (RFC 6749 §6) and of an application (§4.4). The endpoint is configured,
or discovered from the issuer.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

import requests
from authlib.integrations.requests_client import OAuth2Session

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.discovery import discover
from xoauth2_proxy.oauth.refreshers import check_client
from xoauth2_proxy.oauth.refreshers.blocking import BlockingRefresher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authlib.oauth2.auth import ClientAuth

    from xoauth2_proxy.accounts.oauth_client import OAuthClient
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

_BASIC, _POST, _NONE = "client_secret_basic", "client_secret_post", "none"  # RFC 7591 §2


class OidcRefresher(BlockingRefresher):
    """Asks any provider that follows the standards."""

    def _ask(self, grant: Grant) -> TokenResponse:
        check_client(grant)
        client = grant.client
        _check_grant_type(client)
        url, method = _token_endpoint(client)
        responses: list[TokenResponse] = []

        def read(response: requests.Response) -> requests.Response:
            responses.append(endpoint.tokens_of(response, grant))
            return response

        with OAuth2Session(
            client.client_id, client.client_secret, token_endpoint_auth_method=method
        ) as session:
            endpoint.apply_rules(session, client.ca_file, self._exchange_seconds)
            session.register_client_auth_method((_BASIC, _add_basic))
            session.register_compliance_hook("refresh_token_response", read)
            session.register_compliance_hook("access_token_response", read)
            try:
                _request(session, url, grant)
            except requests.RequestException as error:
                raise endpoint.connection_error(error, url) from None
            except (TypeError, ValueError):
                # Authlib fails on an `expires_in` that is not a number, which `read` has accepted.
                if not responses:
                    raise
        return responses[0]


def _check_grant_type(client: OAuthClient) -> None:
    if client.grant_type is GrantType.SERVICE_ACCOUNT:
        raise TokenEndpointRefused("service accounts work with Google only")
    if client.grant_type is GrantType.CLIENT_CREDENTIALS and not client.client_secret:
        raise TokenEndpointRefused("client_credentials need a client_secret")


def _token_endpoint(client: OAuthClient) -> tuple[str, str]:
    """Return the token endpoint, and how the client authenticates there."""
    if client.token_endpoint:
        return client.token_endpoint, _POST if client.client_secret else _NONE
    if not client.issuer:
        raise TokenEndpointRefused("neither issuer nor oauth_token_url is configured")
    with endpoint.open_session(client.ca_file) as session:
        metadata = discover(session, client.issuer, ca_file=client.ca_file)
    return str(metadata["token_endpoint"]), _auth_method(client, metadata)


def _auth_method(client: OAuthClient, metadata: Mapping[str, object]) -> str:
    if not client.client_secret:
        return _NONE
    supported = metadata.get("token_endpoint_auth_methods_supported")
    if not isinstance(supported, list) or _BASIC in supported:
        return _BASIC  # also where nothing is said: OpenID Connect Discovery 1.0 §3
    if _POST in supported:
        return _POST
    raise TokenEndpointRefused(f"{client.issuer} does not accept a client_secret")


def _request(session: OAuth2Session, url: str, grant: Grant) -> None:
    client = grant.client
    # As a body, not as arguments: those would reach requests under names like `verify`.
    more = urlencode(client.parameters)
    if client.grant_type is GrantType.CLIENT_CREDENTIALS:
        scope = " ".join(client.scopes)
        session.fetch_token(url, body=more, grant_type=client.grant_type.value, scope=scope)
    else:
        # Without a scope, which means the one that was granted: RFC 6749 §6.
        session.refresh_token(url, refresh_token=grant.refresh_token, body=more)


def _add_basic(
    client: ClientAuth, method: str, uri: str, headers: dict[str, str], body: str
) -> tuple[str, dict[str, str], str]:
    """Add the client's id and secret, each form-encoded as RFC 6749 §2.3.1 says."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return uri, headers, body
