"""Where grants outlive a token and a process: what is kept, and what a place to keep it must do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from xoauth2_proxy.oauth.grant import EpochSeconds

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

_NEVER = EpochSeconds(0.0)

FailureKind = Literal["revoked", "refused", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the last attempt to get an access token failed."""

    kind: FailureKind  # a person's, the operator's, nobody's
    oauth_error: str  # the endpoint's word, as invalid_grant; "": it said none
    text: str  # for the operator; no secret
    at: EpochSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGrant:
    """All that is known of one mailbox's grant."""

    issued_to: str = ""  # provider and client id; tokens are worth nothing to another client
    # Which configured refresh token this descends from (`oauth_client.fingerprint`): when the
    # operator configures another one, that one counts.
    descends_from: str = ""
    refresh_token: str = field(default="", repr=False)
    signed_in_at: EpochSeconds = _NEVER  # or when the configured refresh token was first used
    refresh_token_expires_at: EpochSeconds = _NEVER  # as the endpoint said; never: it did not say
    access_token: str = field(default="", repr=False)
    access_token_expires_at: EpochSeconds = _NEVER
    refreshed_at: EpochSeconds = _NEVER  # the last success
    scope: str = ""
    subject: str = ""  # who signed in, by the provider's own stable id
    failure: Failure | None = None  # of the last attempt; None: it succeeded

    def to_json(self) -> bytes:
        """Return the grant as a JSON document."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, document: bytes) -> StoredGrant:
        """Return the grant that `to_json` wrote; keys of a later version are left out.

        Raises:
            ValueError: it is something else.
        """
        values: Any = json.loads(document)
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
    """Keeps one grant a mailbox, for all processes that share it. Mailboxes are `Account.key`s."""

    async def load(self, mailbox: str) -> StoredGrant | None:
        """Return the grant; None if there is none. Raises `TokenStoreUnavailable`."""
        ...

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """Return when the grant has replaced the one before and will survive a crash.

        Raises `TokenStoreUnavailable`; then the one before is still there.
        """
        ...

    async def delete(self, mailbox: str) -> None:
        """Forget the grant, if there is one. Raises `TokenStoreUnavailable`."""
        ...

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """Return a lock that one process and one task at a time can hold.

        It is free again when its holder has died. Entering waits for a bounded time, then raises
        `TokenStoreUnavailable`.
        """
        ...

    async def close(self) -> None:
        """Release what the store holds open."""
        ...


def _is_well_typed(values: StoredGrant | Failure) -> bool:
    kinds = {"EpochSeconds": (int, float), "Failure | None": (Failure, NoneType)}
    return all(
        isinstance(getattr(values, one.name), kinds.get(str(one.type), str))
        for one in fields(values)
    )
