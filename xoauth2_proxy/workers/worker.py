"""Starts a worker process for the parent, watches it and restarts it when it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.clients.forwarding import CLIENT
from xoauth2_proxy.workers.channel import HELD_BACK, Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xoauth2_proxy.workers.channel import Setup

_log = log.logger("workers")

# Not "-m", which would search the working directory first.
_START = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from xoauth2_proxy.workers.child import main; sys.exit(main())"
)
_PACKAGES = Path(__file__).parents[2]  # the directory of this package, installed or not
_REAP_SECONDS = 5.0  # for a process that has closed its channel to exit by itself


@dataclass(frozen=True, slots=True)
class SupervisionTiming:
    """The timeouts and delays with which workers are supervised."""

    start_seconds: float = 60.0  # to become ready: imports, thousands of mailboxes, a busy machine
    ping_seconds: float = 5.0  # between pings of a ready worker
    max_unanswered: int = 6  # pings; then the worker's event loop is considered stuck
    min_delay_seconds: float = 0.1  # before a restart; doubles each time
    max_delay_seconds: float = 10.0
    good_life_seconds: float = 30.0  # after it, a restart has the least delay again


class Worker:
    """One worker: its current process and the processes that replace it."""

    def __init__(
        self,
        setup: Setup,
        timing: SupervisionTiming,
        send_to_others: Callable[[Worker, str], None],
        has_changed: Callable[[Worker], None],
        client_seen: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`has_changed` is called when the worker becomes ready and when its process ends.

        `client_seen` gets what the process tells of a client (`clients.forwarding`).
        """
        self.number = setup.number
        self.restarts = 0
        # The outcome of the first process: "" if it became ready, else the reason.
        self.first_start: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._setup = setup
        self._timing = timing
        self._send_to_others = send_to_others
        self._has_changed = has_changed
        self._client_seen = client_seen
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._ready = asyncio.Event()
        self._unanswered = 0
        self._unapplied: deque[asyncio.Future[None]] = deque()  # configurations not yet applied
        self._is_ending = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the current process accepts clients."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The id of the current process."""
        return self._process.pid if self._process is not None else None

    async def keep_running(self) -> None:
        """Run the process and restart it, until `drain` was called and it has ended."""
        try:
            await self._keep_running()
        finally:
            self._note_first_start(
                "it is no longer supervised"
            )  # the parent waits for `first_start`

    async def _keep_running(self) -> None:
        delay = self._timing.min_delay_seconds
        while not self._is_ending.is_set():
            began = time.monotonic()
            try:
                reason = f"it ended with code {await self._run_process()}"
            except OSError as error:  # no more processes or file descriptors
                reason = str(error)
            if self._is_ending.is_set():
                break
            self._note_first_start(reason)
            if time.monotonic() - began >= self._timing.good_life_seconds:
                delay = self._timing.min_delay_seconds
            _log.event(
                logging.ERROR,
                "worker ended",
                worker=self.number,
                reason=reason,
                restart_seconds=delay,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._is_ending.wait()
            delay = min(2 * delay, self._timing.max_delay_seconds)
            self.restarts += not self._is_ending.is_set()
        self._note_first_start("the proxy is stopping")

    def apply(self, setup: Setup, kind: str, pickled: bytes) -> asyncio.Future[None]:
        """Send the process a pickled object; later processes start with `setup`.

        The returned future is done once the process uses it or has ended.
        """
        self._setup = setup
        applied = asyncio.get_running_loop().create_future()
        if self._channel is None:
            applied.set_result(None)
        else:
            self._channel.send_object(kind, pickled)
            self._unapplied.append(applied)
        return applied

    def say(self, line: str, *, must_arrive: bool = False) -> None:
        """Send a line to the process, if there is one."""
        if self._channel is not None:
            self._channel.say(line, must_arrive=must_arrive)

    def drain(self) -> None:
        """Ask the process to drain, and do not restart it."""
        self._is_ending.set()
        self.say("drain", must_arrive=True)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    async def _run_process(self) -> int:
        """Run one process from its start to its end, and return its exit code."""
        here, there = socket.socketpair()
        with there:
            self._process = _spawn(there, [*chain(*self._setup.sockets)])
        self._unanswered = 0
        channel = self._channel = await Channel.over(here)
        watching = asyncio.create_task(self._watch(channel), name=f"watch worker {self.number}")
        try:
            with suppress(ConnectionError):
                await channel.send(self._setup)
            if self._is_ending.is_set():
                self.say("drain", must_arrive=True)
            while line := await channel.line():
                self._handle(line)
        finally:
            watching.cancel()
            self._channel = None
            self._applied(len(self._unapplied))
            await channel.close()
            code = await asyncio.to_thread(_reap, self._process)
            self._process = None
            self._ready.clear()
            self._has_changed(self)
        return code

    async def _watch(self, channel: Channel) -> None:
        """Kill the process if it does not become ready, or stops answering pings later."""
        try:
            async with asyncio.timeout(self._timing.start_seconds):
                await self._ready.wait()
        except TimeoutError:
            self._note_first_start(f"it did not get ready in {self._timing.start_seconds:g} s")
            _log.event(logging.ERROR, "worker did not become ready; killed", worker=self.number)
            self.kill()
            return
        while True:
            await asyncio.sleep(self._timing.ping_seconds)
            if self._unanswered >= self._timing.max_unanswered:
                _log.event(logging.ERROR, "worker does not answer; killed", worker=self.number)
                self.kill()
                return
            self._unanswered += 1
            channel.say("ping")

    def _handle(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "pong":
            self._unanswered = 0
        elif word == "ready":
            self._ready.set()
            self._note_first_start("")
            self._has_changed(self)
        elif word == "took":
            self._applied(1)
        elif word == CLIENT.strip():
            self._client_seen(rest)
        elif word == "failed":
            self._note_first_start(rest)
            _log.event(logging.ERROR, "worker cannot start", worker=self.number, error=rest)
        else:
            self._send_to_others(self, line)

    def _applied(self, number: int) -> None:
        for applied in [self._unapplied.popleft() for _ in range(number)]:
            if not applied.done():
                applied.set_result(None)

    def _note_first_start(self, reason: str) -> None:
        if not self.first_start.done():
            self.first_start.set_result(reason)


def _spawn(channel: socket.socket, sockets: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-c", _START, str(_PACKAGES)]
    with _signals_held_back():
        return subprocess.Popen(command, stdin=channel.fileno(), pass_fds=sockets)  # noqa: S603 - our own


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block signals while a process is started; it unblocks them once it can handle them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_REAP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
