"""A Redis server of a test's own, on a socket that only this test knows."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.programs import program
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class RedisServer:
    """The server, which keeps nothing when it ends."""

    directory: str
    settings: tuple[str, ...]
    process: subprocess.Popen[str] | None = None

    @property
    def socket(self) -> str:
        return f"{self.directory}/redis"  # short: a socket's path has 107 octets at most

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        command = [program("redis-server"), "--port", "0", "--unixsocket", self.socket]
        command += ["--save", "", "--dir", self.directory, *self.settings]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "accept connections" in line:
                return
        raise AssertionError("".join(said))

    def suspend(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@contextmanager
def redis_server(*settings: str) -> Iterator[RedisServer]:
    """Start a server; `settings` are options as on its command line."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(directory, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
