"""Signs and verifies claims: JSON Web Tokens with HS256 (RFC 7519, RFC 7518 §3.2)."""

from __future__ import annotations

import json
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OctKey

from xoauth2_proxy.sandbox.state_directory import KEY_BYTES

_ALGORITHM = "HS256"
# An unknown token may contain anything, such as JSON that is nested too deeply.
_MALFORMED = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class BadSignature(ValueError):
    """The claims are signed with another key, or were altered."""


class Signer:
    """Signs and verifies claims with one key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"the signing key needs at least {KEY_BYTES} octets")
        self._key = OctKey.import_key(key)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return the signed token."""
        return jwt.encode({"alg": _ALGORITHM}, claims, self._key)

    def verify(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token that is meant for `audience`; its end is not looked at.

        Raises:
            BadSignature: the token is not signed with this key.
            ValueError: it is no signed token, or meant for another audience.
        """
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
        except BadSignatureError:
            raise BadSignature("the signature is not that of the claims") from None
        except _MALFORMED:
            raise ValueError("not a signed token") from None
        if claims.get("aud") != audience:
            raise ValueError("another audience")
        return claims


def unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims of a token without checking its signature; empty if it has none."""
    try:
        claims = json.loads(jws.extract_compact(token.encode()).payload)
    except _MALFORMED:
        return {}
    return claims if isinstance(claims, dict) else {}
