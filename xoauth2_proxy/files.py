"""Reads and writes files safely, makes private directories and locks files.

Everything here blocks, so it must not run on the event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_state_dir() -> Path:
    """Return the platform's state directory, e.g. ~/.local/state/xoauth2-proxy."""
    import platformdirs  # here, since only the default state directory needs it

    return Path(platformdirs.user_state_dir("xoauth2-proxy", appauthor=False))


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """Return the file's content.

    Raises:
        ValueError: it cannot be read or is larger; the text, to follow the file's name, says why.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # NUL, or half a surrogate pair
        raise ValueError("cannot be read: its name holds an impossible character") from None
    if len(content) > max_bytes:
        raise ValueError(f"is larger than {max_bytes} bytes")
    return content


@contextlib.contextmanager
def written_beside(path: Path, octets: bytes, mode: int) -> Iterator[Path]:
    """Yield a temporary file with `octets` next to `path`, synced to disk; remove it afterwards.

    Linking or renaming it to `path` is atomic: no reader ever sees a partial file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def replace_durably(path: Path, octets: bytes, mode: int = 0o600) -> None:
    """Replace `path` with a file that holds `octets`; once this returns, it survives a crash.

    A crash before that leaves either the old file or the new one, complete. Raises `OSError`; the
    old file is then unchanged.
    """
    with written_beside(path, octets, mode) as temporary:
        temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Sync the directory's entries to disk, where they survive a crash. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_directory(path: Path) -> os.stat_result:
    """Return the `stat` of a directory that only we can enter, creating it and its parents.

    Raises:
        PermissionError: another user owns it or can enter it; the text says what to type.
        OSError: it cannot be created.
    """
    for one in reversed([path, *path.parents]):
        if not one.is_dir():
            one.mkdir(mode=0o700, exist_ok=True)
            sync_directory(one.parent)
    state = path.stat()
    if fault := _not_ours_alone(path, state):
        raise PermissionError(fault)
    return state


def fault_of_readers(file: Path) -> str:
    """Return what is to be done if every user may read a file with secrets; "" if not.

    Raises `OSError`: there is no such file.
    """
    if not file.stat().st_mode & stat.S_IROTH:
        return ""
    name = shlex.quote(str(file))
    return f"{file} holds secrets, and every user of this machine may read it: chmod 600 {name}"


def state_directory_problem(path: Path) -> str | None:
    """Return why a directory, which need not exist yet, cannot be used, and what to do.

    None if it can be created or written. Only the directory and its parents are examined.
    """
    try:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        state = there.stat()
    except OSError as error:
        return f"{path} cannot be reached: {error.strerror}"
    if not there.is_dir():
        return f"{there} is not a directory"
    if there == path and (fault := _not_ours_alone(path, state)):
        return fault
    if not os.access(there, os.W_OK | os.X_OK):
        return (
            f"{there} cannot be written: let the user who runs the proxy write there, or choose "
            "another place (--state-dir, store.directory)"
        )
    return None


def _not_ours_alone(path: Path, state: os.stat_result) -> str:
    name = shlex.quote(str(path))
    if state.st_uid != os.geteuid():
        return (
            f"{path} belongs to another user (its id is {state.st_uid}): run as that user, or give "
            f"the directory to the one who runs the proxy: chown -R {os.geteuid()} {name}"
        )
    return f"{path} is open to other users: chmod 700 {name}" if state.st_mode & _OTHERS else ""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, between processes and threads; wait for it without a limit.

    The file is created if missing and never deleted (see `try_lock`).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        unlock(descriptor)


def try_lock(path: Path) -> int | None:
    """Lock the file and return its descriptor for `unlock`, or None if another holder has it.

    The kernel releases the lock when its holder dies. The file must never be deleted: a process
    that had it open could lock the deleted file while another creates and locks a new one, and
    both would believe that they hold the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def unlock(descriptor: int) -> None:
    """Release a lock at once.

    Closing is not enough: a process being started holds a copy of the descriptor for some
    milliseconds.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
