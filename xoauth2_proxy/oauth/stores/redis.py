"""Keeps grants in a Redis server, for all processes of several machines.

A provider may hand out a refresh token only once, so a Redis that forgets the last second's writes
in a crash loses mailboxes: have it write each one to disk (`appendonly yes`, `appendfsync always`).
A replica that takes over may lack the last writes, whatever the server's settings.

I1: a lock ends by itself, some seconds after its holder has died, and belongs to one token.
I2: a holder that lost its lock, because it stood still for too long, writes nothing any more.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.loopback import is_loopback
from xoauth2_proxy.oauth.stores import codec
from xoauth2_proxy.oauth.stores.encryption import NO_SEAL, Seal
from xoauth2_proxy.oauth.stores.mailbox_locks import LOCK_SECONDS, Turns, until_free

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.oauth.stores import StoredGrant
    from xoauth2_proxy.oauth.stores.mailbox_locks import GiveBack

_REQUEST_SECONDS = 5.0  # one request, with its connection
_CONNECTIONS = 16
_HELD_SECONDS = 15.0  # how long a lock outlives its holder
_PARAMETERS = {"db", "ssl_ca_certs"}  # of the URL; others could turn off checks

_HOLD_ON = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
_SAVE = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
_DELETE = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
return 1
"""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.AuthenticationError, "it refuses the password or wants one"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "it has no password of that form"),
    (exceptions.NoPermissionError, "it does not permit this user all that is needed"),
    (exceptions.AuthorizationError, "it does not permit this user all that is needed"),
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
        seal: Seal = NO_SEAL,
        *,
        held_seconds: float = _HELD_SECONDS,
        wait_seconds: float = LOCK_SECONDS,
    ) -> None:
        """Raises `ValueError`: the URL cannot be used; the text does not quote it."""
        self._where = _checked(url, seal)
        self._seal = seal
        self._held_ms = round(held_seconds * 1000)
        self._held: dict[str, str] = {}  # mailbox → the token of the lock that we hold
        self._turns = Turns(wait_seconds)
        self._thread = ThreadPoolExecutor(1, "grants")  # stretching a key takes a while
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                protocol=2,  # the third needs a HELLO, which hides that a password is wanted
                max_connections=_CONNECTIONS,
                timeout=_REQUEST_SECONDS,
                socket_timeout=_REQUEST_SECONDS,
                socket_connect_timeout=_REQUEST_SECONDS,
                retry=Retry(NoBackoff(), 0),  # who asks for tokens tries again
            )
        )

    async def load(self, mailbox: str) -> StoredGrant | None:
        """Return the grant; None if there is none.

        Raises:
            TokenStoreUnavailable: it cannot be read, opened or understood; it stays as it is.
        """
        document = await self._ask(self._redis.get(_grant_key(mailbox)))
        if document is None:
            return None
        loop = asyncio.get_running_loop()
        read = partial(codec.read, mailbox, document, self._seal)
        try:
            return await loop.run_in_executor(self._thread, read)
        except ValueError as error:
            key = _grant_key(mailbox)
            raise TokenStoreUnavailable(f"{key} in {self._where}: {error}") from None

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """Return when the server has taken the grant. Cancelling does not stop it.

        Raises:
            TokenStoreUnavailable: it did not, or the lock that was held has been lost meanwhile.
        """
        await self._turns.change(mailbox, partial(self._save, mailbox, grant))

    async def delete(self, mailbox: str) -> None:
        """Forget the grant, if there is one. Raises `TokenStoreUnavailable`."""
        await self._turns.change(mailbox, partial(self._change, _DELETE, mailbox))

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """Return the mailbox's lock, which ends some seconds after this process has died.

        Entering it raises `TokenStoreUnavailable` if it is not free in time.
        """
        return self._turns.hold(mailbox, partial(self._take, mailbox))

    async def close(self) -> None:
        """Let changes under way end, and the connections."""
        await self._turns.close()
        self._thread.shutdown(wait=False)
        with suppress(exceptions.RedisError, OSError):
            await self._redis.aclose()

    async def _save(self, mailbox: str, grant: StoredGrant) -> None:
        loop = asyncio.get_running_loop()
        write = partial(codec.write, mailbox, grant, self._seal)
        await self._change(_SAVE, mailbox, await loop.run_in_executor(self._thread, write))

    async def _change(self, script: str, mailbox: str, *arguments: bytes) -> None:
        held = self._held.get(mailbox, "")
        keys = (_lock_key(mailbox), _grant_key(mailbox))
        if not await self._ask(self._redis.eval(script, 2, *keys, held, *arguments)):
            raise TokenStoreUnavailable(f"the lock of {mailbox} in {self._where} was lost")

    async def _take(self, mailbox: str) -> GiveBack:
        key, token = _lock_key(mailbox), secrets.token_hex(16)
        try:
            await until_free(partial(self._attempt, key, token))
        except BaseException:
            # The server may have heard us though its answer did not arrive. Nobody waits for this.
            self._turns.begin(mailbox, partial(self._let_go, key, token))
            raise
        self._held[mailbox] = token
        holding = asyncio.create_task(self._hold_on(key, token), name=f"hold {key}")
        return partial(self._give_back, mailbox, token, holding)

    async def _attempt(self, key: str, token: str) -> bool | None:
        taken = await self._ask(self._redis.set(key, token, nx=True, px=self._held_ms))
        return True if taken else None

    async def _hold_on(self, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._held_ms / 3000)
            with suppress(TokenStoreUnavailable):
                if not await self._ask(self._redis.eval(_HOLD_ON, 1, key, token, self._held_ms)):
                    return  # lost: the next write finds out

    async def _give_back(self, mailbox: str, token: str, holding: asyncio.Task[None]) -> None:
        holding.cancel()
        self._held.pop(mailbox, None)
        await self._let_go(_lock_key(mailbox), token)

    async def _let_go(self, key: str, token: str) -> None:
        with suppress(TokenStoreUnavailable):  # then it ends by itself
            await self._ask(self._redis.eval(_GIVE_BACK, 1, key, token))

    async def _ask(self, answer: Awaitable[Any]) -> Any:  # noqa: ANN401 - what the server says
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                return await answer
        except (exceptions.RedisError, OSError) as error:
            raise TokenStoreUnavailable(f"{self._where}: {_reason(error)}") from None


def _grant_key(mailbox: str) -> str:
    return f"xoauth2-proxy:grant:{mailbox}"


def _lock_key(mailbox: str) -> str:
    return f"xoauth2-proxy:lock:{mailbox}"


def _checked(url: str, seal: Seal) -> str:
    """Return words for where the server is; raise `ValueError` for a URL that is not good enough.

    A URL may hold a password, so nothing of it is repeated but host, port and path of a socket.
    """
    try:
        parts = urlsplit(url)
        where = f"redis at {parts.hostname}:{parts.port or 6379}"
        unknown = parse_qs(parts.query, keep_blank_values=True).keys() - _PARAMETERS
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme == "unix":
        where = f"redis at {parts.path}"
    elif parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ValueError("it is none of redis://host:port, rediss://host:port and unix:///path")
    if unknown or parts.fragment:
        raise ValueError(f"it has other parameters than {' and '.join(sorted(_PARAMETERS))}")
    if parts.scheme == "redis" and not seal and not is_loopback(parts.hostname or ""):
        raise ValueError("off this machine, grants need rediss:// or a key (store.key)")
    return where


def _reason(error: Exception) -> str:
    """Return words for what went wrong. A server's own text may quote the values it was sent."""
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    if isinstance(error, exceptions.ResponseError):
        text = str(error)
        if text.startswith("unknown command"):
            return "it lacks one of the commands GET, SET and EVAL"
        code = text.partition(" ")[0]
        return f"it answered {code}" if code.isupper() else "it answered with an error"
    return f"{type(error).__name__}: {str(error)[:200]}"  # of a connection: its address and errno
