"""Tells a client that begins with TLS from one that waits for a greeting, by its first octet.

A client that is silent decides nothing, so it is greeted in clear after a short wait. How long to
wait follows from what was seen of its address before.
"""

from __future__ import annotations

import asyncio
import socket
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

_WAIT_SECONDS = 0.3  # in a local network a hello is there at once
_LONG_WAIT_SECONDS = 3.0  # clients wait longer than that for a greeting (RFC 5321 §4.5.3.2.1)
_MAX_ADDRESSES = 4096
_HANDSHAKE = 0x16  # the type of a TLS record (RFC 8446 §5.1)
_SSL_2 = 0x80  # or more: a hello in SSL 2.0's format; no SMTP command begins so


def is_tls(octet: int) -> bool:
    """Whether a client whose first octet this is speaks TLS."""
    return octet == _HANDSHAKE or octet >= _SSL_2


class _Habit(Enum):
    CLEAR = auto()  # it waits for the greeting
    TLS = auto()  # some client there begins with TLS
    SLOW_TLS = auto()  # with TLS, after more than the usual wait


class Habits:
    """What the clients of each address began with, as far as it is remembered."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Habit] = {}

    def wait_seconds(self, address: str) -> float:
        """Return how long to wait for a client's first octet before it is greeted in clear."""
        match self._known.get(address):
            case _Habit.CLEAR:
                return 0.0
            case _Habit.SLOW_TLS:
                return _LONG_WAIT_SECONDS
            case _:
                return _WAIT_SECONDS

    def began_with_tls(self, address: str) -> None:
        """A client began with TLS: those of its address are waited for from now on."""
        if self._known.get(address) is not _Habit.SLOW_TLS:
            self._note(address, _Habit.TLS)

    def began_too_late(self, address: str) -> None:
        """A client began with TLS, but only after it had been greeted in clear."""
        self._note(address, _Habit.SLOW_TLS)

    def used_clear(self, address: str) -> None:
        """A client that was greeted in clear went on to log in, or to STARTTLS.

        One that only says HELO may be looking around, and begin with TLS next.
        """
        if address not in self._known:
            self._note(address, _Habit.CLEAR)

    def _note(self, address: str, habit: _Habit) -> None:
        self._known.pop(address, None)
        self._known[address] = habit
        if len(self._known) > _MAX_ADDRESSES:
            del self._known[next(iter(self._known))]


async def peek(connection: socket.socket, max_bytes: int) -> bytes:
    """Wait for octets and return them, without taking them; b"": the client has left.

    The socket does not block, and no transport has it yet. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            return connection.recv(max_bytes, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        readable = asyncio.Event()
        loop.add_reader(connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(connection)
