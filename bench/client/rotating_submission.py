"""A connection whose client is another mailbox each time it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.client.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.client.endpoint import Endpoint
    from bench.client.login import ClientLogin
    from bench.client.submission import ClientBehaviour


class RotatingSubmission(Submission):
    """A submission that logs in to the next mailbox after each `close`."""

    def __init__(
        self, endpoint: Endpoint, logins: Iterator[ClientLogin], behaviour: ClientBehaviour
    ) -> None:
        """Take `logins` that never end."""
        super().__init__(endpoint, next(logins), behaviour)
        self._logins = logins

    async def close(self) -> None:
        """Take leave as any submission does, and be the next mailbox's."""
        await super().close()
        self.login = next(self._logins)
