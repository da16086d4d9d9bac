"""Relays one message: lease, transact, reply. The client's reply is the provider's reply.

I1: a positive reply is returned only after the provider's own.
Invisible second attempts are made only where nothing can have been delivered by the first.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy import log, replies
from xoauth2_proxy.content import message_id
from xoauth2_proxy.errors import OutcomeUnknown, ProxyError, UpstreamClosedEarly
from xoauth2_proxy.upstream.transaction import transact

if TYPE_CHECKING:
    from xoauth2_proxy.authentication import Login
    from xoauth2_proxy.content import Content
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.smtp import Envelope, Reply
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.opener import Opener
    from xoauth2_proxy.upstream.pool import Pool

_log = log.logger("relay")


@dataclass(slots=True)
class _Timings:
    """Where a transaction's time went, in seconds."""

    started: float
    waited: float = 0.0  # for a connection, opening included


class Relay:
    """Sends messages on behalf of logins."""

    def __init__(self, pool: Pool, opener: Opener, metrics: Metrics) -> None:
        self._pool = pool
        self._opener = opener
        self._metrics = metrics

    async def relay(
        self, login: Login, envelope: Envelope, content: Content, transaction_id: str
    ) -> Reply:
        """Return the final reply for the client. Raises nothing but cancellation."""
        timings = _Timings(time.monotonic())
        failure: ProxyError | None = None
        try:
            upstream = await self._attempt(login, envelope, content, timings)
            answer = replies.for_client(upstream)
        except ProxyError as error:
            failure = error
            answer = replies.at_transaction(error)
        except Exception:
            # The exception fence of house.md §5: one message never takes more than itself down.
            _log.exception("internal error in transaction %s", transaction_id)
            answer = replies.INTERNAL_ERROR
        duration = time.monotonic() - timings.started
        provider = login.account.provider
        self._metrics.messages.labels(provider, f"{answer.code // 100}xx").inc()
        self._metrics.message_bytes.labels(provider).inc(len(content.octets))
        self._metrics.relay_seconds.labels(provider).observe(duration)
        _log.event(
            logging.INFO if answer.is_positive else logging.WARNING,
            "outcome unknown" if isinstance(failure, OutcomeUnknown) else "transaction",
            id=transaction_id,
            account=login.account.key,
            sender=envelope.reverse_path,
            recipients=len(envelope.forward_paths),
            bytes=len(content.octets),
            reply=answer,
            wait_seconds=timings.waited,
            relay_seconds=duration,
            **_details(failure, content),
        )
        return answer

    async def _attempt(
        self, login: Login, envelope: Envelope, content: Content, timings: _Timings
    ) -> Reply:
        try:
            return await self._once(login, envelope, content, timings, new=False)
        except UpstreamClosedEarly:
            return await self._once(login, envelope, content, timings, new=True)

    async def _once(
        self, login: Login, envelope: Envelope, content: Content, timings: _Timings, *, new: bool
    ) -> Reply:
        asked = time.monotonic()
        lease = self._pool.lease(login.account, partial(self._open, login), new=new)
        async with lease as connection:
            waited = time.monotonic() - asked
            timings.waited += waited
            self._metrics.pool_wait_seconds.labels(login.account.provider).observe(waited)
            return await transact(connection, envelope, content)

    async def _open(self, login: Login) -> Connection:
        if login.access_token:
            return await self._opener.open_with(login.account, login.access_token)
        return await self._opener.open(login.account)


def _details(failure: ProxyError | None, content: Content) -> dict[str, object]:
    if failure is None:
        return {}
    if isinstance(failure, OutcomeUnknown):
        # Whoever looks into a possible duplicate needs the message's own name.
        return {"error": failure, "message_id": message_id(content.octets)}
    return {"error": failure}
