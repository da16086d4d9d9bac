"""Files that appear whole or not at all, and directories for nobody but their owner.

Everything here blocks: on the event loop it has no place.
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
    """Return the platform's directory for state, e.g. ~/.local/state/xoauth2-proxy."""
    import platformdirs  # not above: only a state directory that nobody names needs it

    return Path(platformdirs.user_state_dir("xoauth2-proxy", appauthor=False))


@contextlib.contextmanager
def written_beside(path: Path, octets: bytes, mode: int) -> Iterator[Path]:
    """Yield a temporary file next to `path`, on disk with `octets`; it is gone afterwards.

    Linking or renaming it to `path` makes a whole file appear at once or not at all.
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
    """Put a file with `octets` in the place of `path`; it survives a crash from the return on.

    A crash before that leaves the old file or the new one, whole. Raises `OSError`; then the old
    file is still there.
    """
    with written_beside(path, octets, mode) as temporary:
        temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Return when the directory's entries, as they are now, survive a crash. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_directory(path: Path) -> os.stat_result:
    """Return the state of a directory that only we can enter; a missing one is made, parents too.

    Raises:
        PermissionError: it is somebody else's, or others can enter it; the text says what to type.
        OSError: it cannot be made.
    """
    for one in reversed([path, *path.parents]):
        if not one.is_dir():
            one.mkdir(mode=0o700, exist_ok=True)
            sync_directory(one.parent)
    state = path.stat()
    if fault := _not_ours_alone(path, state):
        raise PermissionError(fault)
    return state


def state_directory_problem(path: Path) -> str | None:
    """Return why nothing can be kept in a directory, which may be missing yet, and what to do.

    None: it can be made or written. Only the directory and its parents are looked at.
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
            f"{there} cannot be written: let the user who runs the relay write there, or choose "
            "another place (--state-dir, store.directory)"
        )
    return None


def _not_ours_alone(path: Path, state: os.stat_result) -> str:
    name = shlex.quote(str(path))
    if state.st_uid != os.geteuid():
        return (
            f"{path} belongs to another user (its id is {state.st_uid}): run as that user, or give "
            f"the directory to the one who runs the relay: chown -R {os.geteuid()} {name}"
        )
    return f"{path} is open to other users: chmod 700 {name}" if state.st_mode & _OTHERS else ""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one process and thread at a time can hold; wait for it as long as it takes.

    The file is made if it is missing, and never deleted (see `try_lock`).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        unlock(descriptor)


def try_lock(path: Path) -> int | None:
    """Return a descriptor for `unlock`, which holds the lock of this file; None: another has it.

    The kernel frees the lock when its holder has died. The file must stay: if a holder deleted it,
    one process could lock the deleted file, which it had opened before, while a second one makes
    and locks a new file of the same name, and both would believe themselves alone.
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
    """Free a lock at once.

    Closing alone would not do: a program that is being started has a copy for some milliseconds.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
