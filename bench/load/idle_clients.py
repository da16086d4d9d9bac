"""Clients that log in and send nothing, or very slowly, while the load runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from bench.client.connection import SubmissionFailed
from bench.client.submission import Submission
from bench.measurement.result import IdleClientFigures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from bench.client.endpoint import Endpoint
    from bench.client.login import ClientLogin
    from bench.client.submission import ClientBehaviour
    from bench.load.messages import MessageSource

_OPENING_AT_ONCE = 50
_CLOSING_AT_ONCE = 200
_TRICKLE_START_SECONDS = 1.0  # over which their starts are spread, to avoid writing in step
_TRICKLE_SETTLE_SECONDS = 0.5


class IdleClients:
    """A group of clients; leaving the context without `close` ends their connections at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        logins: Sequence[ClientLogin],
        clients: int,
        behaviour: ClientBehaviour | None = None,
    ) -> None:
        self._clients = clients
        self._waiting = [
            Submission(endpoint, logins[index % len(logins)], behaviour) for index in range(clients)
        ]
        self.present: list[Submission] = []  # those that are logged in
        self.refused = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._waiting:
            client.abort()

    async def open(self, is_stopped: asyncio.Event) -> None:
        """Connect the clients, a limited number at a time.

        `is_stopped` ends it: those that are connecting are cancelled, and the rest do not connect.
        """
        if is_stopped.is_set():
            return
        opening = asyncio.create_task(self._open())
        stopping = asyncio.create_task(is_stopped.wait())
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
            stopping.cancel()
            await asyncio.wait((opening, stopping))
        if not opening.cancelled():
            opening.result()

    @asynccontextmanager
    async def trickling(self, source: MessageSource) -> AsyncIterator[None]:
        """Make each connected client send a message, at the rate of its behaviour.

        They start one after the other within a second, before the context is entered, and are
        cut off at its end, which must come before a message is complete.

        Raises:
            SubmissionFailed: one was refused, or its connection was lost.
        """
        sent = [
            asyncio.create_task(_trickle(client, source, number, len(self.present)))
            for number, client in enumerate(self.present)
        ]
        try:
            await asyncio.sleep(_TRICKLE_START_SECONDS + _TRICKLE_SETTLE_SECONDS)
            yield
            for task in sent:
                if task.done():
                    task.result()
        finally:
            for task in sent:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)

    async def close(self) -> IdleClientFigures:
        """Disconnect the clients; return the figures about them."""
        staying = [client for client in self.present if client.is_open]
        figures = IdleClientFigures(
            clients=self._clients,
            refused=self.refused,
            lost=len(self.present) - len(staying),
        )
        for start in range(0, len(staying), _CLOSING_AT_ONCE):
            some = staying[start : start + _CLOSING_AT_ONCE]
            await asyncio.gather(*(client.close() for client in some))
        return figures

    async def _open(self) -> None:
        queue = iter(self._waiting)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_OPENING_AT_ONCE, self._clients)):
                group.create_task(self._let_in(queue))

    async def _let_in(self, queue: Iterator[Submission]) -> None:
        for client in queue:
            try:
                await client.open()
            except SubmissionFailed:
                self.refused += 1
            else:
                self.present.append(client)


async def _trickle(client: Submission, source: MessageSource, number: int, count: int) -> None:
    await asyncio.sleep(_TRICKLE_START_SECONDS * number / count)
    mailbox = client.login.mailbox
    await client.send(mailbox, source.forward_paths(number), source.content(number, mailbox))
