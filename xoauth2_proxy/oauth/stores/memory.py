"""Keeps grants as long as the process lives: for tries, tests and mailboxes that need no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.stores.mailbox_locks import LOCK_SECONDS, Turns

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.oauth.stores import StoredGrant


class MemoryStore:
    """Forgets everything with the process; nobody else sees it."""

    def __init__(self, *, wait_seconds: float = LOCK_SECONDS) -> None:
        self._grants: dict[str, StoredGrant] = {}
        self._turns = Turns(wait_seconds)

    async def load(self, mailbox: str) -> StoredGrant | None:
        """Return the grant; None if there is none."""
        return self._grants.get(mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """Keep the grant in place of the one before."""
        self._grants[mailbox] = grant

    async def delete(self, mailbox: str) -> None:
        """Forget the grant, if there is one."""
        self._grants.pop(mailbox, None)

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """Return the mailbox's lock. Entering raises `TokenStoreUnavailable` after a long wait."""
        return self._turns.hold(mailbox)

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""
