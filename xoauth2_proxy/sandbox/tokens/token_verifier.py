"""Whether an access token is good, and the real reason if it is not."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.refusals import shown_mailbox
from xoauth2_proxy.sandbox.tokens.mock_tokens import (
    ISSUER,
    MockTokenInvalid,
    MockTokens,
)
from xoauth2_proxy.sandbox.tokens.signing import unverified_claims

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockClaims

MAX_REVOKED = 100_000  # that have not expired; some 25 MB

_FORGED = "the token was altered, or is signed with another key (another state directory)"
_SHOWN_CLAIMS = ("iss", "aud", "sub", "iat", "exp", "jti")


class TooManyRevoked(ValueError):
    """No further token can be revoked: all that were revoked have to be remembered."""

    def __init__(self) -> None:
        super().__init__(
            f"{MAX_REVOKED} tokens are revoked that have not expired; "
            "wait for the first to expire, or revoke all that were minted until now"
        )


class Revocations:
    """Remembers every revoked token that could still be good. Times: seconds since the epoch."""

    __slots__ = ("_ends", "_ids", "_valid_from")

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._ends: list[tuple[float, str]] = []  # a heap: the next to expire is first
        self._valid_from = 0.0  # older tokens are revoked

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, token_id: str, expires_at: float, now: float) -> None:
        """Remember a token until it expires.

        Raises `TooManyRevoked`: there are 100,000 that have not expired.
        """
        while self._ends and self._ends[0][0] <= now:
            self._ids.discard(heapq.heappop(self._ends)[1])
        if token_id in self._ids:
            return
        if len(self._ids) >= MAX_REVOKED:
            raise TooManyRevoked
        self._ids.add(token_id)
        heapq.heappush(self._ends, (expires_at, token_id))

    def add_all(self, now: float) -> None:
        """Revoke every token that was issued until now."""
        self._valid_from = now
        self._ids.clear()
        self._ends.clear()

    def has(self, token_id: str, issued_at: float) -> bool:
        """Return whether a token with these claims was revoked."""
        return issued_at <= self._valid_from or token_id in self._ids


class TokenVerifier:
    """Verifies access tokens against the signing key and the revocations."""

    def __init__(self, tokens: MockTokens) -> None:
        self.tokens = tokens
        self._revocations = Revocations()
        self._ended_grants: set[str] = set()
        self.grants_begun = 0  # since the start

    def objection(self, mailbox: str, token: str) -> str:
        """Return why the token is not good for this mailbox now; "" if it is."""
        claims, reason = self._read(token)
        if claims is not None and claims.mailbox != mailbox:
            return "wrong_mailbox"
        return reason

    def revoke(self, token: str) -> None:
        """Refuse this token from now on.

        Raises `TooManyRevoked`: there are 100,000 that have not expired.
        """
        try:
            claims = self.tokens.read(token)
        except MockTokenInvalid:
            return  # it is refused anyway
        self._revocations.add(claims.token_id, claims.expires_at, time.time())

    def end_grant(self, grant: str) -> None:
        """Refuse every token that was or will be issued for this grant.

        Raises `TooManyRevoked`: 100,000 grants have ended.
        """
        if len(self._ended_grants) >= MAX_REVOKED:
            raise TooManyRevoked
        self._ended_grants.add(grant)

    @property
    def grants_ended(self) -> int:
        """How many grants were revoked since the start."""
        return len(self._ended_grants)

    def has_ended(self, grant: str) -> bool:
        """Return whether the grant was ended."""
        return grant in self._ended_grants

    def revoke_all(self) -> None:
        """Refuse every token that was minted until now."""
        self._revocations.add_all(time.time())

    def explain(self, token: str) -> dict[str, object]:
        """Return the claims of a token and whether it is good; of others than mock tokens, none."""
        start = token.find("eyJ")  # how every JWT begins, after the prefix
        claims = unverified_claims(token[start:]) if start >= 0 else {}
        if claims.get("iss") not in (ISSUER, self.tokens.issuer):
            return {"is_mock_token": False, "is_valid": False, "reason": "not a mock token"}
        reason = self._read(token)[1]
        return {
            "is_mock_token": True,
            "is_valid": not reason,
            "reason": reason,
            "mailbox": str(claims.get("sub", "")),
            "seconds_left": _seconds_left(claims.get("exp")),
            "claims": {name: claims[name] for name in _SHOWN_CLAIMS if name in claims},
        }

    def explain_refusal(self, mailbox: str, token: str) -> str:
        """Return in words why a refused token is not good for the mailbox; never quotes it."""
        explained = self.explain(token)
        if not explained["is_mock_token"]:
            return "the token was not minted by a sandbox"
        owner, left = explained["mailbox"], explained["seconds_left"]
        match explained["reason"]:
            case "signature":
                return _FORGED
            case "expired" if isinstance(left, float):
                return f"the token expired {-left:.0f} s ago"
            case "" | "revoked" if owner != mailbox:
                claimed = shown_mailbox(mailbox) or "something that is no mailbox"
                return f"the token is of {owner}, the login says {claimed}"
            case "revoked":
                return "the token was revoked"
        return "the token is malformed: its prefix or its claims differ from what the sandbox mints"

    def _read(self, token: str) -> tuple[MockClaims | None, str]:
        """Return the claims of a token that has not expired, and why it is not good."""
        try:
            claims = self.tokens.read(token)
        except MockTokenInvalid as error:
            return None, error.reason
        is_revoked = self._revocations.has(claims.token_id, claims.issued_at)
        is_revoked |= self.has_ended(claims.grant)
        return claims, "revoked" if is_revoked else ""


def _seconds_left(expires_at: object) -> float | None:
    if not isinstance(expires_at, int | float):
        return None
    try:
        return float(expires_at) - time.time()
    except OverflowError:  # unverified claims may be anything
        return None
