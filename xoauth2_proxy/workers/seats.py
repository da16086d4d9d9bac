"""How many clients all workers have, in memory that they share."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CELL_BYTES = 4  # of a C int: format "i"


class Seats:
    """One number a worker: only the worker writes it, all of them read it."""

    def __init__(self, file: Path) -> None:
        """Map a file that `create` made. Raises `OSError`."""
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("i")

    @classmethod
    def create(cls, file: Path, workers: int) -> Seats:
        """Make the file for this many workers. Raises `OSError`."""
        file.write_bytes(bytes(_CELL_BYTES * workers))
        return cls(file)

    def count(self, worker: int, clients: int) -> int:
        """Note how many clients a worker has, and return how many all have.

        Two workers that count a client each at the same time both see both, so that a limit on the
        sum cannot be passed.
        """
        self._cells[worker] = clients
        return sum(self._cells)
