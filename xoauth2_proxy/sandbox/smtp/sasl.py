"""Reads the credentials of XOAUTH2 and OAUTHBEARER, as the server sees them.

XOAUTH2 is the providers' own mechanism; OAUTHBEARER is RFC 7628. Never verifies anything.
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
    """Who claims to act, and the access token that is to prove it."""

    mailbox: str
    token: str = field(repr=False)


def decode_base64(line: bytes) -> bytes:
    """Return the octets that a line of an AUTH exchange stands for (RFC 4954 §4).

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


def challenge(mechanism: str, status: str, schemes: str) -> bytes:
    """Return the reply that carries the error, which the client answers before the 535."""
    payload = {"status": status, "schemes": schemes, "scope": _SCOPE}
    if mechanism == "OAUTHBEARER":  # RFC 7628 §3.2.2
        word = "invalid_token" if status == "401" else "invalid_request"
        payload = {"status": word, "scope": _SCOPE}
    return b"334 %s\r\n" % base64.b64encode(json.dumps(payload, separators=(",", ":")).encode())


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
        raise BadCredentials("it holds no auth=Bearer with a token behind it")
    return Credentials(mailbox.lower(), token.strip())
