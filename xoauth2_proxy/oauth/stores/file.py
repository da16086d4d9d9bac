"""Keeps grants in a directory, one small file a mailbox, for all processes of one machine.

I1: a file is replaced whole and reaches the disk before the new access token is used.
I2: what cannot be read is an error, never an empty place: it may be the only copy of a refresh
token, and an older one that was tried instead might end the grant.
I3: the directory is for its owner alone; in one that others can enter, nothing is read or written.
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
    sync_directory,
    try_lock,
    unlock,
)
from xoauth2_proxy.oauth.stores import codec
from xoauth2_proxy.oauth.stores.encryption import NO_SEAL, Seal
from xoauth2_proxy.oauth.stores.mailbox_locks import LOCK_SECONDS, Turns, until_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from xoauth2_proxy.oauth.stores import StoredGrant
    from xoauth2_proxy.oauth.stores.mailbox_locks import GiveBack

_THREADS = 4  # no step waits for another process, so a few are enough for any number of mailboxes
_LEFT_BEHIND_SECONDS = 3600.0  # a temporary file so old is nobody's: writing takes milliseconds

T = TypeVar("T")


class FileStore:
    """Grants as files. The directory is made at the first use."""

    def __init__(
        self, directory: Path, seal: Seal = NO_SEAL, *, wait_seconds: float = LOCK_SECONDS
    ) -> None:
        self._directory = directory
        self._seal = seal
        self._turns = Turns(wait_seconds)
        self._threads = ThreadPoolExecutor(_THREADS, "grants")
        self._identity: tuple[int, int] | None = None  # device and inode of the directory

    async def load(self, mailbox: str) -> StoredGrant | None:
        """Return the grant; None if there is none.

        Raises:
            TokenStoreUnavailable: its file cannot be read, opened or understood; it stays as it is.
        """
        return await self._in_thread(self._load, mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        """Return when the grant is on disk. Cancelling does not stop it.

        Raises:
            TokenStoreUnavailable: it could not be written; the one before is still there.
        """
        await self._turns.change(mailbox, partial(self._in_thread, self._save, mailbox, grant))

    async def delete(self, mailbox: str) -> None:
        """Forget the grant, if there is one. Raises `TokenStoreUnavailable`."""
        await self._turns.change(mailbox, partial(self._in_thread, self._delete, mailbox))

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        """Return the mailbox's lock, which the kernel frees when this process dies.

        Entering it raises `TokenStoreUnavailable` if it is not free in time.
        """
        return self._turns.hold(mailbox, partial(self._take, mailbox))

    async def close(self) -> None:
        """Let changes under way end, and the threads."""
        await self._turns.close()
        self._threads.shutdown(wait=False)

    async def _take(self, mailbox: str) -> GiveBack:
        return partial(self._unlock, await until_free(partial(self._attempt, mailbox)))

    async def _attempt(self, mailbox: str) -> int | None:
        begun = self._submit(self._try_lock, mailbox)
        try:
            return await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_give_back)  # the thread may be about to get the lock
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
        path = self._path(mailbox)
        with _told(path):
            self._enter()
            try:
                document = path.read_bytes()
            except FileNotFoundError:
                return None
            return codec.read(mailbox, document, self._seal)

    def _save(self, mailbox: str, grant: StoredGrant) -> None:
        path = self._path(mailbox)
        with _told(path):
            self._enter()
            replace_durably(path, codec.write(mailbox, grant, self._seal))

    def _delete(self, mailbox: str) -> None:
        path = self._path(mailbox)
        with _told(path):
            self._enter()
            path.unlink(missing_ok=True)
            sync_directory(self._directory)

    def _try_lock(self, mailbox: str) -> int | None:
        path = self._path(mailbox).with_suffix(".lock")
        with _told(path):
            self._enter()
            return try_lock(path)

    def _enter(self) -> None:
        """Raise `OSError` unless the directory is ours, and the one it was at the first use.

        A file system that is no longer mounted would look like a store without grants, and old
        refresh tokens of the configuration would be tried instead.
        """
        if self._identity is None:
            state = private_directory(self._directory)
            _sweep(self._directory)
            self._identity = (state.st_dev, state.st_ino)
            return
        state = self._directory.stat()
        if self._identity != (state.st_dev, state.st_ino):
            raise OSError(f"{self._directory} was replaced or unmounted; put it back, or restart")

    def _path(self, mailbox: str) -> Path:
        """Return the file's path. The name is for people; the hash tells mailboxes apart."""
        readable = re.sub(r"[^a-z0-9@._+-]", "_", mailbox.lower())[:100].lstrip(".-") or "_"
        digest = hashlib.sha256(mailbox.encode("utf-8", "surrogatepass")).hexdigest()[:20]
        return self._directory / f"{readable}-{digest}.json"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into words for the operator."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        reason = f"{where}: {error.strerror}" if error.strerror else str(error)
        raise TokenStoreUnavailable(reason) from None
    except ValueError as error:
        raise TokenStoreUnavailable(f"{path}: {error}") from None


def _sweep(directory: Path) -> None:
    """Delete what processes left behind that were killed while they wrote."""
    for temporary in directory.glob(".*.json.*.*"):
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                temporary.unlink()


def _give_back(attempt: Future[int | None]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        descriptor = attempt.result()
        if descriptor is not None:
            unlock(descriptor)
