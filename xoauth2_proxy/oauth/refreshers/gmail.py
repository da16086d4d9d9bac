"""Access tokens from Google: for a person who signed in, or for a service account.

The only importer of google-auth, which builds and signs the requests. Answers are judged here,
before it sees them: it would try again and sleep by itself, and raise errors that quote answers.
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
from xoauth2_proxy.oauth.refreshers import nobody_signed_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    import requests
    from google.auth.credentials import Credentials

    from xoauth2_proxy.oauth.grant import Grant, Issued

_TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105
_SCOPE = "https://mail.google.com/"  # the only one that opens SMTP


class GmailRefresher:
    """Asks Google's token endpoint, in a thread: google-auth blocks."""

    def __init__(
        self, threads: Executor, exchange_seconds: float = endpoint.EXCHANGE_SECONDS
    ) -> None:
        self._threads = threads
        self._exchange_seconds = exchange_seconds

    async def refresh(self, grant: Grant) -> Issued:
        """Return a new access token, and the refresh token if Google replaced it.

        Raises:
            GrantRevoked: a person must sign in, again or for the first time.
            TokenEndpointRefused: the operator must mend the set-up.
            TokenEndpointUnavailable: transient.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask, grant)

    def _ask(self, grant: Grant) -> Issued:
        of_google = _credentials(grant)
        with endpoint.open_session(grant.client.ca_file, self._exchange_seconds) as session:
            exchange = _Exchange(session, grant)
            try:
                of_google.refresh(exchange)  # type: ignore[no-untyped-call]
            except TokenError:
                raise
            except Exception as error:
                # It could not sign: errors of many kinds, whose texts may quote what it was given.
                # Behind a good answer nothing may fail: a refresh token would be lost.
                if exchange.issued is None:
                    raise TokenEndpointRefused(f"google-auth: {type(error).__name__}") from None
        if exchange.issued is None:
            raise TokenEndpointUnavailable("google-auth asked nobody")
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
        case GrantType.REFRESH_TOKEN if grant.refresh_token:
            # Without scopes the token has all that were granted, whatever is configured now.
            return credentials.Credentials(  # type: ignore[no-untyped-call]
                None,
                refresh_token=grant.refresh_token,
                token_uri=token_endpoint,
                client_id=client.client_id,
                client_secret=client.client_secret,
            )
        case GrantType.REFRESH_TOKEN if not client.client_id:
            raise TokenEndpointRefused(
                "no client_id is configured; clients must bring their own token"
            )
        case GrantType.REFRESH_TOKEN:
            raise nobody_signed_in(grant.mailbox)
    raise TokenEndpointRefused(f"Google knows no {client.grant_type} for mail")


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


class _Exchange(transport.Request):
    """google-auth's way to the token endpoint: by our session, and with good answers only."""

    def __init__(self, session: requests.Session, grant: Grant) -> None:
        self._session = session
        self._grant = grant
        self.issued: Issued | None = None  # what the endpoint answered

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: object,
    ) -> _Answer:
        """Return the answer to a request, or raise one of our errors."""
        more = urlencode(self._grant.client.parameters).encode()
        content = b"&".join(part for part in (body, more) if part)
        response = endpoint.ask(self._session, method, url, content, headers)
        answer = endpoint.document(
            response,
            endpoint.secrets_of(self._grant),
            is_signed_in=self._grant.client.grant_type is GrantType.REFRESH_TOKEN,
        )
        self.issued = endpoint.issued(answer)
        return _Answer(self.issued)


class _Answer(transport.Response):
    """What google-auth is told: nothing that it could stumble over."""

    def __init__(self, issued: Issued) -> None:
        self._data = json.dumps({"access_token": issued.access_token}).encode()

    @property
    def status(self) -> int:
        """Good: other answers do not get here."""
        return HTTPStatus.OK

    @property
    def headers(self) -> Mapping[str, str]:
        """Return none."""
        return {}

    @property
    def data(self) -> bytes:
        """The body."""
        return self._data
