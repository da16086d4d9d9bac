"""Implements SASL exchanges without I/O: PLAIN, LOGIN, CRAM-MD5, XOAUTH2 and OAUTHBEARER.

A server exchange is a generator: it yields challenges, is sent the client's responses, and returns
the credentials. Base64, sockets and checking passwords are left to callers. RFC 2195, 4422, 4616,
7628; LOGIN is draft-murchison-sasl-login, XOAUTH2 is specified by Google and Microsoft.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

MAX_LINE_BYTES = 12_288  # RFC 4954 §4: enough for every known mechanism; without CRLF

_NOT_IN_TOKENS = re.compile(r"[\x00-\x20\x7f]")
# RFC 6750 §2.1: the alphabet of bearer tokens. RFC 6749 §10.10: one in 2^128 guesses may be right,
# which takes 22 of these characters.
_TOKEN_FORM = re.compile(r"[A-Za-z0-9._~+/-]{22,}=*")
_MD5_DIGITS = re.compile(r"[0-9A-Fa-f]{32}")
_CHALLENGE_HOST = "xoauth2-proxy"  # not this machine's name, which is nobody's business
_KEY_VALUE = re.compile(r"([A-Za-z]+)=(.*)", re.DOTALL)


class MalformedResponse(ValueError):
    """The client's response does not follow its mechanism."""


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """A login with a password (PLAIN, LOGIN)."""

    authcid: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """A login with an access token the client brought (XOAUTH2, OAUTHBEARER)."""

    authcid: str
    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChallengeLogin:
    """A login with the keyed digest of a challenge (CRAM-MD5), which shows no password."""

    authcid: str
    challenge: bytes
    digest: bytes = field(repr=False)  # HMAC-MD5 of the challenge, keyed by the password


Credentials = PasswordLogin | TokenLogin | ChallengeLogin
Exchange = Generator[bytes, bytes, Credentials]


def plain() -> Exchange:
    """PLAIN (RFC 4616): one response, `authzid NUL authcid NUL password`.

    Acting for another identity (an authzid that differs from the authcid) is refused.
    """
    response = yield b""
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise MalformedResponse("a PLAIN response has three parts")
    authzid, authcid, password = (_typed(part) for part in parts)
    if authzid and authzid.lower() != authcid.lower():
        raise MalformedResponse("acting for another login is not supported")
    return PasswordLogin(authcid, password)


def login() -> Exchange:
    """LOGIN: the login, then the password.

    The prompts are exactly these, because some printers accept no others.
    """
    authcid = yield b"Username:"
    password = yield b"Password:"
    return PasswordLogin(_typed(authcid), _typed(password))


def xoauth2() -> Exchange:
    """XOAUTH2: `user=` login ^A `auth=Bearer ` token ^A ^A. Unknown keys are ignored."""
    response = yield b""
    pairs = _key_values(_text(response).split("\x01"))
    return TokenLogin(_required(pairs, "user"), _bearer(pairs))


def oauthbearer() -> Exchange:
    """OAUTHBEARER (RFC 7628 §3.1): a GS2 header with the authzid, then `auth=Bearer ` token."""
    response = yield b""
    header, *rest = _text(response).split("\x01")
    flag, separator, remainder = header.partition(",")
    authzid = remainder.partition(",")[0]
    if flag not in {"n", "y"} or not separator or not authzid.startswith("a="):
        raise MalformedResponse("the GS2 header names no mailbox")
    authcid = authzid[2:].replace("=2C", ",").replace("=3D", "=")
    if not authcid:
        raise MalformedResponse("the GS2 header names no mailbox")
    return TokenLogin(authcid, _bearer(_key_values(rest)))


def cram_md5() -> Exchange:
    """CRAM-MD5 (RFC 2195): the client answers our challenge with its login and a keyed digest.

    The last space splits the response, since a login may have some; the digits are of either case.
    """
    challenge = f"<{secrets.token_hex(8)}.{time.time_ns()}@{_CHALLENGE_HOST}>".encode()
    response = yield challenge
    authcid, _, digits = _text(response).rpartition(" ")
    if "\0" in authcid or not authcid or not _MD5_DIGITS.fullmatch(digits):
        raise MalformedResponse("a CRAM-MD5 response is a login and 32 hexadecimal digits")
    return ChallengeLogin(authcid, challenge, bytes.fromhex(digits))


# What a listener offers unless it says otherwise; `BY_TOKEN` where accounts take clients' tokens.
BY_PASSWORD = ("PLAIN", "LOGIN")
BY_TOKEN = ("XOAUTH2", "OAUTHBEARER")
DEFAULT_MECHANISMS = (*BY_PASSWORD, *BY_TOKEN)
# Mechanisms in which the server has the first word: an initial response is refused (RFC 4954 §4).
SERVER_FIRST = frozenset({"CRAM-MD5"})

MECHANISMS: dict[str, Callable[[], Exchange]] = {
    "PLAIN": plain,
    "LOGIN": login,
    "CRAM-MD5": cram_md5,
    "XOAUTH2": xoauth2,
    "OAUTHBEARER": oauthbearer,
}


# Of IANA's registry and in use: what clients ask for by these names.
_NAMES = frozenset(
    {
        *MECHANISMS,
        *("ANONYMOUS", "DIGEST-MD5", "EXTERNAL", "GS2-KRB5", "GSS-SPNEGO", "GSSAPI"),
        *("KERBEROS_V4", "MSN", "NMAS_LOGIN", "NTLM", "OTP", "SKEY", "SRP"),
        *("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"),
        *("SCRAM-SHA-512", "SCRAM-SHA-512-PLUS"),
    }
)


def shown_name(mechanism: str) -> str:
    """Return a mechanism's name if it is a known one, else "".

    Where the name belongs, a broken client may send its password.
    """
    return mechanism if mechanism in _NAMES else ""


def token_error_challenge(mechanism: str) -> bytes:
    """Return the challenge that tells a client its token was refused (RFC 7628 §3.2.2).

    The client answers it with an empty line or ^A, and only then gets its 535.
    """
    if mechanism == "XOAUTH2":
        return json.dumps({"status": "401", "schemes": "bearer", "scope": "mail"}).encode()
    return json.dumps({"status": "invalid_token", "scope": "mail"}).encode()


def has_token_form(text: str) -> bool:
    """Whether a text can be a bearer token, and is not rather a person's password."""
    return _TOKEN_FORM.fullmatch(text) is not None


def xoauth2_response(authcid: str, access_token: str) -> bytes:
    """Return XOAUTH2's client response in base64.

    Raises `ValueError` if either value contains a separator or control (NUL, ^A, CR, LF).
    """
    if re.search(r"[\x00-\x1f\x7f]", authcid + access_token):
        raise ValueError("control character in login or token")
    return base64.b64encode(f"user={authcid}\x01auth=Bearer {access_token}\x01\x01".encode())


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise MalformedResponse("not UTF-8") from None


def _typed(octets: bytes) -> str:
    """Return what a person typed. Octets that are not UTF-8 come from a client that uses Latin-1.

    RFC 4616 wants UTF-8; but refused as malformed, a person would not look for a wrong password.
    """
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _key_values(fields: list[str]) -> dict[str, str]:
    return {match[1].lower(): match[2] for item in fields if (match := _KEY_VALUE.fullmatch(item))}


def _required(pairs: dict[str, str], key: str) -> str:
    value = pairs.get(key, "")
    if not value:
        raise MalformedResponse(f"{key}= is missing")
    return value


def _bearer(pairs: dict[str, str]) -> str:
    scheme, _, token = _required(pairs, "auth").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or _NOT_IN_TOKENS.search(token):
        raise MalformedResponse("auth= is not a bearer token")
    return token
