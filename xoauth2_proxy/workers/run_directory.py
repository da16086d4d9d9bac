"""The private directory in which the processes of one proxy share files, and the counts in it."""

from __future__ import annotations

import fcntl
import mmap
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "run-"
_CELL_BYTES = 4  # of a C int: format "i"
_SLACK = 4  # clients beyond its share at which a worker leaves new ones to the others
_LOCK = "lock"  # locked as long as the parent lives


def slots(state_dir: Path) -> Path:
    """Return the directory of slot locks; it outlives the run, since lock files must stay."""
    return state_dir / "slots"


def figures(directory: Path) -> Path:
    """Return the directory of this run's metrics."""
    return directory / "figures"


def rates(directory: Path) -> Path:
    """Return the directory of this run's rate limits."""
    return directory / "rates"


def client_counts(directory: Path) -> Path:
    """Return the file that counts this run's clients."""
    return directory / "client_counts"


def client_addresses(directory: Path, listeners: int) -> list[Path]:
    """Return the files that count this run's clients by their address, one for each listener."""
    return [directory / f"client_addresses.{number}" for number in range(listeners)]


def shared_memory(file: Path) -> memoryview:
    """Return a file's content as memory that processes share. Raises `OSError`."""
    with file.open("r+b") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0))


class RunDirectory:
    """The directory of one run of the proxy, removed at its end."""

    def __init__(self, state_dir: Path) -> None:
        """Create the directory; remove those of runs that were killed. Raises `OSError`."""
        state_dir.mkdir(parents=True, exist_ok=True)
        for left in state_dir.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=state_dir))
        for folder in (figures(self.path), rates(self.path)):
            folder.mkdir(mode=0o700)
        self._lock = (self.path / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_if_left(directory: Path) -> None:
    # A directory without a lock file is just being created.
    with suppress(OSError), (directory / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)


class ClientCounts:
    """A number for each listener and worker, written by that worker and read by all."""

    def __init__(self, file: Path, listeners: int) -> None:
        """Map a file that `create` has made. Raises `OSError`."""
        cells = shared_memory(file).cast("i")
        workers = len(cells) // listeners
        self._by_listener = [
            cells[first : first + workers] for first in range(0, len(cells), workers)
        ]

    @classmethod
    def create(cls, file: Path, workers: int, listeners: int) -> ClientCounts:
        """Create the file for this many workers and listeners. Raises `OSError`."""
        file.write_bytes(bytes(_CELL_BYTES * workers * listeners))
        return cls(file, listeners)

    def for_worker(self, worker: int) -> list[WorkerClientCounts]:
        """Return one worker's view of each listener's counts."""
        return [WorkerClientCounts(cells, worker) for cells in self._by_listener]


class WorkerClientCounts:
    """One worker's view of a listener's client counts."""

    def __init__(self, cells: memoryview[int], worker: int) -> None:
        self._cells = cells
        self._worker = worker

    def count(self, clients: int) -> int:
        """Record the number of clients of this worker, and return the number of all.

        If two workers count a client at the same time, at least one sees both, so a limit on the
        sum cannot be exceeded.
        """
        self._cells[self._worker] = clients
        return sum(self._cells)

    def is_ahead(self, clients: int) -> bool:
        """Whether a worker with this many clients should leave the next one to the others."""
        return clients > sum(self._cells) / len(self._cells) + _SLACK
