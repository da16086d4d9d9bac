"""How many clients all workers have, in memory that they share."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CELL_BYTES = 4  # of a C int: format "i"
_SLACK = 4  # clients that a worker may have beyond its share before it lets the others go first


class ClientCounts:
    """One number a worker: only the worker writes it, all of them read it."""

    def __init__(self, file: Path) -> None:
        """Map a file that `create` made. Raises `OSError`."""
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("i")

    @classmethod
    def create(cls, file: Path, workers: int) -> ClientCounts:
        """Make the file for this many workers. Raises `OSError`."""
        file.write_bytes(bytes(_CELL_BYTES * workers))
        return cls(file)

    def for_worker(self, worker: int) -> WorkerClientCounts:
        """Return what one worker uses."""
        return WorkerClientCounts(self._cells, worker)


class WorkerClientCounts:
    """The client counts as one worker sees them."""

    def __init__(self, cells: memoryview[int], worker: int) -> None:
        self._cells = cells
        self._worker = worker

    def count(self, clients: int) -> int:
        """Note how many clients the worker has, and return how many all have.

        Of two workers that count a client each at the same time, at least one sees both, so that a
        limit on the sum cannot be passed.
        """
        self._cells[self._worker] = clients
        return sum(self._cells)

    def is_ahead(self, clients: int) -> bool:
        """Whether a worker with so many should leave the next one to the others."""
        return clients > sum(self._cells) / len(self._cells) + _SLACK
