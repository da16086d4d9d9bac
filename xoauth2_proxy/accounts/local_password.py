"""The passwords that mail clients present: in clear, as argon2 hashes, or as digests of keys.

Argon2 is for passwords that people chose, since guessing one must be slow. A key that the proxy
generated has 99 bits, beyond guessing at any speed, so one salted SHA-256 keeps it safe and
costs nothing to verify.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

# PHC string format; libargon2 wants a salt of 8 octets and a hash of 4 at least.
_PHC_ENDING = re.compile(r"\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}\Z", re.ASCII)
_KEY_BEGINNING = "$sha256$"
_SALT_BYTES = 16
# What a printer's keypad can type and a person can read: without 0 and o, 1, l and i.
_KEY_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_KEY_CHARACTERS = 20


@dataclass(frozen=True, slots=True)
class LocalPassword:
    """The password that the mail client must present, in one of three forms."""

    clear_text: str = field(default="", repr=False)
    argon2_hash: str = field(default="", repr=False)  # a PHC string
    key_digest: str = field(default="", repr=False)  # `$sha256$salt$digest`, of a generated key


def local_password(secret: str) -> LocalPassword:
    """Return the password that `secret` is: an argon2 hash, a key's digest, else clear text.

    Raises `ValueError`: it begins as a hash or a digest and is not a whole one.
    """
    if secret.startswith(_KEY_BEGINNING):
        try:
            _parts(secret)
        except ValueError:
            raise ValueError("begins like a key's digest, but is not a whole one") from None
        return LocalPassword(key_digest=secret)
    if not secret.startswith("$argon2"):
        return LocalPassword(clear_text=secret)
    import argon2  # not above: most relays have no hashed password

    try:
        argon2.extract_parameters(secret)
    except argon2.exceptions.InvalidHashError:
        is_whole = False
    else:
        is_whole = _PHC_ENDING.search(secret) is not None
    if not is_whole:
        raise ValueError("begins like an argon2 hash, but is not a whole one")
    return LocalPassword(argon2_hash=secret)


def new_key() -> str:
    """Return a new key: 20 characters, 99 bits."""
    return "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_CHARACTERS))


def digest_of_key(key: str) -> str:
    """Return what is kept of a generated key: `$sha256$salt$digest`, in base64 without padding."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{_KEY_BEGINNING}{_base64(salt)}${_base64(_digest(salt, key))}"


def is_key(text: str, key_digest: str) -> bool:
    """Whether `text` is the key that `key_digest` was made of."""
    salt, digest = _parts(key_digest)
    return hmac.compare_digest(_digest(salt, text), digest)


def octets(password: str) -> bytes:
    """Return the octets that the client sent for a password."""
    return password.encode("utf-8", "surrogateescape")


def _digest(salt: bytes, key: str) -> bytes:
    return hashlib.sha256(salt + octets(key)).digest()


def _parts(key_digest: str) -> tuple[bytes, bytes]:
    """Return the salt and the digest. Raises `ValueError`."""
    salt, _, digest = key_digest.removeprefix(_KEY_BEGINNING).partition("$")
    parts = _octets_of(salt), _octets_of(digest)
    if len(parts[0]) != _SALT_BYTES or len(parts[1]) != hashlib.sha256().digest_size:
        raise ValueError("the salt has 16 octets and the digest 32")
    return parts


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _octets_of(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
