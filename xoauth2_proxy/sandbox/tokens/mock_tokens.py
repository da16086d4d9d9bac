"""Access tokens of the sandbox provider: they look like a real provider's and are really signed.

A process that can read the signing key in the state directory can mint one; the sandbox accepts no
others. Only the sandbox accepts them, so they are worth nothing outside this machine.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal

from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OctKey

from xoauth2_proxy.sandbox.state_directory import KEY_BYTES

_ALGORITHM = "HS256"
# An unknown token may contain anything, such as JSON that is nested too deeply.
_MALFORMED = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError)

ISSUER = "xoauth2-proxy-sandbox"
_AUDIENCE = "smtp"
_GOOGLE_PREFIX = "ya29."
_MICROSOFT_PREFIX = "EwAoA8l6BAAURNvFLcaAUzrq"
_PREFIXES = dict.fromkeys(("gmail.com", "googlemail.com"), _GOOGLE_PREFIX) | dict.fromkeys(
    ("outlook.com", "hotmail.com", "live.com", "msn.com"), _MICROSOFT_PREFIX
)


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


class MockTokenInvalid(ValueError):
    """The sandbox does not accept the token; `reason` says why, without quoting it."""

    def __init__(self, reason: Literal["malformed", "signature", "expired"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class MockClaims:
    """The claims of a valid token."""

    mailbox: str  # lower case
    issued_at: float  # seconds since the epoch
    expires_at: float  # seconds since the epoch
    token_id: str


class MockTokens:
    """Mints and verifies the sandbox's access tokens with one signing key."""

    __slots__ = ("_signer", "_usual_prefix")

    def __init__(self, key: bytes, *, is_like_microsofts: bool = False) -> None:
        """`is_like_microsofts` chooses the look of tokens for mailboxes of unknown domains."""
        self._usual_prefix = _MICROSOFT_PREFIX if is_like_microsofts else _GOOGLE_PREFIX
        self._signer = Signer(key)

    def mint(self, mailbox: str, *, ttl_seconds: float = 3600.0) -> str:
        """Return a new token for `mailbox`; no two are equal.

        A `ttl_seconds` of zero or less makes a token that has expired already.
        """
        now = time.time()
        claims = {
            "iss": ISSUER,
            "aud": _AUDIENCE,
            "sub": mailbox.lower(),
            "iat": now,
            "exp": now + ttl_seconds,
            "jti": secrets.token_hex(8),
        }
        domain = mailbox.lower().rpartition("@")[2]
        return _PREFIXES.get(domain, self._usual_prefix) + self._signer.sign(claims)

    def verify(self, token: str) -> str:
        """Return the mailbox, in lower case, that the token is for.

        Raises `MockTokenInvalid`: the token is malformed, not signed with this key, or expired.
        """
        return self.read(token).mailbox

    def read(self, token: str) -> MockClaims:
        """Return the claims of a valid token.

        Raises `MockTokenInvalid`: the token is malformed, not signed with this key, or expired.
        """
        try:
            prefix = next(
                one for one in (_GOOGLE_PREFIX, _MICROSOFT_PREFIX, "") if token.startswith(one)
            )
            if not prefix:
                raise MockTokenInvalid("malformed")
            claims = self._signer.verify(token.removeprefix(prefix), _AUDIENCE)
            if claims["iss"] != ISSUER:
                raise MockTokenInvalid("malformed")
            mailbox, token_id = str(claims["sub"]), str(claims["jti"])
            issued_at, expires_at = float(claims["iat"]), float(claims["exp"])
        except BadSignature:
            raise MockTokenInvalid("signature") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            raise MockTokenInvalid("malformed") from None
        if expires_at <= time.time():
            raise MockTokenInvalid("expired")
        return MockClaims(mailbox.lower(), issued_at, expires_at, token_id)
