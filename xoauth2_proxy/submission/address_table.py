"""Counts connections by client address and knows who logged in lately, for all workers together.

The counts are kept in a table of fixed size: an address is found in it by a keyed hash, twice, and
the smaller count holds. So the memory is bounded whatever addresses come, and two addresses are
taken for one only if both hashes meet, which nobody can bring about without the key.

Each worker writes its own part, and all read the whole: there are no locks.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from functools import lru_cache

_ROWS = 2
_CELLS = 16_384  # a row
_PART_CELLS = 2 * _ROWS * _CELLS  # of a worker: its counts, then its logins
_KEY_CELLS = 4
_CELL_BYTES = 4  # of a C unsigned int: format "I"
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2


@lru_cache(maxsize=4096)  # several times for each client, and most come again
def client_block(address: str) -> bytes:
    """Return what counts as one client: an IPv4 address, or an IPv6 /64; b"" if it is neither.

    An IPv4 address in an IPv6 one counts as IPv4. A /64 is what one network gets at least, so its
    single addresses are free to whoever has it.
    """
    text = address.partition("%")[0]
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        octets = socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return b""
    return octets[12:] if octets.startswith(_MAPPED) else octets[:8]


def table_bytes(workers: int) -> int:
    """Return the size of the memory that these workers share."""
    return _CELL_BYTES * (_KEY_CELLS + workers * _PART_CELLS)


def new_key() -> bytes:
    """Return what the shared memory begins with: the random key of its hashes."""
    return secrets.token_bytes(_KEY_CELLS * _CELL_BYTES)


class AddressTable:
    """One worker's view of the table."""

    def __init__(self, memory: memoryview | None = None, worker: int = 0) -> None:
        """`memory` has `table_bytes` octets and begins with `new_key`; None: of this process."""
        if memory is None:
            memory = memoryview(bytearray(new_key().ljust(table_bytes(1), b"\0")))
        cells = memory.cast("I")
        self._key = bytes(memory[: _KEY_CELLS * _CELL_BYTES])
        self._parts = [
            cells[start : start + _PART_CELLS]
            for start in range(_KEY_CELLS, len(cells), _PART_CELLS)
        ]
        self._own = self._parts[worker]
        self._places = lru_cache(maxsize=4096)(self._find_places)

    def count(self, block: bytes, change: int = 0) -> int:
        """Change this worker's count of an address; return the count of all workers.

        If two workers count a connection at the same time, at least one sees both.
        """
        own, places = self._own, self._places(block)
        for place in places:
            own[place] = max(0, own[place] + change)
        if len(self._parts) == 1:
            return min(own[place] for place in places)
        return min(sum(part[place] for part in self._parts) for place in places)

    def note_login(self, block: bytes, now_seconds: int) -> None:
        """Note that a client of this address has logged in."""
        for place in self._places(block):
            self._own[_ROWS * _CELLS + place] = now_seconds

    def last_login(self, block: bytes) -> int:
        """Return when a client of this address last logged in, at any worker; 0: never."""
        return min(
            max(part[_ROWS * _CELLS + place] for part in self._parts)
            for place in self._places(block)
        )

    def forget_counts(self) -> None:
        """Set this worker's counts to zero: its process has ended."""
        self._own[: _ROWS * _CELLS] = memoryview(bytes(_ROWS * _CELLS * _CELL_BYTES)).cast("I")

    def _find_places(self, block: bytes) -> tuple[int, ...]:
        digest = hashlib.blake2b(block, digest_size=4 * _ROWS, key=self._key).digest()
        return tuple(
            row * _CELLS + int.from_bytes(digest[4 * row : 4 * row + 4]) % _CELLS
            for row in range(_ROWS)
        )
