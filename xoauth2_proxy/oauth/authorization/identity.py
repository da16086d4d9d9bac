"""Finds out who signed in, from an ID token or the userinfo endpoint. OpenID Connect Core.

Blocking, for threads. Signatures are checked with the issuer's published keys; a token that is
unsigned, or signed with the client's secret, is not accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from xoauth2_proxy.errors import SignInRefused, TokenError
from xoauth2_proxy.oauth import endpoint, responses
from xoauth2_proxy.oauth.authorization.provider_profile import ANY_TENANT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
_KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
_MAX_KEYS = 50  # Microsoft publishes about ten
_CLOCK_SKEW_SECONDS = 120  # typical of a machine without time synchronisation
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_MAX_NAME = 320  # characters of an address: RFC 5321 §4.5.3.1, 64 + 1 + 255


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as the provider identifies them; "" for what it does not say."""

    name: str = ""  # usually an e-mail address
    subject: str = ""  # the provider's stable id


def verified_identity(
    session: requests.Session,
    metadata: Mapping[str, Any],
    id_token: str,
    client_id: str,
    nonce: str = "",
) -> Identity:
    """Return the person that the ID token names; its signature and claims are checked (§3.1.3.7).

    `nonce` is the authorization request's; "" if it had none.

    Raises:
        SignInRefused: the token is not valid.
        TokenError: the issuer's keys cannot be fetched.
    """
    keys = _keys(session, str(metadata.get("jwks_uri", "")))
    try:
        claims = jwt.decode(id_token, keys, algorithms=_ALGORITHMS).claims
        has_more_audiences = isinstance(claims.get("aud"), list) and len(claims["aud"]) > 1
        jwt.JWTClaimsRegistry(
            leeway=_CLOCK_SKEW_SECONDS,
            iss={"essential": True, "value": _issuer(metadata, claims)},
            aud={"essential": True, "value": client_id},
            exp={"essential": True},
            sub={"essential": True},
            azp={"essential": has_more_audiences, "value": client_id},
            nonce={"essential": True, "value": nonce} if nonce else {},
        ).validate(claims)
    except (JoseError, ValueError) as error:
        raise SignInRefused(
            f"the ID token of {metadata.get('issuer')} is not valid: {_reason(error)}"
        ) from None
    return _identity(claims)


def userinfo_identity(
    session: requests.Session, metadata: Mapping[str, Any], access_token: str, subject: str = ""
) -> Identity:
    """Return the person that the userinfo endpoint names (§5.3); if it names none, only `subject`.

    A response about another subject is ignored (§5.3.2).
    """
    url = metadata.get("userinfo_endpoint")
    if not isinstance(url, str) or not url:
        return Identity(subject=subject)
    headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
    try:
        response = endpoint.send_request(session, "GET", url, headers=headers)
        claims = responses.json_object(response, (access_token,))
    except TokenError:
        return Identity(subject=subject)  # usually the token is for mail only
    found = _identity(claims)
    if subject and found.subject != subject:
        return Identity(subject=subject)
    return found


def _identity(claims: Mapping[str, Any]) -> Identity:
    names = [claims.get("preferred_username"), claims.get("upn")]
    # Some servers write booleans as strings.
    if claims.get("email_verified") not in (False, "false"):
        names.insert(0, claims.get("email"))
    subject = claims.get("sub")
    name = next((name for name in map(_name, names) if name), "")
    return Identity(name=name, subject=subject if isinstance(subject, str) else "")


def _name(claim: object) -> str:
    is_name = isinstance(claim, str) and len(claim) <= _MAX_NAME and claim.isprintable()
    return str(claim) if is_name else ""


def _issuer(metadata: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Return the required `iss`: Microsoft's common metadata has a placeholder for the tenant."""
    issuer = str(metadata["issuer"])
    tenant = str(claims.get("tid", ""))
    return issuer.replace(ANY_TENANT, tenant) if _GUID.fullmatch(tenant) else issuer


def _keys(session: requests.Session, url: str) -> KeySet:
    headers = {"Accept": "application/json"}
    document = responses.json_object(endpoint.send_request(session, "GET", url, headers=headers))
    listed = document.get("keys")
    usable = [
        key
        for key in (listed if isinstance(listed, list) else [])[:_MAX_KEYS]
        if isinstance(key, dict) and key.get("kty") in _KEY_TYPES and key.get("use") != "enc"
    ]
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError):
        raise SignInRefused(f"the keys at {url} cannot be used") from None


def _reason(error: Exception) -> str:
    """Return the reason, without the token's content."""
    if isinstance(error, JoseError):
        claim = getattr(error, "claim", "")
        return f"{error.error} ({claim})" if claim else str(error.error)
    return "it cannot be read"
