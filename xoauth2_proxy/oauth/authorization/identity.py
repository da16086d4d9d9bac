"""Who signed in: what an ID token proves and what the userinfo endpoint tells. OpenID Connect Core.

Blocking, for threads. A signature is checked with the keys that the issuer publishes; an unsigned
token, or one that is signed with the client's secret, proves nothing here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from xoauth2_proxy.errors import SignInRefused, TokenError
from xoauth2_proxy.oauth import endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
_KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
_MAX_KEYS = 50  # Microsoft publishes about ten
_CLOCK_SKEW_SECONDS = 120  # as much as a machine without time synchronisation is soon off
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ENTRA_TENANT = "{tenantid}"
_MAX_NAME = 320  # characters of an address: RFC 5321 §4.5.3.1, 64 + 1 + 255


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as the provider knows them; "" for what it does not tell."""

    name: str = ""  # an e-mail address, as a rule
    subject: str = ""  # the provider's own stable id


def proven(
    session: requests.Session,
    metadata: Mapping[str, Any],
    id_token: str,
    client_id: str,
    nonce: str = "",
) -> Identity:
    """Return whom the ID token names, once its signature and its claims are checked (§3.1.3.7).

    `nonce` is what the authorization request held; "" where there was none.

    Raises:
        SignInRefused: the token is not what it must be.
        TokenError: the issuer's keys cannot be had.
    """
    keys = _keys(session, str(metadata.get("jwks_uri", "")))
    try:
        claims = jwt.decode(id_token, keys, algorithms=_ALGORITHMS).claims
        jwt.JWTClaimsRegistry(
            leeway=_CLOCK_SKEW_SECONDS,
            iss={"essential": True, "value": _issuer(metadata, claims)},
            aud={"essential": True, "value": client_id},
            exp={"essential": True},
            sub={"essential": True},
            azp={"essential": _has_more_audiences(claims), "value": client_id},
            nonce={"essential": True, "value": nonce} if nonce else {},
        ).validate(claims)
    except (JoseError, ValueError) as error:
        raise SignInRefused(
            f"the ID token of {metadata.get('issuer')} is not valid: {_reason(error)}"
        ) from None
    return _identity(claims)


def told(
    session: requests.Session, metadata: Mapping[str, Any], access_token: str, subject: str = ""
) -> Identity:
    """Return whom the userinfo endpoint names (§5.3); nobody, where it does not answer.

    An answer about somebody else than `subject` is not believed (§5.3.2).
    """
    url = metadata.get("userinfo_endpoint")
    if not isinstance(url, str) or not url:
        return Identity(subject=subject)
    headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
    try:
        claims = endpoint.document(session.get(url, headers=headers), (access_token,))
    except (requests.RequestException, TokenError):
        return Identity(subject=subject)  # the token is for mail, as a rule, and not for this
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


def _has_more_audiences(claims: Mapping[str, Any]) -> bool:
    audiences = claims.get("aud")
    return isinstance(audiences, list) and len(audiences) > 1


def _issuer(metadata: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Return what `iss` must be: Microsoft's common metadata leave the tenant open."""
    issuer = str(metadata["issuer"])
    tenant = str(claims.get("tid", ""))
    return issuer.replace(_ENTRA_TENANT, tenant) if _GUID.fullmatch(tenant) else issuer


def _keys(session: requests.Session, url: str) -> KeySet:
    try:
        document = endpoint.document(session.get(url, headers={"Accept": "application/json"}))
    except requests.RequestException as error:
        raise endpoint.unreachable(error, url) from None
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
    """Return why, without the token's content."""
    if isinstance(error, JoseError):
        claim = getattr(error, "claim", "")
        return f"{error.error} ({claim})" if claim else str(error.error)
    return "it cannot be read"
