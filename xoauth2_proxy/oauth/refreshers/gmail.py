"""Access tokens from Google: for a person who signed in, or for a service account.

The only importer of google-auth, which builds and signs the requests. Responses are checked here,
before it sees them: it would retry and sleep by itself, and raise errors that quote responses.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from google.auth import transport
from google.oauth2 import credentials, service_account

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
    from google.auth.credentials import Credentials

    from xoauth2_proxy.oauth.grant import Grant, TokenResponse

_TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105
_SCOPE = "https://mail.google.com/"  # the only one that opens SMTP


class GmailRefresher:
    """Asks Google's token endpoint, in a thread: google-auth blocks."""

    def __init__(
        self, threads: Executor, exchange_seconds: float = endpoint.EXCHANGE_SECONDS
    ) -> None:
        self._threads = threads
        self._exchange_seconds = exchange_seconds

    async def refresh(self, grant: Grant) -> TokenResponse:
        """Return a new access token, and the refresh token if Google replaced it.

        Raises:
            GrantRevoked: a person must sign in, again or for the first time.
            TokenEndpointRefused: the operator must correct the configuration.
            TokenEndpointUnavailable: transient.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask, grant)

    def _ask(self, grant: Grant) -> TokenResponse:
        google_credentials = _credentials(grant)
        with endpoint.open_session(grant.client.ca_file, self._exchange_seconds) as session:
            exchange = _GoogleTransport(session, grant)
            try:
                google_credentials.refresh(exchange)  # type: ignore[no-untyped-call]
            except TokenError:
                raise
            except Exception as error:
                # Signing failed, with errors of many types whose texts may quote the key. After a
                # good response nothing may fail: its refresh token would be lost.
                if exchange.issued is None:
                    raise TokenEndpointRefused(f"google-auth: {type(error).__name__}") from None
        if exchange.issued is None:
            raise TokenEndpointUnavailable("google-auth sent no request")
        return exchange.issued


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

    def __init__(self, session: requests.Session, grant: Grant) -> None:
        self._session = session
        self._grant = grant
        self.issued: TokenResponse | None = None  # what the endpoint answered

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: object,
    ) -> _GoogleResponse:
        """Return the response. Raises one of our errors."""
        more = urlencode(self._grant.client.parameters).encode()
        content = b"&".join(part for part in (body, more) if part)
        response = endpoint.send_request(self._session, method, url, content, headers)
        answer = endpoint.json_object(
            response,
            endpoint.secrets_of(self._grant),
            is_signed_in=self._grant.client.grant_type is GrantType.REFRESH_TOKEN,
        )
        self.issued = endpoint.token_response(answer)
        return _GoogleResponse(self.issued)


class _GoogleResponse(transport.Response):
    """The least that google-auth needs of a response; more could make it fail."""

    def __init__(self, issued: TokenResponse) -> None:
        self._data = json.dumps({"access_token": issued.access_token}).encode()

    @property
    def status(self) -> int:
        """Always 200: other responses were raised as errors."""
        return HTTPStatus.OK

    @property
    def headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def data(self) -> bytes:
        """The body."""
        return self._data
