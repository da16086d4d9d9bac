"""Stores grants in a Redis server, for all processes of several machines.

A provider may issue a refresh token only once, so a Redis that loses the last second's writes in a
crash loses mailboxes: let it write each one to disk (`appendonly yes`, `appendfsync always`). A
replica that takes over may lack the last writes, whatever the server's settings.

I1: a lock belongs to one random token, and expires some seconds after its holder has died.
I2: a holder that has lost its lock, because it was suspended for too long, writes nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.stores import read_document, write_document
from xoauth2_proxy.oauth.stores.encryption import NO_ENCRYPTION, GrantCipher
from xoauth2_proxy.oauth.stores.mailbox_locks import (
    LOCK_WAIT_SECONDS,
    MailboxLocks,
    poll_until_free,
)
from xoauth2_proxy.oauth.stores.redis_url import redis_location

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.oauth.stores import StoredGrant
    from xoauth2_proxy.oauth.stores.mailbox_locks import Release

_REQUEST_SECONDS = 5.0  # one request, with its connection
_CONNECTIONS = 16
_HELD_SECONDS = 15.0  # how long a lock outlives its holder

_EXTEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
_CHANGE = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] then redis.call('SET', KEYS[2], ARGV[2]) else redis.call('DEL', KEYS[2]) end
return 1
"""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.AuthenticationError, "it refuses the password or requires one"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "it has no password of that form"),
    (exceptions.NoPermissionError, "it does not allow this user all commands that are needed"),
    (exceptions.AuthorizationError, "it does not allow this user all commands that are needed"),
    (exceptions.ReadOnlyError, "it is a replica, which takes no writes"),
    (exceptions.OutOfMemoryError, "it has no memory left"),
    (exceptions.BusyLoadingError, "it is still loading its data"),
    (exceptions.TimeoutError, "no answer in time"),
    (TimeoutError, "no answer in time"),
)


class RedisStore:
    """Grants under `xoauth2-proxy:grant:…`, locks under `xoauth2-proxy:lock:…`."""

    def __init__(
        self,
        url: str,
        cipher: GrantCipher = NO_ENCRYPTION,
        *,
        held_seconds: float = _HELD_SECONDS,
        wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        """Raises `ValueError`: the URL cannot be used; the text does not quote it."""
        self._where = redis_location(url, is_encrypted=bool(cipher))
        self._cipher = cipher
        self._held_ms = round(held_seconds * 1000)
        self._held: dict[str, str] = {}  # mailbox → the token of the lock that we hold
        self._locks = MailboxLocks(wait_seconds)
        self._thread = ThreadPoolExecutor(1, "grants")  # stretching a key is slow
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                protocol=2,  # version 3 begins with HELLO, which hides that a password is missing
                max_connections=_CONNECTIONS,
                timeout=_REQUEST_SECONDS,
                socket_timeout=_REQUEST_SECONDS,
                socket_connect_timeout=_REQUEST_SECONDS,
                retry=Retry(NoBackoff(), 0),  # callers retry
            )
        )

    async def load(self, mailbox: str) -> StoredGrant | None:
        """As `TokenStore.load`; a document that cannot be decrypted is not changed."""
        document = await self._ask(self._redis.get(_grant_key(mailbox)))
        if document is None:
            return None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, read_document, mailbox, document, self._cipher
            )
        except ValueError as error:
            key = _grant_key(mailbox)
            raise TokenStoreUnavailable(f"{key} in {self._where}: {error}") from None

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """As `TokenStore.save`, and raises if the lock was lost; cancelling does not stop it."""
        await self._locks.change(mailbox, partial(self._save, mailbox, grant))

    async def delete(self, mailbox: str) -> None:
        """As `TokenStore.delete`, and raises if the lock was lost; cancelling does not stop it."""
        await self._locks.change(mailbox, partial(self._change, mailbox))

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """As `TokenStore.lock`; it expires some seconds after this process has died."""
        return self._locks.hold(mailbox, partial(self._take, mailbox))

    async def check(self) -> None:
        """As `TokenStore.check`: a lock that nobody waits for is written, and expires."""
        await self._ask(self._redis.set(_lock_key(""), "check", px=self._held_ms))

    async def close(self) -> None:
        """Wait for running changes, then close the connections."""
        await self._locks.close()
        self._thread.shutdown(wait=False)
        with suppress(exceptions.RedisError, OSError):
            await self._redis.aclose()

    async def _save(self, mailbox: str, grant: StoredGrant) -> None:
        loop = asyncio.get_running_loop()
        document = await loop.run_in_executor(
            self._thread, write_document, mailbox, grant, self._cipher
        )
        await self._change(mailbox, document)

    async def _change(self, mailbox: str, *document: bytes) -> None:
        """Write the document, or without one delete the grant."""
        held = self._held.get(mailbox, "")
        keys = (_lock_key(mailbox), _grant_key(mailbox))
        if not await self._ask(self._redis.eval(_CHANGE, 2, *keys, held, *document)):
            raise TokenStoreUnavailable(f"the lock of {mailbox} in {self._where} was lost")

    async def _take(self, mailbox: str) -> Release:
        key, token = _lock_key(mailbox), secrets.token_hex(16)
        try:
            await poll_until_free(partial(self._attempt, key, token))
        except BaseException:
            # The server may have set the lock although its answer did not arrive.
            self._locks.start(mailbox, partial(self._delete_lock, key, token))
            raise
        self._held[mailbox] = token
        holding = asyncio.create_task(self._extend(key, token), name=f"hold {key}")
        return partial(self._release_lock, mailbox, token, holding)

    async def _attempt(self, key: str, token: str) -> bool | None:
        taken = await self._ask(self._redis.set(key, token, nx=True, px=self._held_ms))
        return True if taken else None

    async def _extend(self, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._held_ms / 3000)
            with suppress(TokenStoreUnavailable):
                if not await self._ask(self._redis.eval(_EXTEND, 1, key, token, self._held_ms)):
                    return  # lost: the next write finds out

    async def _release_lock(self, mailbox: str, token: str, holding: asyncio.Task[None]) -> None:
        holding.cancel()
        self._held.pop(mailbox, None)
        await self._delete_lock(_lock_key(mailbox), token)

    async def _delete_lock(self, key: str, token: str) -> None:
        with suppress(TokenStoreUnavailable):  # then it ends by itself
            await self._ask(self._redis.eval(_RELEASE, 1, key, token))

    async def _ask(self, answer: Awaitable[Any]) -> Any:  # noqa: ANN401 - what the server says
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                reply = await answer
            # A cancellation that the library swallows would turn a bounded wait for a lock into
            # one without an end.
            if task is not None and task.cancelling() > cancellations:
                raise asyncio.CancelledError
            return reply
        except (exceptions.RedisError, OSError) as error:
            raise TokenStoreUnavailable(f"{self._where}: {_reason(error)}") from None


def _grant_key(mailbox: str) -> str:
    return f"xoauth2-proxy:grant:{mailbox}"


def _lock_key(mailbox: str) -> str:
    return f"xoauth2-proxy:lock:{mailbox}"


def _reason(error: Exception) -> str:
    """Return the reason in our words: a server's own text may quote what it was sent."""
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    if isinstance(error, exceptions.ResponseError):
        text = str(error)
        if text.startswith("unknown command"):
            return "it lacks one of the commands GET, SET and EVAL"
        code = text.partition(" ")[0]
        return f"it answered {code}" if code.isupper() else "it answered with an error"
    return f"{type(error).__name__}: {str(error)[:200]}"  # of a connection: address and errno
