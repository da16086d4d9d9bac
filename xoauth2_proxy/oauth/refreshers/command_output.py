"""Pure: reads what a program prints: an access token and how long it lasts, or a complaint.

A token comes alone on the first line, or as a JSON object with `access_token` and perhaps
`expires_in` (seconds), `expires_at` or `expiry` (seconds since the epoch, or RFC 3339).
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import datetime
from typing import Any

from xoauth2_proxy.oauth.grant import Issued

# Programs that print a token alone renew it themselves, and do not say when. Asking them again
# every few minutes is cheap; a token held longer than they would hold it may be a dead one.
UNTOLD_LIFETIME_SECONDS = 300.0

_MAX_COMPLAINT = 200  # characters
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_~-]{32,}")  # as tokens are; few other words

_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6749 appendix A.12, without the space


class TokenUnreadable(ValueError):
    """No usable token; the text continues "the program printed …" and quotes nothing."""


def printed_token(output: bytes, now: float) -> Issued:
    """Return what the program printed; `now` is the time in seconds since the epoch.

    Raises:
        TokenUnreadable: there is no token in it, or one that has expired.
    """
    text = output.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        value, lifetime_seconds = _from_json(text, now)
    else:
        value, lifetime_seconds = text.partition("\n")[0].strip(), None
    if not value:
        raise TokenUnreadable("no token")
    if not _TOKEN.fullmatch(value):
        raise TokenUnreadable("something other than a token")
    if lifetime_seconds is None:
        lifetime_seconds = _jwt_lifetime_seconds(value, now)
    if lifetime_seconds is None:
        lifetime_seconds = UNTOLD_LIFETIME_SECONDS
    if lifetime_seconds <= 0:
        raise TokenUnreadable("a token that has expired")
    return Issued(access_token=value, lifetime_seconds=lifetime_seconds)


def last_line(text: str, secret: str = "") -> str:
    """Return the last line that says something, shortened, without what is or may be a secret."""
    lines = [line for line in text.splitlines() if line.strip()]
    line = "".join(c if c.isprintable() else " " for c in lines[-1]) if lines else ""
    if secret:
        line = line.replace(secret, "…")
    line = _LONG_WORD.sub("…", " ".join(line.split()))
    return line if len(line) <= _MAX_COMPLAINT else line[: _MAX_COMPLAINT - 1] + "…"


def _from_json(text: str, now: float) -> tuple[str, float | None]:
    try:
        document: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise TokenUnreadable("something other than a token") from None
    value = document.get("access_token", "")
    if not isinstance(value, str):
        raise TokenUnreadable("something other than a token")
    lifetime_seconds = _number(document.get("expires_in"))
    if lifetime_seconds is None:
        ends_at = _moment(document.get("expires_at", document.get("expiry")))
        lifetime_seconds = None if ends_at is None else ends_at - now
    return value, lifetime_seconds


def _jwt_lifetime_seconds(value: str, now: float) -> float | None:
    """Return the seconds until a JWT's `exp` claim; None if the token is not one.

    The signature is the provider's affair: a forged claim could only make us ask again sooner or
    have the token refused.
    """
    parts = value.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    ends_at = _number(claims.get("exp")) if isinstance(claims, dict) else None
    return None if ends_at is None else ends_at - now


def _moment(told: object) -> float | None:
    """Return a time in seconds since the epoch; None for what cannot be read as one."""
    if isinstance(told, str):
        try:
            moment = datetime.fromisoformat(told)
        except ValueError:
            return _number(told)
        # RFC 3339 requires an offset; without one it could be off by half a day.
        return moment.timestamp() if moment.tzinfo else None
    return _number(told)


def _number(told: object) -> float | None:
    if isinstance(told, bool) or not isinstance(told, (int, float, str)):
        return None
    try:
        number = float(told)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
