"""Parses a program's output: an access token and its lifetime, or an error message. Pure.

A token is alone on the first line, or in a JSON object as `access_token`, optionally with
`expires_in` (seconds), `expires_at` or `expiry` (seconds since the epoch, or RFC 3339).
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any

from xoauth2_proxy.oauth.grant import TokenResponse, unverified_claims
from xoauth2_proxy.redaction import one_line, without_long_words

# Programs that print only a token refresh it themselves, and do not say when. Running them every
# few minutes is cheap; a token that is cached longer than they cache it may have ended.
UNSTATED_LIFETIME_SECONDS = 300.0

_MAX_COMPLAINT = 200  # characters

_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6749 appendix A.12, without the space


class UnreadableToken(ValueError):
    """There is no usable token; the text continues "the program printed …" and quotes nothing."""


def parse_token(output: bytes, now: float) -> TokenResponse:
    """Return the token that the program printed; `now` is in seconds since the epoch.

    Raises `UnreadableToken`: there is no token in it, or one that has expired.
    """
    text = output.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        value, lifetime_seconds = _from_json(text, now)
    else:
        value, lifetime_seconds = text.partition("\n")[0].strip(), None
    if not value:
        raise UnreadableToken("no token")
    if not _TOKEN.fullmatch(value):
        raise UnreadableToken("something other than a token")
    if lifetime_seconds is None:
        # A JWT's signature is not checked: a forged claim only changes when the next token is due.
        ends_at = _number((unverified_claims(value) or {}).get("exp"))
        lifetime_seconds = UNSTATED_LIFETIME_SECONDS if ends_at is None else ends_at - now
    if lifetime_seconds <= 0:
        raise UnreadableToken("a token that has expired")
    return TokenResponse(access_token=value, lifetime_seconds=lifetime_seconds)


def last_line(text: str, secret: str = "") -> str:
    """Return the last non-blank line, shortened and without anything that may be a secret."""
    lines = [line for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    if secret:
        line = line.replace(secret, "…")
    return one_line(without_long_words(one_line(line, len(line))), _MAX_COMPLAINT)


def _from_json(text: str, now: float) -> tuple[str, float | None]:
    try:
        document: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableToken("something other than a token") from None
    value = document.get("access_token", "")
    if not isinstance(value, str):
        raise UnreadableToken("something other than a token")
    lifetime_seconds = _number(document.get("expires_in"))
    if lifetime_seconds is None:
        ends_at = _moment(document.get("expires_at", document.get("expiry")))
        lifetime_seconds = None if ends_at is None else ends_at - now
    return value, lifetime_seconds


def _moment(value: object) -> float | None:
    """Return a time in seconds since the epoch; None if the value is not one."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return _number(value)
        # RFC 3339 requires an offset; without one the time could be wrong by half a day.
        return moment.timestamp() if moment.tzinfo else None
    return _number(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
