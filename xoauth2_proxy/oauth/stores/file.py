"""Stores grants in a directory, one small file for each mailbox, for all processes of a machine.

I1: a file is replaced as a whole, and is on disk before the new access token is used.
I2: an unreadable file is an error, never a missing grant: it may be the only copy of a refresh
token, and using an older one instead might end the grant.
I3: only the owner may enter the directory; otherwise nothing is read or written.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.files import (
    private_directory,
    replace_durably,
    state_directory_problem,
    sync_directory,
    try_lock,
    unlock,
)
from xoauth2_proxy.oauth.stores import read_document, write_document
from xoauth2_proxy.oauth.stores.encryption import NO_ENCRYPTION, GrantCipher
from xoauth2_proxy.oauth.stores.mailbox_locks import (
    LOCK_WAIT_SECONDS,
    MailboxLocks,
    poll_until_free,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from xoauth2_proxy.oauth.stores import StoredGrant
    from xoauth2_proxy.oauth.stores.mailbox_locks import Release

_THREADS = 4  # no step waits for another process, so a few suffice
_LEFT_BEHIND_SECONDS = 3600.0  # for a temporary file: writing takes milliseconds

T = TypeVar("T")


class FileStore:
    """Grants as files. The directory is created at the first use."""

    def __init__(
        self,
        directory: Path,
        cipher: GrantCipher = NO_ENCRYPTION,
        *,
        wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        self._directory = directory
        self._cipher = cipher
        self._locks = MailboxLocks(wait_seconds)
        self._threads = ThreadPoolExecutor(_THREADS, "grants")
        self._identity: tuple[int, int] | None = None  # device and inode of the directory

    async def load(self, mailbox: str) -> StoredGrant | None:
        """As `TokenStore.load`; a file that cannot be decrypted is not changed."""
        return await self._in_thread(self._load, mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """As `TokenStore.save`; cancelling does not stop it."""
        await self._locks.change(mailbox, partial(self._in_thread, self._save, mailbox, grant))

    async def delete(self, mailbox: str) -> None:
        """As `TokenStore.delete`; cancelling does not stop it."""
        await self._locks.change(mailbox, partial(self._in_thread, self._delete, mailbox))

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """As `TokenStore.lock`; the kernel releases it if this process dies."""
        return self._locks.hold(mailbox, partial(self._take, mailbox))

    async def check(self) -> None:
        """As `TokenStore.check`, by the directory's rights; a missing one is not created."""
        await self._in_thread(self._check)

    async def close(self) -> None:
        """Wait for running changes, then end the threads."""
        await self._locks.close()
        self._threads.shutdown(wait=False)

    async def _take(self, mailbox: str) -> Release:
        return partial(self._unlock, await poll_until_free(partial(self._attempt, mailbox)))

    async def _attempt(self, mailbox: str) -> int | None:
        begun = self._submit(self._try_lock, mailbox)
        try:
            return await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_release)  # the thread may still get the lock
            raise

    async def _unlock(self, descriptor: int) -> None:
        try:
            begun = self._submit(unlock, descriptor)
        except TokenStoreUnavailable:  # closed meanwhile
            unlock(descriptor)
        else:
            await asyncio.wrap_future(begun)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.wrap_future(self._submit(work, *arguments))

    def _submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        try:
            return self._threads.submit(work, *arguments)
        except RuntimeError:
            raise TokenStoreUnavailable("the store is closed") from None

    def _load(self, mailbox: str) -> StoredGrant | None:
        with self._checked(self._path(mailbox)) as path:
            try:
                document = path.read_bytes()
            except FileNotFoundError:
                return None
            return read_document(mailbox, document, self._cipher)

    def _check(self) -> None:
        if problem := state_directory_problem(self._directory):
            raise TokenStoreUnavailable(problem)
        if self._identity is not None:
            with self._checked(self._directory):
                return

    def _save(self, mailbox: str, grant: StoredGrant) -> None:
        with self._checked(self._path(mailbox)) as path:
            replace_durably(path, write_document(mailbox, grant, self._cipher))

    def _delete(self, mailbox: str) -> None:
        with self._checked(self._path(mailbox)) as path:
            path.unlink(missing_ok=True)
            sync_directory(self._directory)

    def _try_lock(self, mailbox: str) -> int | None:
        with self._checked(self._path(mailbox).with_suffix(".lock")) as path:
            return try_lock(path)

    @contextmanager
    def _checked(self, path: Path) -> Iterator[Path]:
        """Check the directory; turn errors into `TokenStoreUnavailable`, with a text to act on."""
        try:
            self._check_directory()
            yield path
        except OSError as error:
            where = error.filename or path
            reason = f"{where}: {error.strerror}" if error.strerror else str(error)
            raise TokenStoreUnavailable(reason) from None
        except ValueError as error:
            raise TokenStoreUnavailable(f"{path}: {error}") from None

    def _check_directory(self) -> None:
        """Raise `OSError` unless the directory is private, and the same as at the first use.

        An unmounted file system would look like a store without grants, and the configuration's old
        refresh tokens would be used instead.
        """
        if self._identity is None:
            state = private_directory(self._directory)
            _delete_leftovers(self._directory)
            self._identity = (state.st_dev, state.st_ino)
            return
        state = self._directory.stat()
        if self._identity != (state.st_dev, state.st_ino):
            raise OSError(f"{self._directory} was replaced or unmounted; put it back, or restart")

    def _path(self, mailbox: str) -> Path:
        """Return the file's path. The name is for people; the hash distinguishes mailboxes."""
        readable = re.sub(r"[^a-z0-9@._+-]", "_", mailbox.lower())[:100].lstrip(".-") or "_"
        digest = hashlib.sha256(mailbox.encode("utf-8", "surrogatepass")).hexdigest()[:20]
        return self._directory / f"{readable}-{digest}.json"


def _delete_leftovers(directory: Path) -> None:
    """Delete temporary files of processes that were killed while writing."""
    for temporary in directory.glob(".*.json.*.*"):
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                temporary.unlink()


def _release(attempt: Future[int | None]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        descriptor = attempt.result()
        if descriptor is not None:
            unlock(descriptor)
