"""Encodes grants for storage: with the mailbox's name, and encrypted as a whole.

The name identifies the grant for a person, and keeps one mailbox's document from being used for
another.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.oauth.stores import StoredGrant

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.stores.encryption import GrantCipher


def write(mailbox: str, grant: StoredGrant, cipher: GrantCipher) -> bytes:
    """Return the document to store."""
    values = {"mailbox": mailbox, "grant": grant.to_json()}
    return cipher.encrypt(json.dumps(values, indent=1).encode() + b"\n")


def read(mailbox: str, document: bytes, cipher: GrantCipher) -> StoredGrant:
    """Return the mailbox's grant.

    Raises `ValueError`: the document is damaged, of another mailbox, or encrypted with an unknown
    key; the text says which, and the remedy.
    """
    octets = cipher.decrypt(document)
    whose, grant = "", None
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        values: Any = json.loads(octets)
        whose = values["mailbox"]
        grant = StoredGrant.from_json(values["grant"])
    if grant is None:  # not raised above: that error, which holds tokens, would be its context
        raise ValueError(
            "it is damaged; restore it from a backup, or move it away and sign the mailbox in again"
        )
    if whose != mailbox:
        raise ValueError("it holds the grant of another mailbox; move it away")
    return grant
