"""Signs claims and verifies them, with a secret or with a key pair. RFC 7515, RFC 7519."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import ECKey, OctKey, RSAKey

from xoauth2_proxy.sandbox.provider_settings import SigningAlgorithm
from xoauth2_proxy.sandbox.state_directory import KEY_BYTES, load_or_create, sandbox_directory

if TYPE_CHECKING:
    from pathlib import Path

_RSA_BITS = 2048  # RFC 7518 §3.3: at least
_CURVE = "P-256"
# An unknown token may contain anything, such as JSON that is nested too deeply.
_MALFORMED = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class BadSignature(ValueError):
    """The claims are signed with another key, or were altered."""


class Signer:
    """Signs and verifies claims with one key."""

    __slots__ = ("_header", "_key", "algorithm")

    def __init__(self, algorithm: SigningAlgorithm, key: OctKey | RSAKey | ECKey) -> None:
        self.algorithm = algorithm
        self._key = key
        self._header = {"alg": algorithm.value}
        if not isinstance(key, OctKey):
            key.ensure_kid()
            self._header["kid"] = str(key.kid)

    @classmethod
    def with_secret(cls, secret: bytes) -> Signer:
        """Return the signer with HS256. Raises `ValueError`: the secret is too short."""
        if len(secret) < KEY_BYTES:
            raise ValueError(f"the signing key needs at least {KEY_BYTES} octets")
        return cls(SigningAlgorithm.HS256, OctKey.import_key(secret))

    @classmethod
    def with_key_pair(cls, algorithm: SigningAlgorithm, state_dir: Path) -> Signer:
        """Return the signer with the key pair kept under `state_dir`, created at the first call.

        Blocking: an RSA key takes a tenth of a second to make. Raises `ValueError`: the file holds
        no key.
        """
        kind: type[RSAKey | ECKey] = RSAKey if algorithm is SigningAlgorithm.RS256 else ECKey

        def created() -> bytes:
            made = RSAKey.generate_key(_RSA_BITS) if kind is RSAKey else ECKey.generate_key(_CURVE)
            return made.as_pem(private=True)

        name = f"{algorithm.value.lower()}-key.pem"
        pem = load_or_create(state_dir, name, created)
        try:
            return cls(algorithm, kind.import_key(pem))
        except (JoseError, ValueError):
            path = sandbox_directory(state_dir) / name
            raise ValueError(f"{path} holds no such key; delete it to get a new one") from None

    @property
    def public_key(self) -> dict[str, Any] | None:
        """The public key as a JWK (RFC 7517); None for a secret."""
        if isinstance(self._key, OctKey):
            return None
        return {
            **self._key.as_dict(private=False),
            "use": "sig",
            "alg": self.algorithm.value,
        }

    def sign(self, claims: dict[str, Any]) -> str:
        """Return the signed token."""
        return jwt.encode(self._header, claims, self._key)

    def verify(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token that is meant for `audience`; its end is not looked at.

        Raises:
            BadSignature: the token is not signed with this key.
            ValueError: it is no signed token, or meant for another audience.
        """
        try:
            claims = jwt.decode(token, self._key, algorithms=[self.algorithm.value]).claims
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


def algorithm_of(token: str) -> str:
    """Return the algorithm that a token's header names; "" if it has none."""
    try:
        return str(jws.extract_compact(token.encode()).headers()["alg"])
    except _MALFORMED:
        return ""
