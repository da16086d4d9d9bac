"""Removes secrets from texts before they are logged or shown."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MIN_SECRET_CHARACTERS = 8  # shorter values may be ordinary words, which a text needs

_MIN_BASE64 = 8  # characters
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_~-]{32,}")  # tokens are this long; few other words are
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def one_line(text: str, max_characters: int) -> str:
    """Return the text on one line, printable, shortened to `max_characters`."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def without_long_words(text: str) -> str:
    """Return the text with every word as long as a token replaced by an ellipsis."""
    return _LONG_WORD.sub("…", text)


def redacted(text: str, secrets: Collection[str], max_characters: int) -> str:
    """Return the text as `one_line`, without anything that is or looks like a secret.

    UUIDs are kept: endpoints use them to identify a request in their logs.
    """
    forms = {form for secret in filter(None, secrets) for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "…")
    text = one_line(text, len(text))
    # Before the text is shortened: a truncated token might no longer be recognized.
    text = _LONG_WORD.sub(lambda word: word[0] if _UUID.fullmatch(word[0]) else "…", text)
    return one_line(text, max_characters)


def _forms(secret: str) -> Iterator[str]:
    """Yield the encodings of a secret that requests and errors use: URL, JSON, base64."""
    escaped = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    yield from {secret, *escaped, json.dumps(secret)[1:-1]}
    yield from (_ESCAPE.sub(lambda octet: octet[0].lower(), form) for form in escaped)
    for text in (secret, quote_plus(secret)):  # RFC 6749 §2.3.1
        for before in range(3):  # other octets in the same group of three
            octets = bytes(before) + text.encode("utf-8", "replace")
            whole = octets[: len(octets) - len(octets) % 3]
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                form = encode(whole).decode()[4 if before else 0 :]
                if len(form) >= _MIN_BASE64:
                    yield form
