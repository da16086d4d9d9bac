"""A token store that fails when a test says so; several token sources may share it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.oauth.stores import StoredGrant


class FragileStore(MemoryStore):
    """Keeps grants in memory, as long as it is told to work."""

    def __init__(self) -> None:
        super().__init__()
        self.is_readable = True
        self.is_writable = True
        self.breaks_with: Exception | None = None  # a defect: what no store may raise
        self.loads = self.saves = 0
        self.is_closed = False

    async def load(self, mailbox: str) -> StoredGrant | None:
        self.loads += 1
        self._fail_unless(self.is_readable)
        return await super().load(mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        self._fail_unless(self.is_writable)
        self.saves += 1
        await super().save(mailbox, grant)

    @asynccontextmanager
    async def _hold(self, mailbox: str) -> AsyncIterator[None]:
        self._fail_unless(self.is_readable)
        async with super().lock(mailbox):
            yield

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        return self._hold(mailbox)

    async def check(self) -> None:
        self._fail_unless(self.is_readable and self.is_writable)

    async def close(self) -> None:
        self.is_closed = True
        await super().close()

    async def grant(self, mailbox: str = "someone@example.com") -> StoredGrant:
        """Return what is kept of the mailbox, whatever fails."""
        kept = await super().load(mailbox)
        assert kept is not None
        return kept

    def _fail_unless(self, works: bool) -> None:
        if self.breaks_with is not None:
            raise self.breaks_with
        if not works:
            raise TokenStoreUnavailable("no space left on device")
