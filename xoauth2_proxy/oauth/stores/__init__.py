"""Stored grants, the documents they are kept as, and the interface of the stores.

A document names its mailbox, for a person who looks at it, and because one mailbox's document must
not be used for another. It is encrypted as a whole.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from xoauth2_proxy.oauth.grant import EpochSeconds

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.oauth.stores.encryption import GrantCipher

_NEVER = EpochSeconds(0.0)


class StoreKind(StrEnum):
    """Where grants outlive the process."""

    FILE = "file"
    MEMORY = "memory"  # they do not
    REDIS = "redis"


FailureKind = Literal["revoked", "refused", "unavailable", "login_refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the last token request failed, or the last login at the mail server with a token."""

    kind: FailureKind  # who must act: a person, the operator, no one, the operator
    oauth_error: str  # the endpoint's error code, as invalid_grant; "": none
    text: str  # for the operator; no secret
    at: EpochSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGrant:
    """One mailbox's grant, its last access token and its last failure."""

    issued_to: str = ""  # provider, client id and server; useless to any other
    # Fingerprint of the configured refresh token that this one replaced: if the operator configures
    # another, that one is used.
    descends_from: str = ""
    refresh_token: str = field(default="", repr=False)
    signed_in_at: EpochSeconds = _NEVER  # or when the configured refresh token was first used
    refresh_token_expires_at: EpochSeconds = _NEVER  # as the endpoint said; never: not stated
    access_token: str = field(default="", repr=False)
    access_token_expires_at: EpochSeconds = _NEVER
    refreshed_at: EpochSeconds = _NEVER  # the last success
    scope: str = ""
    subject: str = ""  # the provider's stable id of who signed in
    failure: Failure | None = None  # None: the last attempt succeeded

    @classmethod
    def from_json(cls, values: object) -> StoredGrant:
        """Return the grant of a JSON object; keys of a later version are ignored.

        Raises `ValueError`: it is something else.
        """
        if not isinstance(values, dict):
            raise ValueError("not an object")
        known = {one.name for one in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        try:
            if kept.get("failure") is not None:
                kept["failure"] = Failure(**kept["failure"])
            grant = cls(**kept)
        except TypeError as error:
            raise ValueError("not a grant") from error
        if not (_is_well_typed(grant) and (not grant.failure or _is_well_typed(grant.failure))):
            raise ValueError("not a grant")
        return grant


class TokenStore(Protocol):
    """Keeps one grant for each mailbox (an `Account.key`), for all processes that share it."""

    async def load(self, mailbox: str) -> StoredGrant | None:
        """Return the grant; None: there is none. Raises `TokenStoreUnavailable`."""
        ...

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """Replace the grant; return once it will survive a crash.

        Raises `TokenStoreUnavailable`; then the former grant is still there.
        """
        ...

    async def delete(self, mailbox: str) -> None:
        """Delete the grant, if there is one. Raises `TokenStoreUnavailable`."""
        ...

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """Return a lock that one task of one process holds at a time.

        It is released if its holder dies. Entering waits for a bounded time, then raises
        `TokenStoreUnavailable`.
        """
        ...

    async def check(self) -> None:
        """Return if grants can be read and written now. Raises `TokenStoreUnavailable`."""
        ...

    async def close(self) -> None:
        """Release the store's resources."""
        ...


def write_document(mailbox: str, grant: StoredGrant, cipher: GrantCipher) -> bytes:
    """Return the document to store."""
    values = {"mailbox": mailbox, "grant": asdict(grant)}
    return cipher.encrypt(json.dumps(values, indent=1).encode() + b"\n")


def read_document(mailbox: str, document: bytes, cipher: GrantCipher) -> StoredGrant:
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


def _is_well_typed(values: StoredGrant | Failure) -> bool:
    kinds = {"EpochSeconds": (int, float), "Failure | None": (Failure, NoneType)}
    return all(
        isinstance(getattr(values, one.name), kinds.get(str(one.type), str))
        for one in fields(values)
    )
