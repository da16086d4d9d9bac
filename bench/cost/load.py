"""The closed loop: N clients, each with one message in flight, and crowds that send none.

I1: every message begun is acknowledged and counted, or the load fails with what the relay said.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bench.cost.plan import mailbox
from bench.measurement.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.cost.client import Client, Entrance, LoadFailed
    from bench.cost.plan import Workload

_OPENING_AT_ONCE = 50  # of a crowd
_TRICKLE_ROUNDS = 10  # a second, a tenth of the crowd in each


class _Share:
    """The messages that are left to send, dealt out one at a time."""

    def __init__(self, messages: int) -> None:
        self._left = messages

    def take(self) -> bool:
        """Return whether there was one left."""
        self._left -= 1
        return self._left >= 0


class Fleet:
    """The sending clients of one workload at one relay; they stay connected between runs."""

    def __init__(self, workload: Workload, entrance: Entrance) -> None:
        self.acknowledged = 0  # in all runs
        self._workload = workload
        self._entrance = entrance
        self._senders = [_Sender(self, index) for index in range(workload.clients)]

    async def warm_up(self) -> None:
        """Let every client send its messages of the warm-up.

        Raises:
            LoadFailed: the relay did not take one.
        """
        await self._run([_Share(self._workload.warmup_messages) for _ in self._senders])

    async def run(self) -> Histogram:
        """Send the workload's messages and return how long each took.

        Raises:
            LoadFailed: the relay did not take one.
        """
        share = _Share(self._workload.messages)
        return await self._run([share for _ in self._senders])

    def close(self) -> None:
        """Close every connection at once."""
        for sender in self._senders:
            sender.close()

    async def _run(self, shares: list[_Share]) -> Histogram:
        latency = Histogram()
        try:
            async with asyncio.TaskGroup() as group:
                for sender, share in zip(self._senders, shares, strict=True):
                    group.create_task(sender.work(share, latency))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # one says it; the rest were cancelled
        return latency

    async def open(self, session: int) -> Client:
        """Return a client that has logged in to its mailbox of this number, in turn."""
        return await self._entrance.open(mailbox(session % self._workload.mailboxes))


class _Sender:
    """One client's loop over sessions and messages."""

    def __init__(self, fleet: Fleet, index: int) -> None:
        self._fleet = fleet
        self._next_session = index
        self._client: Client | None = None  # None: not connected
        self._left_in_session = 0
        self._share = _Share(0)
        self._latency = Histogram()
        self._begun = 0.0
        self._idle: asyncio.Future[None]

    async def work(self, share: _Share, latency: Histogram) -> None:
        self._share, self._latency = share, latency
        while share.take():
            self._begun = time.perf_counter()
            if self._client is None:
                await self._open()
            self._idle = asyncio.get_running_loop().create_future()
            self._send()
            await self._idle
            if not self._left_in_session:
                await self._leave()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    async def _open(self) -> None:
        workload = self._fleet._workload
        self._client = await self._fleet.open(self._next_session)
        self._next_session += workload.clients
        self._left_in_session = workload.session_messages or -1

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._fleet._entrance.close(client)

    def _send(self) -> None:
        if self._client is not None:
            self._client.start(self._fleet._entrance.message, self._settle)

    def _settle(self, failure: LoadFailed | None) -> None:
        # Straight on to the next message: no task is woken on the hot path.
        if self._idle.done():  # given up
            return
        if failure is not None:
            self._idle.set_exception(failure)
            return
        now = time.perf_counter()
        self._latency.add_seconds(now - self._begun)
        self._fleet.acknowledged += 1
        self._left_in_session -= 1
        if self._left_in_session and self._share.take():
            self._begun = now
            self._send()
        else:
            self._idle.set_result(None)


@asynccontextmanager
async def crowd(entrance: Entrance, count: int, mailboxes: int) -> AsyncIterator[list[Client]]:
    """Keep this many authenticated clients for as long as the context is entered.

    Raises:
        LoadFailed: one was not let in.
    """
    clients: list[Client] = []
    numbers = iter(range(count))

    async def open_some() -> None:
        for number in numbers:
            clients.append(await entrance.open(mailbox(number % mailboxes)))  # noqa: PERF401

    try:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_OPENING_AT_ONCE, count)):
                    group.create_task(open_some())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        yield clients
    finally:
        for client in clients:
            client.close()


@asynccontextmanager
async def trickling(entrance: Entrance, clients: list[Client]) -> AsyncIterator[None]:
    """Let each of the clients begin a message and send an octet of it a second.

    Raises:
        LoadFailed: one was not allowed to begin.
    """
    for start in range(0, len(clients), _OPENING_AT_ONCE):
        some = clients[start : start + _OPENING_AT_ONCE]
        await asyncio.gather(*(client.carry_out(*entrance.until_content) for client in some))
    task = asyncio.create_task(_trickle(clients))
    try:
        yield
    finally:
        task.cancel()


async def _trickle(clients: list[Client]) -> None:
    number = 0
    while True:
        for client in clients[number % _TRICKLE_ROUNDS :: _TRICKLE_ROUNDS]:
            client.send(b"x")
        number += 1
        await asyncio.sleep(1 / _TRICKLE_ROUNDS)
