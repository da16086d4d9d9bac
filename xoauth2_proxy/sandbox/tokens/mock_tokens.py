"""Access tokens of the sandbox provider: they look like a real provider's and are really signed.

A process that can read the signing key in the state directory can mint one; the sandbox accepts no
others. Only the sandbox accepts them, so they are worth nothing outside this machine.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xoauth2_proxy.sandbox.tokens.signing import BadSignature, Signer, algorithm_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ISSUER = "xoauth2-proxy-sandbox"
_AUDIENCE = "smtp"
_GOOGLE_PREFIX = "ya29."
_MICROSOFT_PREFIX = "EwAoA8l6BAAURNvFLcaAUzrq"
_PREFIXES = dict.fromkeys(("gmail.com", "googlemail.com"), _GOOGLE_PREFIX) | dict.fromkeys(
    ("outlook.com", "hotmail.com", "live.com", "msn.com"), _MICROSOFT_PREFIX
)


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
    grant: str = ""  # that it was issued for; "": none


class MockTokens:
    """Mints and verifies the sandbox's access tokens.

    Tokens are signed with the key of the state directory and look like a provider's. With a
    `signer` they are signed by it and plain JWTs; those with the other key are accepted too, since
    the proxy mints them for its mock mailboxes.
    """

    def __init__(
        self,
        key: bytes,
        *,
        is_like_microsofts: bool = False,
        signer: Signer | None = None,
        leeway_seconds: float = 0.0,
        clock_skew_seconds: float = 0.0,
    ) -> None:
        """`is_like_microsofts` chooses the look of tokens for mailboxes of unknown domains.

        An expired token is accepted for `leeway_seconds` more. The clock of the one who mints is
        ahead of the true time by `clock_skew_seconds`, that of the one who verifies is right.
        """
        self._usual_prefix = _MICROSOFT_PREFIX if is_like_microsofts else _GOOGLE_PREFIX
        self._signer = Signer.with_secret(key)
        self._given_signer = signer
        self._leeway_seconds = leeway_seconds
        self._clock_skew_seconds = clock_skew_seconds
        self.issuer = ISSUER  # of the tokens that are plain JWTs

    def now(self) -> float:
        """Return the time by the clock of the one who mints, in seconds since the epoch."""
        return time.time() + self._clock_skew_seconds

    def mint(
        self, mailbox: str, *, ttl_seconds: float = 3600.0, more: Mapping[str, str] | None = None
    ) -> str:
        """Return a new token for `mailbox` with `more` claims; no two are equal.

        A `ttl_seconds` of zero or less makes a token that has expired already.
        """
        now = self.now()
        claims = {
            **(more or {}),
            "iss": self.issuer if self._given_signer else ISSUER,
            "aud": _AUDIENCE,
            "sub": mailbox.lower(),
            "iat": now,
            "exp": now + ttl_seconds,
            "jti": secrets.token_hex(8),
        }
        if self._given_signer is not None:
            return self._given_signer.sign(claims)
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
            signer, text = self._signer_of(token)
            claims = signer.verify(text, _AUDIENCE)
            if claims["iss"] not in (ISSUER, self.issuer):
                raise MockTokenInvalid("malformed")
            mailbox, token_id = str(claims["sub"]), str(claims["jti"])
            issued_at, expires_at = float(claims["iat"]), float(claims["exp"])
        except BadSignature:
            raise MockTokenInvalid("signature") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            raise MockTokenInvalid("malformed") from None
        if expires_at + self._leeway_seconds <= time.time():
            raise MockTokenInvalid("expired")
        return MockClaims(
            mailbox.lower(), issued_at, expires_at, token_id, str(claims.get("grant", ""))
        )

    def _signer_of(self, token: str) -> tuple[Signer, str]:
        """Return who must have signed the token, and the token without its prefix."""
        for prefix in (_GOOGLE_PREFIX, _MICROSOFT_PREFIX):
            if token.startswith(prefix):
                return self._signer, token.removeprefix(prefix)
        if self._given_signer is None or algorithm_of(token) != self._given_signer.algorithm:
            raise MockTokenInvalid("malformed")
        return self._given_signer, token
