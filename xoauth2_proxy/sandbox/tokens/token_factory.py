"""Mints the sandbox's tokens, good and bad ones, and says what is in one.

Only here, never in the proxy. Refresh tokens are signed too, so a sandbox that was started again
knows those it gave out before.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import jwt

from xoauth2_proxy.sandbox.provider_settings import Rotation
from xoauth2_proxy.sandbox.refusals import shown_mailbox
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.provider_state import ProviderState
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

# A refresh token that anybody can write into a configuration: this, and the mailbox.
PLAIN_REFRESH_TOKEN = "mock-refresh-token:"  # noqa: S105 - worth nothing outside the sandbox

_ISSUER = "xoauth2-proxy-sandbox"  # of access tokens
_PURPOSE = "refresh"
_ALGORITHM = "HS256"
_MAX_FAMILIES = 10_000
_SHOWN_CLAIMS = ("iss", "aud", "sub", "iat", "exp", "jti")
_ELSEWHERE = "somebody.else@example.com"


class TokenKind(StrEnum):
    """What is wrong with a token, if anything."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TAMPERED = "tampered"  # the signature is not that of its claims
    WRONG_MAILBOX = "wrong-mailbox"  # good, for another mailbox
    REFRESH = "refresh"  # a refresh token of a new grant, as if somebody had signed in


class GrantEnded(Exception):
    """The refresh token is not good, or no longer; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class _Grant:
    newest: int  # serial number of the refresh token given out last
    is_over: bool = False


class TokenFactory:
    """Makes tokens for any mailbox; there are no others than those that tokens name."""

    def __init__(self, provider: ProviderState, key: bytes, rotation: Rotation) -> None:
        self._provider = provider
        self._tokens: MockTokens = provider.tokens
        self._key = key
        self._rotation = rotation
        self._grants: OrderedDict[str, _Grant] = OrderedDict()  # by family, oldest first

    def mint(self, mailbox: str, kind: TokenKind, ttl_seconds: float) -> str:
        """Return a new token of this kind.

        Raises:
            TooManyRevoked: it was to be revoked, and no further one can be.
        """
        match kind:
            case TokenKind.REFRESH:
                return self._refresh_token(mailbox, secrets.token_hex(8), 0)
            case TokenKind.EXPIRED:
                return self._tokens.mint(mailbox, ttl_seconds=-1.0)
            case TokenKind.WRONG_MAILBOX:
                return self._tokens.mint(_ELSEWHERE, ttl_seconds=ttl_seconds)
        token = self._tokens.mint(mailbox, ttl_seconds=ttl_seconds)
        if kind is TokenKind.TAMPERED:
            head, _, signature = token.rpartition(".")
            return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
        if kind is TokenKind.REVOKED:
            self._provider.revoke(token)
        return token

    def mailbox_of(self, refresh_token: str) -> str:
        """Return whose refresh token it is, good or not; "" if it is none of the sandbox's."""
        try:
            return self._read(refresh_token)[0]
        except GrantEnded:
            return ""

    def use(self, refresh_token: str) -> str:
        """Return the refresh token that takes the place of this one; "": it stays.

        Raises:
            GrantEnded: it is none of the sandbox's, or good no longer.
        """
        mailbox, family, serial = self._read(refresh_token)
        # Unknown are those of before a restart, and those given out longest ago.
        grant = self._grants.setdefault(family, _Grant(serial))
        self._grants.move_to_end(family)
        if len(self._grants) > _MAX_FAMILIES:
            self._grants.popitem(last=False)
        if grant.is_over:
            raise GrantEnded("The grant was revoked.")
        if serial < grant.newest and self._rotation is Rotation.STRICT:
            grant.is_over = True
            raise GrantEnded("The refresh token was used before; the grant is revoked.")
        if serial < grant.newest and self._rotation is Rotation.ONCE:
            raise GrantEnded("The refresh token was used before.")
        if self._rotation is Rotation.NONE:
            return ""
        grant.newest = max(grant.newest, serial) + 1
        return self._refresh_token(mailbox, family, grant.newest)

    def _refresh_token(self, mailbox: str, family: str, serial: int) -> str:
        claims = {
            "aud": _PURPOSE,
            "sub": mailbox.lower(),
            "family": family,
            "serial": serial,
            "iat": time.time(),
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def _read(self, refresh_token: str) -> tuple[str, str, int]:
        if refresh_token.startswith(PLAIN_REFRESH_TOKEN):
            mailbox = refresh_token.removeprefix(PLAIN_REFRESH_TOKEN).lower()
            if "@" not in mailbox:
                raise GrantEnded("The refresh token names no mailbox.")
            return mailbox, refresh_token, 0
        try:
            claims = jwt.decode(
                refresh_token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_PURPOSE,
                options={"verify_iat": False},
            )
            return str(claims["sub"]), str(claims["family"]), int(claims["serial"])
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise GrantEnded("The refresh token is not one of the sandbox's.") from None


def explain(provider: ProviderState, token: str) -> dict[str, object]:
    """Return what a token says and whether it is good; of others than mock tokens, nothing."""
    claims = _claims(token)
    if claims is None:
        return {"is_mock_token": False, "is_valid": False, "reason": "not a mock token"}
    try:
        read = provider.tokens.read(token)
    except MockTokenInvalid as error:
        reason = str(error.reason)
    else:
        reason = "revoked" if provider.has_revoked(read.token_id, read.issued_at) else ""
    left = _seconds_left(claims.get("exp"))
    return {
        "is_mock_token": True,
        "is_valid": not reason,
        "reason": reason,
        "mailbox": str(claims.get("sub", "")),
        "seconds_left": left,
        "claims": {name: claims[name] for name in _SHOWN_CLAIMS if name in claims},
    }


def _seconds_left(expires_at: object) -> float | None:
    if not isinstance(expires_at, int | float):
        return None
    try:
        return float(expires_at) - time.time()
    except OverflowError:  # the claims of a token that is refused are anybody's
        return None


def why_not(provider: ProviderState, mailbox: str, token: str) -> str:
    """Return in words why a token that is refused does not open the mailbox; never quotes it."""
    found = explain(provider, token)
    if not found["is_mock_token"]:
        return "the token is none that a sandbox has minted"
    whose, left = found["mailbox"], found["seconds_left"]
    match found["reason"]:
        case "signature":
            return "the token was altered, or is signed with another key (another state directory)"
        case "expired" if isinstance(left, float):
            return f"the token expired {-left:.0f} s ago"
        case "" | "revoked" if whose != mailbox:
            claimed = shown_mailbox(mailbox) or "something that is no mailbox"
            return f"the token is of {whose}, the login says {claimed}"
        case "revoked":
            return "the token was revoked"
    return "the token is malformed: what is before or in its claims is not as the sandbox mints it"


def _claims(token: str) -> dict[str, Any] | None:
    """Return the claims of an access token of the sandbox, verified or not; else None."""
    start = token.find("eyJ")  # how every JWT begins, behind the prefix that makes it look real
    if start < 0:
        return None
    try:
        claims: dict[str, Any] = jwt.decode(token[start:], options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, TypeError):
        return None
    return claims if claims.get("iss") == _ISSUER else None
