"""Sends the requests of a sign-in to an authorization server. Blocking, for threads.

Authlib builds the requests; `endpoint` sends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xoauth2_proxy.errors import (
    SignInRefused,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth import endpoint, responses
from xoauth2_proxy.oauth.attempt import Attempt, DeviceAttempt, SignInResult
from xoauth2_proxy.oauth.authlib_client import authlib_client, basic_credentials, request_tokens
from xoauth2_proxy.oauth.authorization import identity
from xoauth2_proxy.oauth.discovery import discover
from xoauth2_proxy.oauth.grant import Grant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from xoauth2_proxy.oauth.authorization.provider_profile import ProviderProfile
    from xoauth2_proxy.oauth.grant import TokenResponse

_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"  # RFC 8628 §3.4
_INTERVAL_SECONDS = 5.0  # RFC 8628 §3.2: where the server names none
_MAX_INTERVAL_SECONDS = 60.0
_DEVICE_SECONDS = 900.0  # Microsoft's; RFC 8628 §3.2 requires that the server names it
_MAX_DEVICE_SECONDS = 3600.0
_INVALID = frozenset({"invalid_token", "invalid_grant"})


def find_metadata(session: requests.Session, profile: ProviderProfile) -> dict[str, Any]:
    """Return the provider's metadata; configured endpoints replace its own.

    Raises `TokenError`: it cannot be fetched, or lacks an endpoint.
    """
    client = profile.account.oauth
    found = discover(session, profile.issuer, ca_file=client.ca_file) if profile.issuer else {}
    configured = {
        "authorization_endpoint": client.authorization_endpoint,
        "token_endpoint": client.token_endpoint,
    }
    found |= {name: url for name, url in configured.items() if url}
    if not found.get("token_endpoint"):
        raise TokenEndpointRefused(
            f"{profile.name}: neither issuer nor oauth_token_url is configured"
        )
    return found


def authorization_url(profile: ProviderProfile, attempt: Attempt) -> str:
    """Return the sign-in page's address; sends nothing. Raises `TokenEndpointRefused`."""
    url = profile.metadata.get("authorization_endpoint")
    if not isinstance(url, str) or not url:
        raise TokenEndpointRefused(f"{profile.name} has no authorization_endpoint")
    parameters = profile.authorization_parameters
    if profile.has_openid:
        parameters |= {"nonce": attempt.nonce}
    location, _ = _authlib(profile, None, attempt.redirect_uri).create_authorization_url(
        url, state=attempt.state, code_verifier=attempt.code_verifier, **parameters
    )
    return str(location)


def exchange_code(
    session: requests.Session, profile: ProviderProfile, attempt: Attempt, code: str
) -> SignInResult:
    """Return the tokens for the code, and who signed in. RFC 6749 §4.1.3.

    Raises: as `AuthorizationServer.finish`, and `GrantRevoked` for an invalid code.
    """
    issued = request_tokens(
        _authlib(profile, session, attempt.redirect_uri),
        profile.metadata["token_endpoint"],
        _grant(profile),
        grant_type="authorization_code",
        code=code,
        code_verifier=attempt.code_verifier,
    )
    return _signed_in(session, profile, issued, attempt.nonce)


def ask_for_device_code(session: requests.Session, profile: ProviderProfile) -> DeviceAttempt:
    """Return the code for the person to type. RFC 8628 §3.1–3.2. Raises `TokenError`."""
    url = str(profile.metadata["device_authorization_endpoint"])
    response = _post(session, profile, url, {"scope": profile.scope} | profile.targets)
    return _device_attempt(responses.json_object(response, responses.secrets_of(_grant(profile))))


def poll(session: requests.Session, profile: ProviderProfile, device_code: str) -> SignInResult:
    """Return the tokens and who signed in. RFC 8628 §3.4.

    Raises `TokenError`: with an `oauth_error` of RFC 8628 §3.5 until the person has signed in.
    """
    issued = request_tokens(
        _authlib(profile, session),
        profile.metadata["token_endpoint"],
        _grant(profile),
        grant_type=_DEVICE_CODE,
        device_code=device_code,
    )
    return _signed_in(session, profile, issued, nonce="")


def revoke(session: requests.Session, profile: ProviderProfile, refresh_token: str) -> bool:
    """Revoke the token; return False if the provider cannot. RFC 7009.

    Raises `TokenError`: the token may still be valid.
    """
    url = profile.metadata.get("revocation_endpoint")
    if not isinstance(url, str) or not url:
        return False
    response = _post(session, profile, url, {"token": refresh_token})
    if response.ok:
        return True
    try:
        responses.json_object(response, [*responses.secrets_of(_grant(profile)), refresh_token])
    except TokenError as error:
        if error.oauth_error == "unsupported_token_type":  # RFC 7009 §2.2.1
            return False
        # For an invalid token RFC 7009 §2.2 requires status 200; Google says this instead.
        if error.oauth_error not in _INVALID:
            raise
    return True


def _authlib(
    profile: ProviderProfile, session: requests.Session | None, redirect_uri: str = ""
) -> Any:  # noqa: ANN401 - Authlib has no types
    client, method = profile.account.oauth, profile.authentication_method
    return authlib_client(session, client, method, scope=profile.scope, redirect_uri=redirect_uri)


def _grant(profile: ProviderProfile) -> Grant:
    return Grant(mailbox=profile.account.email, client=profile.account.oauth)


def _post(
    session: requests.Session, profile: ProviderProfile, url: str, form: Mapping[str, str]
) -> requests.Response:
    method = profile.authentication_method
    auth = basic_credentials(profile.account.oauth, method)
    auth = auth or _authlib(profile, session).client_auth(method)
    return endpoint.send_request(session, "POST", url, form, {"Accept": "application/json"}, auth)


def _signed_in(
    session: requests.Session, profile: ProviderProfile, issued: TokenResponse, nonce: str
) -> SignInResult:
    _check_granted(profile, issued)
    client = profile.account.oauth
    person = identity.Identity()
    if issued.id_token and profile.has_openid:
        person = identity.verified_identity(
            session, profile.metadata, issued.id_token, client.client_id, nonce
        )
    if not person.name and not profile.is_microsoft:  # Microsoft's takes tokens for Graph only
        person = identity.userinfo_identity(
            session, profile.metadata, issued.access_token, person.subject
        )
    return SignInResult(
        issued=issued,
        identity=person.name,
        subject=person.subject,
        is_vouched=bool(person.name) and not profile.is_multi_tenant,
    )


def _check_granted(profile: ProviderProfile, issued: TokenResponse) -> None:
    """Raise unless the tokens include the mail scope and a refresh token."""
    granted = issued.scope.split()
    missing = [scope for scope in profile.account.oauth.scopes if scope not in granted]
    if profile.is_google and granted and missing:
        # Google shows a box for each scope, and people leave them empty.
        raise SignInRefused(f"Google did not grant {missing[0]}: sign in again and tick its box")
    if issued.refresh_token:
        return
    if profile.is_google:
        raise SignInRefused(
            "Google issued no refresh token: the OAuth client must be of the type Desktop app or "
            "Web application"
        )
    raise SignInRefused(
        f"{profile.name} issued no refresh token, so the mailbox could send for an hour only: "
        "allow this client offline access (the scope offline_access, the grant type "
        "refresh_token), add the scope to `scopes` if the provider does not list it, and sign in "
        "again"
    )


def _device_attempt(answer: Mapping[str, object]) -> DeviceAttempt:
    texts = {
        name: value
        for name in ("device_code", "user_code", "verification_uri", "verification_uri_complete")
        if isinstance(value := answer.get(name), str)
    }
    # Some servers, Google's among them, use the name of an early draft.
    texts.setdefault("verification_uri", str(answer.get("verification_url", "")))
    if not (texts.get("device_code") and texts.get("user_code") and texts["verification_uri"]):
        raise TokenEndpointUnavailable("the answer to the device request cannot be read")
    return DeviceAttempt(
        **texts,
        expires_in_seconds=_seconds(answer.get("expires_in"), _DEVICE_SECONDS, _MAX_DEVICE_SECONDS),
        interval_seconds=_seconds(answer.get("interval"), _INTERVAL_SECONDS, _MAX_INTERVAL_SECONDS),
    )


def _seconds(value: object, default: float, maximum: float) -> float:
    return min(max(responses.seconds(value) or default, 1.0), maximum)
