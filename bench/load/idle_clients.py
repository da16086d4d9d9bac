"""The idle crowd: clients that log in and stay silent while the load runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from bench.client.connection import SubmissionFailed
from bench.client.submission import Submission
from bench.measurement.result import IdleClientFigures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.client.endpoint import Endpoint
    from bench.client.login import ClientLogin
    from bench.client.submission import ClientBehaviour

_OPENING_AT_ONCE = 50
_CLOSING_AT_ONCE = 200


class IdleClients:
    """A number of clients; leaving the context without `close` ends their connections at once."""

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
        self._present: list[Submission] = []
        self._refused = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._waiting:
            client.abort()

    async def open(self, is_stopped: asyncio.Event) -> None:
        """Let them come in, a bounded number at once.

        `is_stopped` ends it: those on their way in are turned back, and the rest stays outside.
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

    async def close(self) -> IdleClientFigures:
        """Let them leave; return what became of them."""
        staying = [client for client in self._present if client.is_open]
        figures = IdleClientFigures(
            clients=self._clients,
            refused=self._refused,
            lost=len(self._present) - len(staying),
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
                self._refused += 1
            else:
                self._present.append(client)
