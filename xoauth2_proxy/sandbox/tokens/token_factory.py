"""Issues the sandbox's tokens: good and bad access tokens, and refresh tokens.

Used by the sandbox only, never by the proxy. Refresh tokens are signed as well: a sandbox that was
restarted accepts those that it issued before.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.mock_mailboxes import PLAIN_REFRESH_TOKEN
from xoauth2_proxy.sandbox.provider_settings import Rotation
from xoauth2_proxy.sandbox.tokens.mock_tokens import Signer

if TYPE_CHECKING:
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


@dataclass(slots=True)
class _Grant:
    newest: int  # serial number of the refresh token issued last
    is_over: bool = False


class TokenFactory:
    """Issues tokens for any mailbox: a mailbox exists as soon as a token names it."""

    def __init__(self, verifier: TokenVerifier, key: bytes, rotation: Rotation) -> None:
        self._verifier = verifier
        self._tokens = verifier.tokens
        self._signer = Signer(key)
        self._rotation = rotation
        self._grants: OrderedDict[str, _Grant] = OrderedDict()  # by family, oldest first

    def mint(self, mailbox: str, kind: TokenKind, ttl_seconds: float) -> str:
        """Return a new token of this kind.

        Raises `TooManyRevoked`: it was to be revoked, and no further one can be.
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
            self._verifier.revoke(token)
        return token

    def mailbox_of(self, refresh_token: str) -> str:
        """Return the mailbox of a refresh token, good or not; "" if it is not the sandbox's."""
        try:
            return self._read(refresh_token)[0]
        except GrantEnded:
            return ""

    def use(self, refresh_token: str) -> str:
        """Return the refresh token that replaces this one; "": it remains good.

        Raises `GrantEnded`: the sandbox has not issued it, or it is no longer good.
        """
        mailbox, family, serial = self._read(refresh_token)
        # Unknown: issued before a restart, or so long ago that it was evicted.
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
        return self._signer.sign(claims)

    def _read(self, refresh_token: str) -> tuple[str, str, int]:
        """Return mailbox, family and serial number. Raises `GrantEnded`."""
        if refresh_token.startswith(PLAIN_REFRESH_TOKEN):
            mailbox = refresh_token.removeprefix(PLAIN_REFRESH_TOKEN).lower()
            if "@" not in mailbox:
                raise GrantEnded("The refresh token names no mailbox.")
            return mailbox, refresh_token, 0
        try:
            claims = self._signer.verify(refresh_token, _PURPOSE)
            return str(claims["sub"]), str(claims["family"]), int(claims["serial"])
        except (KeyError, TypeError, ValueError):
            raise GrantEnded("The refresh token is not one of the sandbox's.") from None
