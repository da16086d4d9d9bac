"""A connection that logs in to another mailbox each time it is opened."""

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
        """`logins` must be endless."""
        super().__init__(endpoint, next(logins), behaviour)
        self._logins = logins

    async def close(self) -> None:
        """Close the connection; the next one logs in to the next mailbox."""
        await super().close()
        self.login = next(self._logins)
