"""Keeps the accounts that were added at run time: one file each, read beside the configuration.

A file is replaced as a whole, only its owner may read it, and it may be encrypted. A file that
cannot be read is reported, and the others are used.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from xoauth2_proxy import strict_json
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.files import private_directory, replace_durably, sync_directory
from xoauth2_proxy.oauth.stores.encryption import NO_ENCRYPTION, GrantCipher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xoauth2_proxy.strict_json import Json


class RuntimeAccounts:
    """The directory of accounts that were added; every method blocks."""

    def __init__(self, directory: Path, cipher: GrantCipher = NO_ENCRYPTION) -> None:
        self._directory = directory
        self._cipher = cipher

    def read(self) -> tuple[list[tuple[str, dict[str, Json]]], list[str]]:
        """Return the accounts, each with its file's name, and why others cannot be read."""
        documents, unreadable = [], []
        try:
            paths = self._paths()
        except OSError as error:
            return [], [f"{self._directory}: {_in_words(error)}"]
        for path in paths:
            try:
                documents.append((str(path), self._document(path)))
            except (OSError, ValueError) as error:
                unreadable.append(f"{path}: {_in_words(error)}")
        return documents, unreadable

    def documents(self) -> list[tuple[str, dict[str, Json]]]:
        """Return the accounts that can be read, each with its file's name for messages."""
        return self.read()[0]

    def keys(self) -> frozenset[str]:
        """Return the keys of the accounts that can be read."""
        return frozenset(account_key(document) for _, document in self.documents())

    def add(self, document: Mapping[str, object]) -> None:
        """Write the account, which replaces one with the same key. Raises `OSError`.

        On return it survives a crash. It is not validated here.
        """
        private_directory(self._directory)
        octets = json.dumps(dict(document), indent=2).encode()
        replace_durably(self._path(account_key(document)), self._cipher.encrypt(octets))

    def remove(self, key: str) -> bool:
        """Delete the account; return whether there was one. Raises `OSError`."""
        paths = {path for path in self._paths() if path == self._path(key) or self._has(path, key)}
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            sync_directory(self._directory)
        return bool(paths)

    def _paths(self) -> list[Path]:
        if not self._directory.exists():
            return []
        private_directory(self._directory)
        return sorted(self._directory.glob("*.json"))

    def _path(self, key: str) -> Path:
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _has(self, path: Path, key: str) -> bool:
        # An operator may have written a file by hand, under any name.
        with suppress(OSError, ValueError):
            return account_key(self._document(path)) == key
        return False

    def _document(self, path: Path) -> dict[str, Json]:
        document, faults = strict_json.parse(self._cipher.decrypt(path.read_bytes()))
        if not isinstance(document, dict):
            raise ValueError("must hold one account, an object")
        if faults:
            raise ValueError("; ".join(": ".join(fault) for fault in faults))
        return document


def open_runtime_accounts(state_dir: Path, cipher: GrantCipher) -> RuntimeAccounts:
    """Return the accounts that were added to the proxy of this state directory."""
    return RuntimeAccounts(accounts_directory(state_dir), cipher)


def accounts_directory(state_dir: Path) -> Path:
    """Return the directory of the added accounts."""
    return state_dir.absolute() / "accounts"


def account_key(document: Mapping[str, object]) -> str:
    """Return the key of the account that the document describes; "" if it names no mailbox."""
    email = document.get("email")
    return login_key(email) if isinstance(email, str) else ""


def _in_words(error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    return f"cannot be read: {reason}" if reason else str(error)
