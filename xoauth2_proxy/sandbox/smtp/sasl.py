"""Parses the credentials of XOAUTH2 (the providers' own) and OAUTHBEARER (RFC 7628).

Verifies nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field

_SCOPE = "https://mail.google.com/"


class BadCredentials(ValueError):
    """The octets are not credentials of the mechanism; the text says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The claimed mailbox, and the access token that has to prove it."""

    mailbox: str
    token: str = field(repr=False)


def decode_base64(line: bytes) -> bytes:
    """Return the octets that a line of an AUTH exchange encodes (RFC 4954 §4).

    Raises:
        BadCredentials: it is not base64.
    """
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        raise BadCredentials("it is not base64") from None


def read_xoauth2(octets: bytes) -> Credentials:
    """Return the credentials of `user=… ^A auth=Bearer … ^A ^A`."""
    fields = _fields(octets)
    return _credentials(fields.get("user", ""), fields)


def read_oauthbearer(octets: bytes) -> Credentials:
    """Return the credentials of `n,a=…,^A … auth=Bearer … ^A ^A` (RFC 7628 §3.1)."""
    header, _, rest = octets.partition(b"\x01")
    words = header.decode("utf-8", "replace").split(",")
    if len(words) != 3 or words[0] not in ("n", "y") or words[2]:
        raise BadCredentials("it does not begin with n,a=MAILBOX,")
    authzid = words[1].removeprefix("a=").replace("=2C", ",").replace("=3D", "=")
    return _credentials(authzid, _fields(rest))


def challenge(mechanism: str, status: str, schemes: str) -> str:
    """Return the 334 that carries the error; the client answers it, and gets the 535."""
    payload = {"status": status, "schemes": schemes, "scope": _SCOPE}
    if mechanism == "OAUTHBEARER":  # RFC 7628 §3.2.2
        word = "invalid_token" if status == "401" else "invalid_request"
        payload = {"status": word, "scope": _SCOPE}
    text = json.dumps(payload, separators=(",", ":"))
    return f"334 {base64.b64encode(text.encode()).decode()}"


def _fields(octets: bytes) -> dict[str, str]:
    text = octets.rstrip(b"\r\n").decode("utf-8", "replace")
    if not text.endswith("\x01\x01"):
        raise BadCredentials("it does not end with two ^A (0x01)")
    pairs = (word.partition("=") for word in text.split("\x01") if word)
    return {key: value for key, _, value in pairs}


def _credentials(mailbox: str, fields: dict[str, str]) -> Credentials:
    scheme, _, token = fields.get("auth", "").partition(" ")
    if not mailbox:
        raise BadCredentials("it names no mailbox: user= in XOAUTH2, a= in OAUTHBEARER")
    if scheme.lower() != "bearer" or not token:
        raise BadCredentials("it has no auth=Bearer with a token")
    return Credentials(mailbox.lower(), token.strip())
