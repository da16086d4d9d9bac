"""Interprets a token endpoint's response: tokens, or one of three errors. RFC 6749 §5.

Error texts are for an operator's log: the endpoint's own words, without secrets.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import USUAL_LIFETIME_SECONDS, TokenResponse
from xoauth2_proxy.redaction import MIN_SECRET_CHARACTERS, redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import requests

    from xoauth2_proxy.oauth.grant import Grant

_REVOKED = frozenset(
    {"invalid_grant", "interaction_required", "consent_required", "login_required"}
)
_TRANSIENT = frozenset(
    {
        "temporarily_unavailable",  # RFC 6749 §4.1.2.1
        "server_error",
        "slow_down",  # RFC 8628 §3.5
        "internal_failure",  # Google
        "rate_limit_exceeded",
        "too_many_requests",
    }
)
# Microsoft says `invalid_grant` here although the grant is valid: smart lockout, a client in a
# loop, services that are down or slow.
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes (2026-11)
_TRANSIENT_AADSTS = frozenset({50053, 50196, 90033, 90006, 90012, 50000, 90024})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})

_MAX_RETRY_AFTER_SECONDS = 3600.0  # as in msal; a longer time is cut to this
_MAX_LIFETIME_SECONDS = 366 * 86400.0
_MAX_WORDS = 300  # characters of an error's description
_ERROR_WORD = re.compile(r"[\w.:/ -]{1,64}", re.ASCII)
_AADSTS = re.compile(r"\bAADSTS(\d{4,8})\b")


def json_object(
    response: requests.Response, secrets: Collection[str] = (), *, is_signed_in: bool = True
) -> dict[str, object]:
    """Return the JSON object of a successful response.

    A response with `error` is not successful, whatever its status. Arguments: as `token_error`.
    Raises `TokenError`: it is not successful, or not a JSON object.
    """
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if not response.ok or (isinstance(body, dict) and body.get("error")):
        answer = body if isinstance(body, dict) else {}
        headers = response.headers
        raise token_error(response.status_code, answer, headers, secrets, is_signed_in=is_signed_in)
    if not isinstance(body, dict):
        raise TokenEndpointUnavailable("the response is not a JSON object")
    return body


def token_response(body: Mapping[str, object]) -> TokenResponse:
    """Return the tokens of a successful response. RFC 6749 §5.1.

    Raises `TokenEndpointUnavailable`: it contains no access token, or an invalid one.
    """
    access_token = _text(body.get("access_token"))
    if not access_token:
        raise TokenEndpointUnavailable("the response contains no access token")
    if not (access_token.isascii() and access_token.isprintable()):  # RFC 6749 appendix A.12
        raise TokenEndpointUnavailable("the access token in the response has invalid characters")
    # Not standardised: the names used by Google, Keycloak and Microsoft.
    refresh_seconds = seconds(body.get("refresh_token_expires_in")) or seconds(
        body.get("refresh_expires_in")
    )
    return TokenResponse(
        access_token=access_token,
        lifetime_seconds=seconds(body.get("expires_in")) or USUAL_LIFETIME_SECONDS,
        refresh_token=_text(body.get("refresh_token")),
        refresh_token_lifetime_seconds=refresh_seconds,
        id_token=_text(body.get("id_token")),
        scope=_text(body.get("scope")),
    )


def tokens_of(
    response: requests.Response, grant: Grant, secrets: Collection[str] = ()
) -> TokenResponse:
    """Return the tokens of the response to a request for the grant. Raises `TokenError`.

    `secrets` are the request's, besides the grant's own.
    """
    is_signed_in = grant.client.grant_type is GrantType.REFRESH_TOKEN
    secrets = [*secrets_of(grant), *secrets]
    return token_response(json_object(response, secrets, is_signed_in=is_signed_in))


def token_error(
    status: int,
    body: Mapping[str, object],
    headers: Mapping[str, str],
    secrets: Collection[str] = (),
    *,
    is_signed_in: bool = True,
) -> TokenError:
    """Return the error for an endpoint's refusal. RFC 6749 §5.2.

    The error's text does not quote the request's `secrets`. If no person signed in
    (`is_signed_in`), none can sign in again, and the operator must act.
    """
    error = _error_word(body, secrets)
    description = _redacted(_description(body), secrets)
    text = error or f"HTTP {status}"
    if suberror := _redacted(_text(body.get("suberror") or body.get("error_subtype")), secrets):
        text += f" ({suberror})"
    if description:
        text += f": {description}"
    is_transient = (
        status >= 500
        or status in _TRANSIENT_STATUSES
        or not error
        or error in _TRANSIENT
        or not _TRANSIENT_AADSTS.isdisjoint(_aadsts(body))
    )
    if is_transient:
        return TokenEndpointUnavailable(text, _retry_after_seconds(headers), oauth_error=error)
    if error in _REVOKED and is_signed_in:
        return GrantRevoked(text, oauth_error=error)
    return TokenEndpointRefused(text, oauth_error=error)


def secrets_of(grant: Grant) -> list[str]:
    """Return the secrets of a request for the grant, which no text may quote."""
    client = grant.client
    values = [value for _, value in client.parameters if len(value) >= MIN_SECRET_CHARACTERS]
    return [grant.refresh_token, client.refresh_token, client.client_secret, *values]


def _error_word(body: Mapping[str, object], secrets: Collection[str]) -> str:
    error = body.get("error")
    if isinstance(error, dict):  # Google's other form: {"error": {"status": …, "message": …}}
        error = error.get("status")
    word = _text(error)
    secrets = [secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS]
    return word if _ERROR_WORD.fullmatch(word) and _redacted(word, secrets) == word else ""


def _description(body: Mapping[str, object]) -> str:
    error = body.get("error")
    if isinstance(error, dict):
        return _text(error.get("message"))
    return _text(body.get("error_description"))


def _aadsts(body: Mapping[str, object]) -> set[int]:
    codes = {int(code) for code in _AADSTS.findall(_description(body))}
    listed = body.get("error_codes")
    if isinstance(listed, list):
        codes |= {code for code in listed if isinstance(code, int)}
    return codes


def _redacted(text: str, secrets: Collection[str]) -> str:
    return redacted(text, secrets, _MAX_WORDS)


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Return the seconds of `Retry-After` (RFC 9110 §10.2.3); 0 if it is missing or invalid."""
    value = next((headers[name] for name in headers if name.lower() == "retry-after"), "").strip()
    if value.isascii() and value.isdecimal():
        seconds = float(value[:9])
    else:
        try:
            until = parsedate_to_datetime(value)
            left = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
        except (ValueError, OverflowError, TypeError):  # depending on what is wrong with the date
            return 0.0
        seconds = left.total_seconds()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


def seconds(value: object) -> float:
    """Return a positive number of seconds, or 0; some endpoints send strings."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return 0.0
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return min(seconds, _MAX_LIFETIME_SECONDS) if isfinite(seconds) and seconds > 0 else 0.0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
