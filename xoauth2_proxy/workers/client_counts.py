"""Counts the clients of all workers in shared memory."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CELL_BYTES = 4  # of a C int: format "i"
_SLACK = 4  # clients beyond its share at which a worker leaves new ones to the others


class ClientCounts:
    """One number per worker, written by that worker and read by all."""

    def __init__(self, file: Path) -> None:
        """Map a file that `create` has made. Raises `OSError`."""
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("i")

    @classmethod
    def create(cls, file: Path, workers: int) -> ClientCounts:
        """Create the file for this many workers. Raises `OSError`."""
        file.write_bytes(bytes(_CELL_BYTES * workers))
        return cls(file)

    def for_worker(self, worker: int) -> WorkerClientCounts:
        """Return one worker's view of the counts."""
        return WorkerClientCounts(self._cells, worker)


class WorkerClientCounts:
    """One worker's view of the client counts."""

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
