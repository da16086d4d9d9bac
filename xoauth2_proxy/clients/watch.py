"""Hears of all clients of a process: records them, and counts and logs who was turned away."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.clients.causes import explain
from xoauth2_proxy.clients.interface import Refused
from xoauth2_proxy.clients.log_limit import PERIOD_SECONDS, LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Counter

    from xoauth2_proxy.clients.interface import ConnectedClient
    from xoauth2_proxy.clients.record import ClientRecord
    from xoauth2_proxy.smtp.protocol import Reply

_log = log.logger("clients")


class ClientWatch:
    """Observes the clients of one process."""

    def __init__(
        self,
        record: ClientRecord,
        turned_away: Counter,
        has_changed: Callable[[], None] | None = None,
    ) -> None:
        """`turned_away` has the labels reason and listener; `has_changed` is told of each change
        of the record."""
        self._record = record
        self._turned_away = turned_away
        self._has_changed = has_changed
        self._limit = LogLimit()
        self._period: asyncio.TimerHandle | None = None

    def turned_away(self, client: ConnectedClient) -> None:
        """Record, count and log that a client was turned away."""
        reason = client.reason
        if reason is None:
            return
        self._record.turned_away(client)
        self._note_change()
        if reason is Refused.LEFT:  # perhaps a test of the connection, which is no fault
            return
        self._turned_away.labels(reason, client.listener).inc()
        if self._period is None:
            loop = asyncio.get_running_loop()
            self._period = loop.call_later(PERIOD_SECONDS, self._end_period)
        if self._limit.allows(client.address):
            _log.event(logging.WARNING, "client turned away", **_fields(client, reason))

    def finished(self, client: ConnectedClient, sender: str, size_bytes: int, reply: Reply) -> None:
        """Record a transaction; count the reason if it was the relay that refused it."""
        self._record.finished(client, sender, size_bytes, reply)
        self._note_change()
        if client.reason is not None and not reply.is_positive:
            self._turned_away.labels(client.reason, client.listener).inc()

    def close(self) -> None:
        """Log how many lines were left out until now."""
        if self._period is not None:
            self._period.cancel()
            self._end_period()

    def _note_change(self) -> None:
        if self._has_changed is not None:
            self._has_changed()

    def _end_period(self) -> None:
        self._period = None
        for address, left_out in self._limit.end_period():
            _log.event(
                logging.WARNING,
                "more clients turned away, without a line each",
                client=address or "others",
                left_out=left_out,
            )


def _fields(client: ConnectedClient, reason: Refused) -> dict[str, object]:
    """Return the fields of the line about a client that was turned away."""
    said = explain(reason, client)
    given = {
        "login": client.login,
        "account": client.account,
        "credential": client.credential,
        "mechanism": client.mechanism,
        "sender": client.sender,
        "reply": client.reply,
    }
    return {
        "session": client.session_id,
        "client": client.address,
        "listener": client.listener,
        "reason": str(reason),
        "greeting": client.greeting,
        "tls": client.tls or "none",
        **{name: value for name, value in given.items() if value},
        **({"attempts": client.attempts} if client.attempts > 1 else {}),
        "cause": said.cause,
        "remedy": said.remedy,
    }
