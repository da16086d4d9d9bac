"""The store that a configuration names, or words for what is wrong with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet
from keyring.backends import fail

from tests.support.keyrings import Keyring, keyring_in_use
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.factory import open_cipher, open_store
from xoauth2_proxy.oauth.stores.file import FileStore
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.stores.redis import RedisStore

if TYPE_CHECKING:
    from pathlib import Path

    from keyring.backend import KeyringBackend

    from xoauth2_proxy.oauth.stores import TokenStore

MAILBOX = "someone@example.com"
GRANT = StoredGrant(refresh_token="rt-secret-1")
KEY = Fernet.generate_key().decode()


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def kept_in(store: TokenStore) -> StoredGrant | None:
    try:
        return await store.load(MAILBOX)
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("kind", "what"), [("file", FileStore), ("memory", MemoryStore), ("redis", RedisStore)]
)
async def test_each_kind_is_opened_without_touching_anything(
    tmp_path: Path, kind: str, what: type
) -> None:
    store = open_store(kind, tmp_path / "grants", url="redis://localhost:1")
    assert isinstance(store, what)
    await store.close()
    assert everything_in(tmp_path) == b""


async def test_a_file_store_with_a_key_seals_what_was_open(tmp_path: Path) -> None:
    directory = tmp_path / "grants"
    store = open_store("file", directory)
    await store.save(MAILBOX, GRANT)
    await store.close()
    assert b"secret" in everything_in(directory)
    store = open_store("file", directory, key=KEY)
    assert await store.load(MAILBOX) == GRANT
    await store.save(MAILBOX, GRANT)
    await store.close()
    assert b"secret" not in everything_in(directory)
    assert await kept_in(open_store("file", directory, key=KEY)) == GRANT
    with pytest.raises(TokenStoreUnavailable, match=r"store\.key"):
        await kept_in(open_store("file", directory))


async def test_the_keyrings_key_seals_and_is_found_again(tmp_path: Path) -> None:
    directory = tmp_path / "grants"
    with keyring_in_use(Keyring()):
        store = open_store("file", directory, is_key_in_keyring=True)
        again = open_store("file", directory, is_key_in_keyring=True)
    await store.save(MAILBOX, GRANT)
    await store.close()
    assert b"secret" not in everything_in(directory)
    assert await kept_in(again) == GRANT


def test_the_seal_of_a_directory_is_that_of_its_store(tmp_path: Path) -> None:
    with keyring_in_use(Keyring()):
        first = open_cipher(tmp_path / "state", is_key_in_keyring=True)
        second = open_cipher(tmp_path / "state", is_key_in_keyring=True)
    assert second.decrypt(first.encrypt(b"x")) == b"x"
    assert open_cipher(tmp_path, KEY).decrypt(open_cipher(tmp_path, KEY).encrypt(b"x")) == b"x"
    assert not open_cipher(tmp_path)


def test_a_machine_without_a_keyring_cannot_keep_the_key_there(tmp_path: Path) -> None:
    backend: KeyringBackend = fail.Keyring()  # type: ignore[no-untyped-call]
    with (
        keyring_in_use(backend),
        pytest.raises(ValueError, match=r"store\.keyring: .*keyring cannot be used"),
    ):
        open_store("file", tmp_path / "grants", is_key_in_keyring=True)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("sqlite", {}, r"store\.kind: there is no 'sqlite'"),
        ("file", {"key": "hunter2"}, r"store\.key: .*16 characters"),
        ("redis", {"url": "http://localhost"}, r"store\.url: .*redis://"),
        ("redis", {"url": "redis://:secret@redis.example"}, r"store\.url: .*rediss://"),
    ],
)
def test_a_setting_that_is_no_good_is_named(
    tmp_path: Path, kind: str, settings: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        open_store(kind, tmp_path, **settings)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xoauth2_proxy.oauth.stores.redis", None)
    with pytest.raises(ValueError, match=r"pip install redis"):
        open_store("redis", tmp_path, url="redis://localhost")
