"""Reads the JSON documents of runs and explains what is wrong with an invalid one.

A document may come from any source, so no key is assumed to exist.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 2
_MAX_BYTES = 64 << 20  # a run of 600 bins has some 100 kB

Document = Mapping[str, object]


class DocumentError(Exception):
    """A document cannot be used; the text says why."""


def read(path: Path, kind: str) -> Document:
    """Return the file's document, which must be of this kind.

    Raises:
        DocumentError: it cannot be read, or is of another kind; the text names the file.
    """
    try:
        return _parsed(path, kind)
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise DocumentError(f"{path} cannot be read: {reason}") from None
    except RecursionError:
        raise DocumentError(f"{path} cannot be read: it is nested too deeply") from None


def value(document: Document, path: str) -> object:
    """Return the value at a dotted path of names.

    Raises:
        DocumentError: there is none.
    """
    found: object = document
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            raise DocumentError(f"the document has no {path}")
        found = found[name]
    return found


def number(document: Document, path: str) -> float | None:
    """Return the number at the path, from 0 up; None if it, or an object on the path, is null.

    Raises:
        DocumentError: there is something else, or nothing.
    """
    holder, _, name = path.rpartition(".")
    if holder and value(document, holder) is None:
        return None
    found = value(document, f"{holder}.{name}" if holder else name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise DocumentError(f"{path} is no number")
    if not 0 <= found <= sys.float_info.max:  # which nan and infinity are not
        raise DocumentError(f"{path} is not a number from 0 up")
    return found


def text(document: Document, path: str) -> str:
    """Return the text at the path.

    Raises:
        DocumentError: there is something else, or nothing.
    """
    found = value(document, path)
    if not isinstance(found, str):
        raise DocumentError(f"{path} is not text")
    return found


def part(document: Document, path: str) -> Document:
    """Return the object at the path.

    Raises:
        DocumentError: there is something else, or nothing.
    """
    found = value(document, path)
    if not isinstance(found, Mapping):
        raise DocumentError(f"{path} is not an object")
    return found


def rows(document: Document, path: str) -> list[Document]:
    """Return the list of objects at the path.

    Raises:
        DocumentError: there is something else, or nothing.
    """
    found = value(document, path)
    if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
        raise DocumentError(f"{path} is not a list of objects")
    return found


def _parsed(path: Path, kind: str) -> Document:
    with path.open("rb") as file:
        octets = file.read(_MAX_BYTES + 1)
    if len(octets) > _MAX_BYTES:
        raise DocumentError(f"{path} is too large for a document of xoauth2-bench")
    document = json.loads(octets.decode("utf-8"), parse_constant=_refuse)
    if not isinstance(document, dict) or "schema_version" not in document:
        raise DocumentError(f"{path} is not a document of xoauth2-bench: it has no schema_version")
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise DocumentError(
            f"{path} has schema_version {version!r}; this program reads {SCHEMA_VERSION}. "
            "Measure again with this version of xoauth2-bench."
        )
    if document.get("kind") != kind:
        raise DocumentError(f"{path} is of kind {document.get('kind')!r}; a {kind} is needed")
    return document


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
