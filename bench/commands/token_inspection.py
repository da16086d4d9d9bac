"""Tells what a token says and whether the sandbox accepts it, and never shows another's token.

A token comes from anywhere: nothing in it is trusted to be there.
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

_SHOWN_CHARACTERS = 8  # of a token that is not ours, and no more than a quarter of it
_MAX_CLAIMS = 50
_JWT = re.compile(r"eyJ[\w-]*\.([\w-]+)\.[\w-]*\Z", re.ASCII)  # behind a prefix, if there is one
_BEARER = re.compile(r"auth=Bearer ([!-~]+)\x01\x01\Z", re.ASCII)
_REASONS = {
    "malformed": "not a token of any sandbox",
    "signature": "another key has signed it, or it was changed since",
    "mailbox": "it is another mailbox's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReading:
    """A token that was looked at."""

    token: str = field(repr=False)
    reason: str  # "": it is good; else malformed, signature, expired or mailbox
    is_ours: bool  # this state directory's key has signed it
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)  # true only if ours

    @property
    def is_valid(self) -> bool:
        """Whether the sandbox takes it."""
        return not self.reason

    @property
    def told_reason(self) -> str:
        """Why it is not good, for people."""
        if self.reason == "mailbox":
            return f"{_REASONS['mailbox']}: {self.mailbox}"
        return _REASONS.get(self.reason, self.reason)

    @property
    def mailbox(self) -> str:
        """Whose it is; "" if it does not say."""
        subject = self.claims.get("sub")
        return subject if isinstance(subject, str) and subject.isprintable() else ""

    @property
    def issued_at(self) -> str | None:
        """When it was made (RFC 3339); None if it does not say."""
        return _moment(self.claims.get("iat"))

    @property
    def expires_at(self) -> str | None:
        """When it ends; None if it does not say."""
        return _moment(self.claims.get("exp"))

    @property
    def seconds_left(self) -> float | None:
        """How long it is good, negative when it is no longer; None if it does not say."""
        expires_at = _number(self.claims.get("exp"))
        return None if expires_at is None else round(expires_at - time.time(), 3)

    def shown(self) -> str:
        """Return the token, if it is ours; else how it begins and how long it is."""
        if self.is_ours:
            return self.token
        length = len(self.token)
        beginning = self.token[: min(_SHOWN_CHARACTERS, length // 4)]
        return f"{beginning}… ({length} characters)"

    def to_json(self) -> dict[str, object]:
        """Return it all, as JSON has it."""
        return {
            "token": self.shown(),
            "token_characters": len(self.token),
            "is_valid": self.is_valid,
            "reason": self.reason,
            "mailbox": self.mailbox,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "seconds_left": self.seconds_left,
            "claims": dict(self.claims),
        }


def read(tokens: MockTokens, given: str, *, mailbox: str = "") -> TokenReading:
    """Return what is to be said of a token, or of the token in a base64 initial response.

    With a `mailbox`, in lower case, the token has to be that mailbox's.
    """
    token = _unwrapped(given)
    reason: str
    try:
        found = tokens.verify(token)
    except MockTokenInvalid as error:
        reason = error.reason
    else:
        reason = "mailbox" if mailbox and found != mailbox else ""
    # An end that has come is looked at behind the signature.
    is_ours = reason in {"", "mailbox", "expired"}
    return TokenReading(token=token, reason=reason, is_ours=is_ours, claims=_claims(token))


def tampered(token: str) -> str:
    """Return the token with another signature."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def looks_like(token: str) -> str:
    """Return the name of the provider whose tokens begin as this one does."""
    return "outlook" if token.startswith("EwA") else "gmail"


def _unwrapped(given: str) -> str:
    """Return the token within an initial response of XOAUTH2 or OAUTHBEARER; else what was given.

    It is what logs and transcripts hold: RFC 7628 §3.1, and Google's and Microsoft's XOAUTH2.
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
    except (OverflowError, ValueError, OSError):  # no year that there is
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
