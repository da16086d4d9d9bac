"""How a grant is written down, in whatever place: with its mailbox's name, and sealed as a whole.

The name inside tells a person whose grant it is, and keeps one mailbox's document from being passed
off as another's.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.oauth.stores import StoredGrant

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.stores.encryption import Seal


def write(mailbox: str, grant: StoredGrant, seal: Seal) -> bytes:
    """Return the document to keep."""
    values = {"mailbox": mailbox, "grant": json.loads(grant.to_json())}
    return seal.close(json.dumps(values, indent=1).encode() + b"\n")


def read(mailbox: str, document: bytes, seal: Seal) -> StoredGrant:
    """Return the mailbox's grant.

    Raises:
        ValueError: the document is damaged, another mailbox's, or sealed with a key we lack; the
            text says which and what to do.
    """
    octets = seal.open(document)
    whose, grant = "", None
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        values: Any = json.loads(octets)
        whose = values["mailbox"]
        grant = StoredGrant.from_json(json.dumps(values["grant"]).encode())
    if grant is None:  # not said while that error is handled: it would hang on ours, tokens and all
        raise ValueError(
            "it is damaged; restore it from a backup, or move it away and sign the mailbox in again"
        )
    if whose != mailbox:
        raise ValueError("it holds the grant of another mailbox; move it away")
    return grant
