"""Encrypts stored grants with Fernet (AES-128-CBC and HMAC-SHA256) under the operator's key.

The first line marks an encrypted document. Documents from before a key was configured can still be
read; they are encrypted when they are next written. The second line is the salt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet

# cryptography is imported where there is a key: it takes 7 MiB, and most stores have none.

_MAGIC = b"xoauth2-proxy sealed 1\n"
_SALT_BYTES = 16
_MIN_KEY_LENGTH = 16  # characters
# OWASP, Password Storage Cheat Sheet (2023): N=2^15, r=8, p=3 is one of the equivalent minima.
_SCRYPT = {"n": 2**15, "r": 8, "p": 3, "maxmem": 64 * 2**20}  # OpenSSL needs half of this memory
_MAX_SALTS = 256  # whose keys are remembered

_SERVICE = "xoauth2-proxy"
_ENTRY = "store key"


class GrantCipher:
    """Encrypts with the first of its keys, and decrypts with any of them.

    A key is a text of 16 characters or more, or one that `Fernet.generate_key` made. Keys are
    separated by commas or white space; without a key, nothing is encrypted.

    A text is stretched with a salt, which takes about a fifth of a second for each new salt. So the
    first salt that was read is used for writing: processes that share a store come to share it.
    """

    def __init__(self, key: str = "") -> None:
        """Raises `ValueError`: a key is too short."""
        self._keys = [one for one in re.split(r"[,\s]+", key) if one]
        if any(len(one) < _MIN_KEY_LENGTH for one in self._keys):
            raise ValueError(
                f"a key needs {_MIN_KEY_LENGTH} characters or more; commas and spaces separate keys"
            )
        self._ready = {one: fernet for one in self._keys if (fernet := _fernet(one)) is not None}
        self._salt = b""
        self._stretched: dict[bytes, MultiFernet] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether documents are encrypted."""
        return bool(self._keys)

    def encrypt(self, octets: bytes) -> bytes:
        """Return the document, encrypted if there is a key. Slow: not for the event loop."""
        if not self._keys:
            return octets
        salt = b""
        if self._keys[0] not in self._ready:
            with self._lock:
                salt = self._salt = self._salt or os.urandom(_SALT_BYTES)
        line = base64.urlsafe_b64encode(salt)
        return _MAGIC + line + b"\n" + self._fernets(salt).encrypt(octets) + b"\n"

    def decrypt(self, octets: bytes) -> bytes:
        """Return the decrypted document; one that is not encrypted is returned unchanged.

        Raises `ValueError`: it was encrypted with another key, or it is damaged.
        """
        if not octets.startswith(_MAGIC):
            return octets
        if not self._keys:
            raise ValueError("it is encrypted; configure its key (store.key)")
        from cryptography.fernet import InvalidToken

        line, _, token = octets.removeprefix(_MAGIC).partition(b"\n")
        try:
            salt = base64.b64decode(line, b"-_", validate=True)
            opened = self._fernets(salt).decrypt(token.rstrip())
        except (binascii.Error, InvalidToken):
            raise ValueError(
                "it was encrypted with another key, or is damaged; "
                "configure that key after the present one, separated by a comma (store.key)"
            ) from None
        if salt and not self._salt:
            self._salt = salt
        return opened

    def _fernets(self, salt: bytes) -> MultiFernet:
        """Return the keys for documents with this salt; it is empty for generated keys."""
        from cryptography.fernet import InvalidToken, MultiFernet

        with self._lock:  # two threads would stretch the same key
            known = self._stretched.get(salt)
            if known is None:
                fernets = [
                    self._ready.get(one) or _stretched(one, salt)
                    for one in self._keys
                    if salt or one in self._ready
                ]
                if not fernets:
                    raise InvalidToken
                if len(self._stretched) >= _MAX_SALTS:
                    del self._stretched[next(iter(self._stretched))]
                known = self._stretched[salt] = MultiFernet(fernets)
        return known


NO_ENCRYPTION = GrantCipher()


def key_from_keyring() -> str:
    """Return the key in the operating system's keyring; the first call generates and stores it.

    It may wait for a person to unlock the keyring. The caller makes sure that first calls do not
    run at the same time. Raises `ValueError`: there is no keyring, or it does not store the key;
    the text says what to do.
    """
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise ValueError("the module keyring is not installed: pip install keyring") from None
    try:
        key = keyring.get_password(_SERVICE, _ENTRY)
        if not key:
            from cryptography.fernet import Fernet

            key = Fernet.generate_key().decode()
            keyring.set_password(_SERVICE, _ENTRY, key)
            if keyring.get_password(_SERVICE, _ENTRY) != key:
                raise ValueError("the operating system's keyring did not store the key")
    except KeyringError as error:
        raise ValueError(
            f"the operating system's keyring cannot be used ({type(error).__name__}); "
            "a server without one can have its key from a file or the environment (store.key)"
        ) from None
    return key


def _fernet(key: str) -> Fernet | None:
    """Return a generated key's Fernet; None: the key is a text."""
    from cryptography.fernet import Fernet

    try:
        return Fernet(key)
    except ValueError:
        return None


def _stretched(key: str, salt: bytes) -> Fernet:
    from cryptography.fernet import Fernet

    octets = hashlib.scrypt(key.encode(), salt=salt, dklen=32, **_SCRYPT)
    return Fernet(base64.urlsafe_b64encode(octets))
