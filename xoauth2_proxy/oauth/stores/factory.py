"""Opens the store that the configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.files import locked, private_directory
from xoauth2_proxy.oauth.stores.encryption import GrantCipher, key_from_keyring
from xoauth2_proxy.oauth.stores.file import FileStore
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.oauth.stores import TokenStore


def open_store(
    kind: str,
    directory: Path,
    *,
    url: str = "",
    key: str = "",
    is_key_in_keyring: bool = False,
) -> TokenStore:
    """Return the store; it reads and writes nothing yet, except in a keyring.

    Raises:
        ValueError: the key, the URL or a module is missing or invalid; the text says what to do.
    """
    if kind == "memory":
        return MemoryStore()
    cipher = open_cipher(directory, key, is_key_in_keyring=is_key_in_keyring)
    if kind == "file":
        return FileStore(directory, cipher)
    if kind != "redis":
        raise ValueError(f"store.kind: there is no {kind!r}; it is file, redis or memory")
    try:
        from xoauth2_proxy.oauth.stores.redis import RedisStore
    except ImportError:
        raise ValueError(
            "store.kind: the module redis is not installed: pip install redis"
        ) from None
    try:
        return RedisStore(url, cipher)
    except ValueError as error:
        raise ValueError(f"store.url: {error}") from None


def open_cipher(directory: Path, key: str = "", *, is_key_in_keyring: bool = False) -> GrantCipher:
    """Return the cipher for grants and the other secrets stored beside them.

    In `directory` processes agree on which of them generates the keyring's key. It may wait for a
    person to unlock the keyring. Raises `ValueError`: a key is invalid, or there is no keyring.
    """
    if is_key_in_keyring:
        try:
            private_directory(directory)
            with locked(directory / "keyring.lock"):  # the first process generates the key
                key = key_from_keyring()
        except (OSError, ValueError) as error:
            raise ValueError(f"store.keyring: {error}") from None
    try:
        return GrantCipher(key)
    except ValueError as error:
        raise ValueError(f"store.key: {error}") from None
