"""Issues the sandbox's tokens: good and bad access tokens, and refresh tokens.

Refresh tokens are signed as well: a sandbox that was restarted accepts those that it issued before.
Access tokens name the grant that they were issued for, and end with it.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.mock_mailboxes import PLAIN_REFRESH_TOKEN
from xoauth2_proxy.sandbox.provider_settings import Rotation
from xoauth2_proxy.sandbox.tokens.signing import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.sandbox.tokens.token_verifier import TokenVerifier

_PURPOSE = "refresh"
_MAX_FAMILIES = 10_000
_ELSEWHERE = "somebody.else@example.com"


class TokenKind(StrEnum):
    """What is wrong with a token, if anything."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TAMPERED = "tampered"  # the signature is not that of its claims
    WRONG_MAILBOX = "wrong-mailbox"  # good, for another mailbox
    REFRESH = "refresh"  # a refresh token of a new grant, as after signing in


class GrantEnded(Exception):
    """The refresh token is not good, or no longer; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a refresh token says."""

    mailbox: str
    grant: str
    serial: int = 0
    client_id: str = ""  # that it was issued to; "": any
    scope: str = ""


class TokenFactory:
    """Issues tokens for any mailbox: a mailbox exists as soon as a token names it."""

    def __init__(self, verifier: TokenVerifier, key: bytes, rotation: Rotation) -> None:
        self._verifier = verifier
        self._tokens = verifier.tokens
        self._signer = Signer.with_secret(key)
        self._rotation = rotation
        # The serial number of the refresh token issued last, by grant; oldest grant first.
        self._newest: OrderedDict[str, int] = OrderedDict()

    def mint(
        self,
        mailbox: str,
        kind: TokenKind,
        ttl_seconds: float,
        more: Mapping[str, str] | None = None,
    ) -> str:
        """Return a new token of this kind; an access token has `more` claims.

        Raises `TooManyRevoked`: it was to be revoked, and no further one can be.
        """
        match kind:
            case TokenKind.REFRESH:
                return self.begin_grant(mailbox)[1]
            case TokenKind.EXPIRED:
                return self._tokens.mint(mailbox, ttl_seconds=-1.0, more=more)
            case TokenKind.WRONG_MAILBOX:
                return self._tokens.mint(_ELSEWHERE, ttl_seconds=ttl_seconds, more=more)
        token = self._tokens.mint(mailbox, ttl_seconds=ttl_seconds, more=more)
        if kind is TokenKind.TAMPERED:
            head, _, signature = token.rpartition(".")
            return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
        if kind is TokenKind.REVOKED:
            self._verifier.revoke(token)
        return token

    def begin_grant(self, mailbox: str, client_id: str = "", scope: str = "") -> tuple[str, str]:
        """Return the name of a new grant, and its first refresh token."""
        self._verifier.grants_begun += 1
        claims = RefreshClaims(mailbox.lower(), secrets.token_hex(8), 0, client_id, scope)
        return claims.grant, self._sign(claims)

    def end_grant(self, grant: str) -> None:
        """Let no token of this grant be good any more. Raises `TooManyRevoked`."""
        self._verifier.end_grant(grant)

    def use(self, refresh_token: str) -> tuple[RefreshClaims, str]:
        """Return what the token says, and the one that replaces it; "": it remains good.

        Raises `GrantEnded`: the sandbox has not issued it, or it is no longer good.
        """
        claims = self.read(refresh_token)
        # Unknown: issued before a restart, or so long ago that it was evicted.
        newest = self._newest.setdefault(claims.grant, claims.serial)
        self._newest.move_to_end(claims.grant)
        if len(self._newest) > _MAX_FAMILIES:
            self._newest.popitem(last=False)
        if self._verifier.has_ended(claims.grant):
            raise GrantEnded("The grant was revoked.")
        if claims.serial < newest and self._rotation is Rotation.STRICT:
            self._verifier.end_grant(claims.grant)
            raise GrantEnded("The refresh token was used before; the grant is revoked.")
        if claims.serial < newest and self._rotation is Rotation.ONCE:
            raise GrantEnded("The refresh token was used before.")
        if self._rotation is Rotation.NONE:
            return claims, ""
        serial = self._newest[claims.grant] = max(newest, claims.serial) + 1
        return claims, self._sign(replace(claims, serial=serial))

    def read(self, refresh_token: str) -> RefreshClaims:
        """Return what a refresh token says, whether its grant has ended or not.

        Raises `GrantEnded`: the sandbox has not issued it.
        """
        if refresh_token.startswith(PLAIN_REFRESH_TOKEN):
            mailbox = refresh_token.removeprefix(PLAIN_REFRESH_TOKEN).lower()
            if "@" not in mailbox:
                raise GrantEnded("The refresh token names no mailbox.")
            return RefreshClaims(mailbox, refresh_token)
        try:
            claims = self._signer.verify(refresh_token, _PURPOSE)
            return RefreshClaims(
                str(claims["sub"]),
                str(claims["family"]),
                int(claims["serial"]),
                str(claims.get("client_id", "")),
                str(claims.get("scope", "")),
            )
        except (KeyError, TypeError, ValueError):
            raise GrantEnded("The refresh token is not one of the sandbox's.") from None

    def _sign(self, claims: RefreshClaims) -> str:
        return self._signer.sign(
            {
                "aud": _PURPOSE,
                "sub": claims.mailbox,
                "family": claims.grant,
                "serial": claims.serial,
                "client_id": claims.client_id,
                "scope": claims.scope,
                "iat": time.time(),
            }
        )
