"""Grants as files: private, whole, and never taken for missing when they are only unreadable."""

# ruff: noqa: ASYNC240 - a test of files looks at files

from __future__ import annotations

import asyncio
import os
import resource
import stat
import tempfile
import time
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MAILBOX = "someone@example.com"
GRANT = StoredGrant(refresh_token="rt-secret-1", access_token="at-secret-1")
NEWER = StoredGrant(refresh_token="rt-secret-2")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "grants"


@pytest.fixture
async def store(directory: Path) -> AsyncIterator[FileStore]:
    store = FileStore(directory)
    yield store
    await store.close()


def grant_file(directory: Path) -> Path:
    (path,) = directory.glob("*.json")
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def refusal(store: FileStore) -> str:
    """Return why the store cannot give the grant; no secret is in it."""
    with pytest.raises(TokenStoreUnavailable) as caught:
        await store.load(MAILBOX)
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_only_the_owner_can_read(store: FileStore, directory: Path) -> None:
    before = os.umask(0)
    try:
        async with store.lock(MAILBOX):
            await store.save(MAILBOX, GRANT)
    finally:
        os.umask(before)
    assert [mode(path) for path in (directory.parent, directory)] == [0o700, 0o700]
    assert [mode(path) for path in directory.iterdir()] == [0o600, 0o600]


@pytest.mark.parametrize("open_to", [0o750, 0o701, 0o770, 0o755])
async def test_a_directory_that_others_can_enter_is_not_used(
    store: FileStore, directory: Path, open_to: int
) -> None:
    directory.mkdir(parents=True)
    directory.chmod(open_to)
    for attempt in (store.load(MAILBOX), store.save(MAILBOX, GRANT), store.delete(MAILBOX)):
        with pytest.raises(TokenStoreUnavailable, match=f"chmod 700 {directory}"):
            await attempt
    with pytest.raises(TokenStoreUnavailable, match="chmod 700"):
        async with store.lock(MAILBOX):
            pass
    assert list(directory.iterdir()) == []
    directory.chmod(0o700)  # as the text says
    await store.save(MAILBOX, GRANT)


async def test_a_check_creates_nothing_and_tells_a_directory_that_cannot_be_used(
    store: FileStore, directory: Path
) -> None:
    await store.check()
    assert not directory.exists()
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    with pytest.raises(TokenStoreUnavailable, match=f"chmod 700 {directory}"):
        await store.check()
    directory.chmod(0o700)
    await store.save(MAILBOX, GRANT)
    await store.check()
    directory.rename(directory.with_name("elsewhere"))
    with pytest.raises(TokenStoreUnavailable, match="No such file"):
        await store.check()
    directory.mkdir(mode=0o700)
    with pytest.raises(TokenStoreUnavailable, match="was replaced or unmounted"):
        await store.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_somebody_elses_directory_is_not_used(store: FileStore, directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True)
    os.chown(directory, 12345, -1)
    assert "chown" in await refusal(store)


@given(st.text(max_size=300))
@example("../../etc/passwd")
@example("..")
@example("/")
@example("\0")
@example("")
@example("a" * 5000)
@example("-rf@example.com")
@settings(max_examples=30)
def test_no_mailbox_name_leads_out_of_the_directory(mailbox: str) -> None:
    async def keep(directory: Path) -> None:
        store = FileStore(directory)
        async with store.lock(mailbox):
            await store.save(mailbox, GRANT)
        assert await store.load(mailbox) == GRANT
        await store.close()

    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / "grants"
        asyncio.run(keep(directory))
        assert os.listdir(parent) == ["grants"]
        names = os.listdir(directory)
        assert len(names) == 2
        assert not any(name.startswith((".", "-")) or not name.isascii() for name in names)


async def test_a_person_can_tell_whose_file_it_is(store: FileStore, directory: Path) -> None:
    await store.save("Some.One+mail@example.com", GRANT)
    assert grant_file(directory).name.startswith("some.one+mail@example.com-")


async def test_names_that_look_alike_do_not_mix(store: FileStore) -> None:
    names = ["a/b@example.com", "a_b@example.com", "A_b@example.com", "a b@example.com"]
    for name in names:
        await store.save(name, StoredGrant(refresh_token=name))
    for name in names:
        assert await store.load(name) == StoredGrant(refresh_token=name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda octets: b"",
        lambda octets: octets[:-20],
        lambda octets: b"\0" * len(octets),
        lambda octets: octets.replace(b'"grant"', b'"grand"'),
        lambda octets: b"[" * 100_000,
        lambda octets: b"{}",
    ],
)
async def test_a_damaged_file_is_no_missing_grant(
    store: FileStore, directory: Path, damage: object
) -> None:
    assert callable(damage)
    await store.save(MAILBOX, GRANT)
    path = grant_file(directory)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    words = await refusal(store)
    assert str(path) in words
    assert "damaged" in words
    assert "sign the mailbox in again" in words
    assert path.read_bytes() == damaged


async def test_a_grant_is_not_taken_for_another_mailboxs(store: FileStore, directory: Path) -> None:
    await store.save("other@example.com", NEWER)
    other = grant_file(directory)
    await store.save(MAILBOX, GRANT)
    (mine,) = set(directory.glob("*.json")) - {other}
    mine.write_bytes(other.read_bytes())
    assert "another mailbox" in await refusal(store)


async def test_a_directory_that_was_unmounted_is_no_empty_one(
    store: FileStore, directory: Path
) -> None:
    await store.save(MAILBOX, GRANT)
    directory.rename(directory.with_name("elsewhere"))
    assert str(directory) in await refusal(store)
    directory.mkdir(mode=0o700)
    assert "unmounted" in await refusal(store)
    with pytest.raises(TokenStoreUnavailable):
        await store.save(MAILBOX, NEWER)
    directory.rmdir()
    directory.with_name("elsewhere").rename(directory)
    assert await store.load(MAILBOX) == GRANT


@contextmanager
def files_may_have(octets: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_cannot_be_written_leaves_the_old_grant(
    store: FileStore, directory: Path
) -> None:
    await store.save(MAILBOX, GRANT)
    with files_may_have(100), pytest.raises(TokenStoreUnavailable, match="too large"):
        await store.save(MAILBOX, NEWER)
    assert await store.load(MAILBOX) == GRANT
    assert [path.name for path in directory.iterdir()] == [grant_file(directory).name]


async def test_what_a_killed_process_left_is_cleared_away_later(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True)
    old, young = directory / ".a@b-0.json.1.abcd", directory / ".a@b-0.json.2.abcd"
    for path in (old, young):
        path.write_bytes(b"secret")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    store = FileStore(directory)
    await store.load(MAILBOX)
    await store.close()
    assert list(directory.iterdir()) == [young]


async def test_a_lock_file_stays(store: FileStore, directory: Path) -> None:
    """Deleting it would let two processes hold a lock of the same name."""
    async with store.lock(MAILBOX):
        (held,) = directory.glob("*.lock")
        inode = held.stat().st_ino
        await store.save(MAILBOX, GRANT)
        await store.delete(MAILBOX)
    async with store.lock(MAILBOX):
        assert held.stat().st_ino == inode


async def test_a_closed_store_says_so(directory: Path) -> None:
    store = FileStore(directory)
    await store.close()
    with pytest.raises(TokenStoreUnavailable, match="closed"):
        await store.load(MAILBOX)


async def test_a_lock_that_outlives_its_store_is_free_in_the_end(directory: Path) -> None:
    store, other = FileStore(directory), FileStore(directory)
    async with store.lock(MAILBOX):
        await store.close()
    async with asyncio.timeout(PATIENCE_SECONDS), other.lock(MAILBOX):
        pass
    await other.close()


async def test_many_waiters_leave_the_store_to_others(directory: Path) -> None:
    store, holder = FileStore(directory), FileStore(directory)
    names = [f"{number}@example.com" for number in range(50)]
    async with AsyncExitStack() as held:
        for name in names:
            await held.enter_async_context(holder.lock(name))
        waiting = [asyncio.create_task(hold_once(store, name)) for name in names]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await store.save(MAILBOX, GRANT)
            assert await store.load(MAILBOX) == GRANT
        assert not any(task.done() for task in waiting)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*waiting)
    await store.close()
    await holder.close()


async def hold_once(store: FileStore, mailbox: str) -> None:
    async with store.lock(mailbox):
        pass
