"""Reads a token's claims and checks whether the sandbox accepts it; never shows foreign tokens.

A token may come from any source, so no claim is assumed to exist.
"""

from __future__ import annotations

import base64
import json
import math
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

TOKEN_TYPE = "Bearer"  # noqa: S105 - RFC 6750: what XOAUTH2 and OAUTHBEARER take, and no other
_SHOWN_CHARACTERS = 8  # of a shortened token, and no more than a quarter of it
_MAX_CLAIMS = 50
_JWT = re.compile(r"eyJ[\w-]*\.([\w-]+)\.[\w-]*\Z", re.ASCII)  # behind a prefix, if there is one
_BEARER = re.compile(r"auth=Bearer ([!-~]+)\x01\x01\Z", re.ASCII)
_REASONS = {
    "malformed": "not a token of any sandbox",
    "signature": "it was signed with another key, or changed afterwards",
    "mailbox": "it is another mailbox's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReading:
    """A token and the result of its inspection."""

    token: str = field(repr=False)
    reason: str  # "": valid; otherwise malformed, signature, expired or mailbox
    is_ours: bool  # signed with this state directory's key
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)  # true only if ours

    @property
    def is_valid(self) -> bool:
        """Whether the sandbox accepts it."""
        return not self.reason

    @property
    def told_reason(self) -> str:
        """Why it is not valid, in words."""
        if self.reason == "mailbox":
            return f"{_REASONS['mailbox']}: {self.mailbox}"
        return _REASONS.get(self.reason, self.reason)

    @property
    def mailbox(self) -> str:
        """Its mailbox; "" if it names none."""
        subject = self.claims.get("sub")
        return subject if isinstance(subject, str) and subject.isprintable() else ""

    @property
    def issued_at(self) -> str | None:
        """The time of issue (RFC 3339); None if it has none."""
        return _moment(self.claims.get("iat"))

    @property
    def expires_at(self) -> str | None:
        """The time of expiry; None if it has none."""
        return _moment(self.claims.get("exp"))

    @property
    def seconds_left(self) -> float | None:
        """The time until it expires, negative afterwards; None if it has no expiry."""
        expires_at = _number(self.claims.get("exp"))
        return None if expires_at is None else round(expires_at - time.time(), 3)

    @property
    def lifetime_seconds(self) -> float | None:
        """The time from its issue to its expiry; None if it does not state both."""
        began, ends = _number(self.claims.get("iat")), _number(self.claims.get("exp"))
        return None if began is None or ends is None else round(ends - began, 3)

    @property
    def scope(self) -> str | None:
        """What it permits (RFC 9068 §2.2.3; Microsoft's scp, or roles); None if it does not say."""
        for name in ("scope", "scp", "roles"):
            value = self.claims.get(name)
            words = [one for one in (value if isinstance(value, list) else [value]) if one]
            if words and all(isinstance(one, str) for one in words):
                return " ".join(map(str, words))
        return None

    @property
    def provider(self) -> str | None:
        """Whose it is, or looks like: gmail, outlook or its issuer; None if nothing tells."""
        issuer = self.claims.get("iss")
        if self.is_ours or self.token.startswith(("ya29.", "EwA")):
            return looks_like(self.token)
        return issuer if isinstance(issuer, str) else None

    def shown(self) -> str:
        """Return the token, if it is ours; otherwise shortened."""
        return self.token if self.is_ours else self.shortened()

    def shortened(self) -> str:
        """Return the token's first characters and its length."""
        length = len(self.token)
        beginning = self.token[: min(_SHOWN_CHARACTERS, length // 4)]
        return f"{beginning}… ({length} characters)"

    def to_json(self) -> dict[str, object]:
        """Return the whole record for a JSON document."""
        return {
            "token": self.shortened(),
            "token_characters": len(self.token),
            "type": TOKEN_TYPE,
            "provider": self.provider,
            "scope": self.scope,
            "lifetime_seconds": self.lifetime_seconds,
            "is_valid": self.is_valid,
            "reason": self.reason,
            "mailbox": self.mailbox,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "seconds_left": self.seconds_left,
            "claims": dict(self.claims),
        }


def read(tokens: MockTokens, given: str, *, mailbox: str = "") -> TokenReading:
    """Return the reading of a token, or of the token in a base64 initial response.

    If `mailbox` (in lower case) is given, the token must be for that mailbox.
    """
    token = _unwrapped(given)
    reason: str
    try:
        found = tokens.verify(token)
    except MockTokenInvalid as error:
        reason = error.reason
    else:
        reason = "mailbox" if mailbox and found != mailbox else ""
    # Expiry is checked after the signature.
    is_ours = reason in {"", "mailbox", "expired"}
    return TokenReading(token=token, reason=reason, is_ours=is_ours, claims=_claims(token))


def tampered(token: str) -> str:
    """Return the token with an invalid signature."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def looks_like(token: str) -> str:
    """Return the name of the provider whose tokens have this prefix."""
    return "outlook" if token.startswith("EwA") else "gmail"


def _unwrapped(given: str) -> str:
    """Return the token from an initial response of XOAUTH2 or OAUTHBEARER; else the input.

    Logs and transcripts contain these: RFC 7628 §3.1, and Google's and Microsoft's XOAUTH2.
    """
    try:
        match = _BEARER.search(base64.b64decode(given, validate=True).decode("ascii"))
    except ValueError:
        return given
    return match[1] if match else given


def _claims(token: str) -> dict[str, object]:
    """Return the claims of a JWT, verified or not; empty if it is none."""
    match = _JWT.search(token)
    if match is None:
        return {}
    try:
        octets = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
        claims = json.loads(octets, parse_constant=lambda _: None)  # NaN is not JSON
    except (ValueError, RecursionError):
        return {}
    return dict(list(claims.items())[:_MAX_CLAIMS]) if isinstance(claims, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _moment(value: object) -> str | None:
    seconds = _number(value)
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # a time out of range
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
