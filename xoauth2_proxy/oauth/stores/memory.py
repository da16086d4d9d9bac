"""Stores grants in memory: for experiments, tests and mailboxes without a grant to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.stores.mailbox_locks import LOCK_WAIT_SECONDS, MailboxLocks

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.oauth.stores import StoredGrant


class MemoryStore:
    """A store for one process that ends with it."""

    def __init__(self, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self._grants: dict[str, StoredGrant] = {}
        self._locks = MailboxLocks(wait_seconds)

    async def load(self, mailbox: str) -> StoredGrant | None:
        """As `TokenStore.load`."""
        return self._grants.get(mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """As `TokenStore.save`."""
        self._grants[mailbox] = grant

    async def delete(self, mailbox: str) -> None:
        """As `TokenStore.delete`."""
        self._grants.pop(mailbox, None)

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """As `TokenStore.lock`."""
        return self._locks.hold(mailbox)

    async def check(self) -> None:
        """As `TokenStore.check`: it always works."""

    async def close(self) -> None:
        """Do nothing."""
