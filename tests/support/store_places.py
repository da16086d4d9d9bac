"""Places for grants, each of which several stores can be opened on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.redis_server import redis_server
from xoauth2_proxy.oauth.stores.file import FileStore
from xoauth2_proxy.oauth.stores.mailbox_locks import LOCK_WAIT_SECONDS
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.stores.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xoauth2_proxy.oauth.stores import TokenStore


REDIS = pytest.param("redis", marks=pytest.mark.outside)


@dataclass
class Place:
    """A place; the stores opened on it are closed with it."""

    kind: str
    where: str = ""  # as `store_user` takes it
    _stores: list[TokenStore] = field(default_factory=list)

    def open(self, wait_seconds: float = LOCK_WAIT_SECONDS) -> TokenStore:
        """Return a store as another process would open it, with locks of its own."""
        store: TokenStore
        match self.kind:
            case "file":
                store = FileStore(Path(self.where), wait_seconds=wait_seconds)
            case "redis":
                store = RedisStore(self.where, wait_seconds=wait_seconds)
            case _:
                store = MemoryStore(wait_seconds=wait_seconds)
        self._stores.append(store)
        return store

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


@asynccontextmanager
async def place_of(kind: str, directory: Path) -> AsyncIterator[Place]:
    """Make a place of a kind: `memory`, `file` or `redis`."""
    if kind == "redis":
        with redis_server() as server:
            place = Place(kind, server.url)
            try:
                yield place
            finally:
                await place.close()
        return
    place = Place(kind, str(directory / "grants"))
    try:
        yield place
    finally:
        await place.close()
