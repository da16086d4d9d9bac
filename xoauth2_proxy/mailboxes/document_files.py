"""Keeps JSON documents in a directory, one file each: what is added while the proxy runs.

A file is replaced as a whole, only its owner may read it, and it may be encrypted. A file that
cannot be read is reported, and the others are used.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from xoauth2_proxy import strict_json
from xoauth2_proxy.files import private_directory, replace_durably, sync_directory
from xoauth2_proxy.oauth.stores.encryption import NO_ENCRYPTION, GrantCipher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xoauth2_proxy.strict_json import Json


class DocumentFiles:
    """The directory of documents of one kind, each known by a key; every method blocks."""

    KIND: ClassVar[str]  # what a document is, for messages

    def __init__(self, directory: Path, cipher: GrantCipher = NO_ENCRYPTION) -> None:
        self._directory = directory
        self._cipher = cipher

    @staticmethod
    def key_of(document: Mapping[str, object]) -> str:
        """Return the key of what the document describes; "" if it names none."""
        raise NotImplementedError

    def read(self) -> tuple[list[tuple[str, dict[str, Json]]], list[str]]:
        """Return the documents, each with its file's name, and why others cannot be read."""
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
        """Return the documents that can be read, each with its file's name for messages."""
        return self.read()[0]

    def keys(self) -> frozenset[str]:
        """Return the keys of the documents that can be read."""
        return frozenset(self.key_of(document) for _, document in self.documents())

    def add(self, document: Mapping[str, object]) -> None:
        """Write the document, which replaces one with the same key. Raises `OSError`.

        On return it survives a crash. It is not validated here.
        """
        private_directory(self._directory)
        octets = json.dumps(dict(document), indent=2).encode()
        replace_durably(self._path(self.key_of(document)), self._cipher.encrypt(octets))

    def remove(self, key: str) -> bool:
        """Delete the document; return whether there was one. Raises `OSError`."""
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
            return self.key_of(self._document(path)) == key
        return False

    def _document(self, path: Path) -> dict[str, Json]:
        document, faults = strict_json.parse(self._cipher.decrypt(path.read_bytes()))
        if not isinstance(document, dict):
            raise ValueError(f"must hold one {self.KIND}, an object")
        if faults:
            raise ValueError("; ".join(": ".join(fault) for fault in faults))
        return document


def _in_words(error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    return f"cannot be read: {reason}" if reason else str(error)
