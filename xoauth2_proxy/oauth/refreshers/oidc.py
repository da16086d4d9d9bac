"""Asks any OAuth 2.0 token endpoint for access tokens, with Authlib.

For the grants of a person (RFC 6749 §6) and of an application (§4.4). The endpoint is configured,
or discovered from the issuer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.authlib_client import (
    NONE,
    POST,
    authentication_method,
    authlib_client,
    request_tokens,
)
from xoauth2_proxy.oauth.discovery import discover
from xoauth2_proxy.oauth.refreshers import check_client
from xoauth2_proxy.oauth.refreshers.blocking import BlockingRefresher

if TYPE_CHECKING:
    import requests

    from xoauth2_proxy.accounts.oauth_client import OAuthClient
    from xoauth2_proxy.oauth.grant import Grant, TokenResponse


class OidcRefresher(BlockingRefresher):
    """Asks any provider that follows the standards."""

    def _ask(self, grant: Grant) -> TokenResponse:
        check_client(grant)
        client = grant.client
        form = {"grant_type": client.grant_type.value}
        match client.grant_type:
            case GrantType.REFRESH_TOKEN:
                # Without a scope, which means the one that was granted: RFC 6749 §6.
                form["refresh_token"] = grant.refresh_token
            case GrantType.CLIENT_CREDENTIALS:
                if not client.client_secret:
                    raise TokenEndpointRefused("client_credentials need a client_secret")
                form["scope"] = " ".join(client.scopes)
            case GrantType.SERVICE_ACCOUNT:
                raise TokenEndpointRefused("service accounts work with Google only")
        with endpoint.open_session(client.ca_file, self._exchange_seconds) as session:
            url, method = _token_endpoint(session, client)
            return request_tokens(authlib_client(session, client, method), url, grant, **form)


def _token_endpoint(session: requests.Session, client: OAuthClient) -> tuple[str, str]:
    """Return the token endpoint, and how the client authenticates there."""
    if client.token_endpoint:
        return client.token_endpoint, POST if client.client_secret else NONE
    if not client.issuer:
        raise TokenEndpointRefused("neither issuer nor oauth_token_url is configured")
    metadata = discover(session, client.issuer, ca_file=client.ca_file)
    method = authentication_method(client, metadata)
    if method == POST and POST not in metadata["token_endpoint_auth_methods_supported"]:
        raise TokenEndpointRefused(f"{client.issuer} does not accept a client_secret")
    return metadata["token_endpoint"], method
