"""Access tokens from Google: for a person who signed in, or for a service account.

The only importer of google-auth, which builds and signs the requests. Responses are checked here,
before it sees them: it would retry and sleep by itself, and raise errors that quote responses.
"""

from __future__ import annotations

import json
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from google.auth import transport
from google.oauth2 import credentials, service_account

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.refreshers import check_client
from xoauth2_proxy.oauth.refreshers.blocking import BlockingRefresher, LibraryExchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from google.auth.credentials import Credentials

    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

_TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105
_SCOPE = "https://mail.google.com/"  # the only one that opens SMTP


class GmailRefresher(BlockingRefresher):
    """Asks Google's token endpoint."""

    def _ask(self, grant: Grant) -> TokenResponse:
        google_credentials = _credentials(grant)
        with endpoint.open_session(grant.client.ca_file, self._exchange_seconds) as session:
            exchange = LibraryExchange(session, grant)
            request = _GoogleTransport(exchange, urlencode(grant.client.parameters).encode())
            return exchange.run("google-auth", partial(google_credentials.refresh, request))


def _credentials(grant: Grant) -> Credentials:
    client = grant.client
    token_endpoint = client.token_endpoint or _TOKEN_ENDPOINT
    match client.grant_type:
        case GrantType.SERVICE_ACCOUNT:
            if client.service_account is None:
                raise TokenEndpointRefused("service_account names no key file")
            scopes = list(client.scopes) or [_SCOPE]
            return _service_account(
                client.service_account, token_endpoint, scopes=scopes, subject=grant.mailbox
            )
        case GrantType.REFRESH_TOKEN:
            check_client(grant)
            # Without scopes the token has all that were granted, whatever is configured now.
            return credentials.Credentials(  # type: ignore[no-untyped-call]
                None,
                refresh_token=grant.refresh_token,
                token_uri=token_endpoint,
                client_id=client.client_id,
                client_secret=client.client_secret,
            )
    raise TokenEndpointRefused(f"Google does not support {client.grant_type} for mail")


def _service_account(key_file: Path, token_endpoint: str, **acting: object) -> Credentials:
    try:
        info = json.loads(key_file.read_text())
    except OSError as error:
        raise TokenEndpointRefused(f"{key_file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise TokenEndpointRefused(f"{key_file} is not JSON") from None
    try:
        signing: Credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            {**info, "token_uri": token_endpoint}, **acting
        )
    except Exception:  # of a dozen kinds, depending on what is wrong with the key
        raise TokenEndpointRefused(f"{key_file} is not a service account's key file") from None
    return signing


class _GoogleTransport(transport.Request):
    """Sends google-auth's requests through our session, and returns good responses only."""

    def __init__(self, exchange: LibraryExchange, parameters: bytes) -> None:
        self._exchange = exchange
        self._parameters = parameters  # of the configuration, form-encoded

    def __call__(
        self,
        url: str,
        method: str = "POST",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: object,
    ) -> _GoogleResponse:
        """Return the response. Raises one of our errors."""
        form = b"&".join(part for part in (body, self._parameters) if part)
        return _GoogleResponse(self._exchange.send(url, form, headers).encode())


class _GoogleResponse(transport.Response):
    status = HTTPStatus.OK  # other responses were raised as errors
    headers: Mapping[str, str] = {}
    data = b""

    def __init__(self, data: bytes) -> None:
        self.data = data
