"""Carries the setup, configurations and commands between the parent and a worker.

The channel is a private socket pair. First the parent sends the pickled `Setup`: it holds secrets,
which must not appear in arguments or the environment. Then both send lines of text. The channel
ends when the other process ends.

From the parent: `ping`, `drain`, `forget <mailbox>`, and `config <length>` or `credentials
<length>` followed by a configuration, or the credentials of one account, of that many octets. From
a worker: `ready`, `failed <reason>`, `pong`, and `took` for each of them that it has put into use.
From worker to worker, through the parent: `wanted`, `freed` (`upstream.worker_slots`), `message`,
`sessions`, `restarted` (`submission.credential_use`), `guessed`, `usual` (`submission.guessing`). A
worker also tells what it saw of clients: `client` (`clients.forwarding`).
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.clients.forwarding import MAX_LINE

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection
    from pathlib import Path

    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.log import LogFormat, LogLevel
    from xoauth2_proxy.service.app import EmbeddedSandbox
    from xoauth2_proxy.service.runner import Run

# Blocked in a worker from its start until it can handle them.
HELD_BACK = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGTERM})

CONFIG = "config "
CREDENTIALS = "credentials "

_LENGTH = struct.Struct("!I")
_MAX_UNSENT_BYTES = 65_536  # beyond it, lines to a process that does not read are dropped


@dataclass(frozen=True, slots=True)
class Logging:
    """The log settings of all processes."""

    level: LogLevel
    format: LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything a worker needs to start."""

    run: Run
    logging: Logging
    number: int  # of the worker, from 0
    workers: int  # in all
    sockets: tuple[tuple[int, ...], ...]  # the descriptors of each listener's sockets
    directory: Path  # for this run of the proxy, private
    sandbox: EmbeddedSandbox | None  # which the parent runs


class Channel:
    """One end of the channel, after the setup has been sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Return a channel over a connected socket."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def say(self, line: str, *, must_arrive: bool = False) -> None:
        """Send a line; it is dropped if the other process has stopped reading, or has ended.

        With `must_arrive` it is buffered instead of dropped; such lines are rare.
        """
        unsent_bytes = self._writer.transport.get_write_buffer_size()
        if must_arrive or unsent_bytes <= _MAX_UNSENT_BYTES:
            self._write(" ".join(line.split())[:MAX_LINE].encode() + b"\n")

    def send_object(self, kind: str, pickled: bytes) -> None:
        """Send a pickled object, preceded by the line that announces it: kind and length."""
        self._write(f"{kind}{len(pickled)}\n".encode() + pickled)

    async def config(self, line: str) -> Config:
        """Return the configuration that `line` announces. Raises `EOFError`."""
        config: Config = await self._object(line)
        return config

    async def credentials(self, line: str) -> tuple[str, tuple[Credential, ...], Collection[str]]:
        """Return what `line` announces: the arguments of `App.use_credentials`.

        Raises `EOFError`.
        """
        arguments: tuple[str, tuple[Credential, ...], Collection[str]] = await self._object(line)
        return arguments

    async def _object(self, line: str) -> Any:  # noqa: ANN401 - as its kind says
        octets = await self._reader.readexactly(int(line.rpartition(" ")[2]))
        return await asyncio.to_thread(pickle.loads, octets)  # from the parent alone

    async def send(self, setup: Setup) -> None:
        """Send the setup. Raises `ConnectionError`."""
        octets = pickle.dumps(setup)
        self._writer.write(_LENGTH.pack(len(octets)) + octets)
        await self._writer.drain()

    async def line(self) -> str:
        """Return the next line; "" once the other process has ended."""
        try:
            return (await self._reader.readline()).decode("utf-8", "replace").rstrip("\n")
        except (ConnectionError, ValueError):
            return ""

    async def close(self) -> None:
        """Send what is buffered and close; the other process sees the end of the channel."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _write(self, octets: bytes) -> None:
        # The other process may have been killed, and a write have failed before the end of the
        # channel is read. From then on asyncio ignores what is written; uvloop raises.
        if not self._writer.transport.is_closing():
            self._writer.write(octets)


def receive_setup(end: socket.socket) -> Setup:
    """Wait for the setup, blocking. Raises `EOFError`."""
    (length,) = _LENGTH.unpack(_receive(end, _LENGTH.size))
    setup: Setup = pickle.loads(_receive(end, length))  # noqa: S301 - from the parent alone
    return setup


def _receive(end: socket.socket, length: int) -> bytes:
    octets = bytearray()
    while len(octets) < length:
        more = end.recv(length - len(octets))
        if not more:
            raise EOFError("the parent has ended")
        octets += more
    return bytes(octets)
