"""Grants in Redis: who lost the lock writes nothing, and errors do not tell the password."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from redis.asyncio import Redis

from tests.support.redis_server import RedisServer, redis_server
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores import redis as redis_module
from xoauth2_proxy.oauth.stores.encryption import GrantCipher
from xoauth2_proxy.oauth.stores.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.outside

MAILBOX = "someone@example.com"
GRANT_KEY = f"xoauth2-proxy:grant:{MAILBOX}"
LOCK_KEY = f"xoauth2-proxy:lock:{MAILBOX}"
GRANT = StoredGrant(refresh_token="rt-secret-1", access_token="at-secret-1")
NEWER = StoredGrant(refresh_token="rt-secret-2")
SHORT_SECONDS = 0.3


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


OpenStore = Callable[..., RedisStore]


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Open stores with the arguments of `RedisStore`; they are closed with the test."""
    stores: list[RedisStore] = []

    def opened(*arguments: Any, **settings: Any) -> RedisStore:
        stores.append(RedisStore(*arguments, **settings))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


@pytest.fixture
async def store(server: RedisServer, open_store: OpenStore) -> RedisStore:
    return open_store(server.url)


@pytest.fixture
async def operator(server: RedisServer) -> AsyncIterator[Redis]:
    """Who looks into the server and changes things there."""
    client = Redis.from_url(server.url)
    yield client
    await client.aclose()


async def refusal(store: RedisStore) -> str:
    """Return why the store cannot save a grant; no secret is in it."""
    with pytest.raises(TokenStoreUnavailable) as caught:
        await store.save(MAILBOX, GRANT)
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_what_is_kept_is_sealed(
    server: RedisServer, operator: Redis, open_store: OpenStore
) -> None:
    store = open_store(server.url, GrantCipher(Fernet.generate_key().decode()))
    await store.save(MAILBOX, GRANT)
    kept = await operator.get(GRANT_KEY)
    assert isinstance(kept, bytes)
    assert b"secret" not in kept
    assert await store.load(MAILBOX) == GRANT


async def test_a_sealed_grant_without_the_key_is_no_missing_one(
    server: RedisServer, store: RedisStore, open_store: OpenStore
) -> None:
    sealing = open_store(server.url, GrantCipher(Fernet.generate_key().decode()))
    await sealing.save(MAILBOX, GRANT)
    with pytest.raises(TokenStoreUnavailable, match=GRANT_KEY):
        await store.load(MAILBOX)


async def test_a_grant_is_kept_for_ever(store: RedisStore, operator: Redis) -> None:
    await store.save(MAILBOX, GRANT)
    assert await operator.ttl(GRANT_KEY) == -1


async def test_a_lock_is_held_as_long_as_its_holder_lives(
    server: RedisServer, open_store: OpenStore
) -> None:
    store = open_store(server.url, held_seconds=1.0)
    other = open_store(server.url, wait_seconds=1.5)
    async with store.lock(MAILBOX):
        with pytest.raises(TokenStoreUnavailable):
            async with other.lock(MAILBOX):
                pass
        await store.save(MAILBOX, GRANT)


async def test_who_lost_the_lock_cannot_overwrite_a_newer_grant(
    server: RedisServer, store: RedisStore, operator: Redis, open_store: OpenStore
) -> None:
    other = open_store(server.url)
    async with store.lock(MAILBOX):
        await operator.delete(LOCK_KEY)  # as when the holder stood still for too long
        async with other.lock(MAILBOX):
            await other.save(MAILBOX, NEWER)
            assert "lost" in await refusal(store)
            with pytest.raises(TokenStoreUnavailable, match="lost"):
                await store.delete(MAILBOX)
        assert "lost" in await refusal(store)
    assert await store.load(MAILBOX) == NEWER


async def test_who_lost_the_lock_does_not_free_anothers(store: RedisStore, operator: Redis) -> None:
    async with store.lock(MAILBOX):
        await operator.set(LOCK_KEY, "another's")
    assert await operator.get(LOCK_KEY) == b"another's"


async def test_a_lock_that_was_granted_to_nobody_is_given_back(
    server: RedisServer, open_store: OpenStore
) -> None:
    store = open_store(server.url, held_seconds=3600.0)  # which would be waited for
    other = open_store(server.url, wait_seconds=PATIENCE_SECONDS)
    await store.load(MAILBOX)  # so that it is connected
    server.suspend()
    waiter = asyncio.create_task(enter(store))
    for _ in range(20):  # until the request is on its way
        await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    server.resume()
    await enter(other)


async def test_a_cancellation_that_the_library_swallows_still_ends_the_request(
    store: RedisStore,
) -> None:
    async def swallow() -> bytes:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return b"too late"
        return b"never"

    asking = asyncio.create_task(store._ask(swallow()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def enter(store: RedisStore) -> None:
    async with store.lock(MAILBOX):
        pass


async def test_a_server_that_is_gone_is_named_without_the_password(
    server: RedisServer, store: RedisStore
) -> None:
    await store.save(MAILBOX, GRANT)
    server.stop()
    assert server.socket in await refusal(store)
    with pytest.raises(TokenStoreUnavailable):
        await store.load(MAILBOX)
    with pytest.raises(TokenStoreUnavailable):
        async with store.lock(MAILBOX):
            pass
    server.start()
    await store.save(MAILBOX, NEWER)
    assert await store.load(MAILBOX) == NEWER


async def test_a_server_that_was_restarted_is_used_at_once(
    server: RedisServer, store: RedisStore
) -> None:
    await store.save(MAILBOX, GRANT)
    server.stop()
    server.start()
    await store.save(MAILBOX, NEWER)


async def test_a_server_that_does_not_answer_is_given_up(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, open_store: OpenStore
) -> None:
    monkeypatch.setattr(redis_module, "_REQUEST_SECONDS", SHORT_SECONDS)
    store = open_store(server.url)
    server.suspend()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert "no answer" in await refusal(store)
    server.resume()


async def test_a_tcp_port_where_nobody_listens_is_named(open_store: OpenStore) -> None:
    store = open_store("redis://user:secret@127.0.0.1:1/0")
    assert "127.0.0.1:1" in await refusal(store)


@pytest.mark.parametrize("password", ["", "wrong-secret"])
async def test_a_wrong_password_is_called_so(password: str, open_store: OpenStore) -> None:
    with redis_server("--requirepass", "right-secret") as server:
        store = open_store(f"unix://:{password}@{server.socket}")
        assert "password" in await refusal(store)
        store = open_store(f"unix://:right-secret@{server.socket}")
        await store.save(MAILBOX, GRANT)


async def test_what_the_server_quotes_of_a_request_is_not_repeated(open_store: OpenStore) -> None:
    with redis_server("--rename-command", "EVAL", "") as server:
        store = open_store(server.url)
        assert "EVAL" in await refusal(store)


async def test_another_kind_of_value_in_the_grants_place_is_an_error(
    store: RedisStore, operator: Redis
) -> None:
    await operator.hset(GRANT_KEY, "secret", "value")
    with pytest.raises(TokenStoreUnavailable, match="WRONGTYPE"):
        await store.load(MAILBOX)


async def test_a_full_server_is_called_so(
    server: RedisServer, operator: Redis, open_store: OpenStore
) -> None:
    store = open_store(server.url)
    await operator.config_set("maxmemory", "1")
    assert "memory" in await refusal(store)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "redis://"),
        ("http://localhost", "redis://"),
        ("redis://:secret/@[half", "unix:// URL"),
        ("redis://:sec/ret@localhost:port", "unix:// URL"),
        ("rediss://:secret@redis.example/0?ssl_cert_reqs=none", "parameters"),
        ("rediss://:secret@redis.example/0?ssl_check_hostname=false", "parameters"),
        ("redis://:secret@redis.example/0", "rediss://"),
    ],
)
def test_a_url_that_is_not_good_enough_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        RedisStore(url)
    assert "sec" not in str(caught.value).replace("second", "")


@pytest.mark.parametrize(
    "url",
    ["redis://localhost", "redis://127.0.0.1:1", "redis://[::1]:1/2", "unix:///run/redis?db=3"],
)
async def test_a_server_on_this_machine_needs_no_tls(url: str, open_store: OpenStore) -> None:
    open_store(url)


async def test_elsewhere_sealed_grants_or_tls_will_do(open_store: OpenStore) -> None:
    open_store("redis://redis.example", GrantCipher("a-key-long-enough"))
    open_store("rediss://redis.example")


# Whether it works at all.


async def test_a_check_tells_that_the_server_is_gone_and_that_it_is_back(
    server: RedisServer, store: RedisStore
) -> None:
    await store.check()
    server.stop()
    with pytest.raises(TokenStoreUnavailable, match=server.socket):
        await store.check()
    server.start()
    await store.check()


async def test_a_check_of_a_server_that_takes_no_writes_fails(
    server: RedisServer, store: RedisStore, operator: Redis
) -> None:
    await operator.replicaof("127.0.0.1", "1")
    with pytest.raises(TokenStoreUnavailable, match="takes no writes"):
        await store.check()
