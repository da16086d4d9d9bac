"""Relays messages to the provider and returns the provider's replies.

I1: a positive reply is returned only after the provider's own.
A transaction is retried only if the first attempt cannot have delivered anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy import log, replies
from xoauth2_proxy.diagnostics import Explanations
from xoauth2_proxy.errors import (
    ExtensionMissing,
    OutcomeUnknown,
    ProxyError,
    UpstreamClosedEarly,
)
from xoauth2_proxy.smtp.content import DataFraming, message_id
from xoauth2_proxy.upstream.envelope import TransactionRefused, close_if_spent, is_spent
from xoauth2_proxy.upstream.stream import StreamingTransaction
from xoauth2_proxy.upstream.transaction import transact

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from xoauth2_proxy.accounts.accounts import Login
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Envelope, Reply
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.connector import Connector
    from xoauth2_proxy.upstream.pool import Pool

_log = log.logger("relay")


@dataclass(slots=True)
class TransactionRecord:
    """One transaction's data for its log line and the metrics."""

    login: Login
    envelope: Envelope
    transaction_id: str
    size_bytes: int = 0
    message_id: str = ""
    waited_seconds: float = 0.0  # for the rate limit and a connection, including its opening
    ended_at: float = 0.0  # when the client's last octet arrived
    failure: ProxyError | None = None
    refusal: Reply | None = None  # by the provider


class Relay:
    """Sends messages on behalf of logins."""

    def __init__(
        self,
        pool: Pool,
        connector: Connector,
        metrics: Metrics,
        explanations: Explanations | None = None,
    ) -> None:
        self._pool = pool
        self._connector = connector
        self._metrics = metrics
        self.explanations = explanations or Explanations()

    async def relay(
        self, login: Login, envelope: Envelope, content: Content, transaction_id: str
    ) -> Reply:
        """Return the final reply to a message received whole. Raises only `CancelledError`."""
        record = TransactionRecord(login, envelope, transaction_id, size_bytes=len(content.octets))
        record.ended_at = time.monotonic()
        try:
            answer = replies.for_client(await self._attempt(record, content))
        except ProxyError as error:
            record.failure = error
            answer = replies.at_transaction(error)
            if isinstance(error, OutcomeUnknown):
                record.message_id = message_id(content.octets)
        except asyncio.CancelledError:
            record.message_id = message_id(content.octets)
            self.report_cut(record)
            raise
        except Exception:
            answer = _internal_error(transaction_id)
        self.report(record, answer)
        return answer

    def refuse(
        self,
        login: Login,
        envelope: Envelope,
        size_bytes: int,
        transaction_id: str,
        answer: Reply,
    ) -> None:
        """Record a message that the relay itself refused because of its content."""
        record = TransactionRecord(login, envelope, transaction_id, size_bytes=size_bytes)
        record.ended_at = time.monotonic()
        self.report(record, answer)

    def stream(self, login: Login, envelope: Envelope, transaction_id: str) -> StreamingRelay:
        """Return a `StreamingRelay` for a message that is sent while its content arrives."""
        return StreamingRelay(self, TransactionRecord(login, envelope, transaction_id))

    async def acquire(self, record: TransactionRecord, *, new: bool) -> Connection:
        """Lease a connection from the pool; `release` returns it."""
        login, asked = record.login, time.monotonic()
        try:
            return await self._pool.acquire(login.account, partial(self._open, login), new=new)
        finally:
            self._waited(record, time.monotonic() - asked)

    def release(self, record: TransactionRecord, connection: Connection, *, in_doubt: bool) -> None:
        """Return a connection to the pool."""
        self._pool.release(record.login.account, connection, in_doubt=in_doubt)

    def report(self, record: TransactionRecord, answer: Reply) -> None:
        """Count and log a transaction that has its final reply."""
        duration = time.monotonic() - record.ended_at
        series = self._metrics.provider(record.login.account.provider)
        series.message(answer.code, record.size_bytes, duration)
        level = logging.INFO if answer.is_positive else logging.WARNING
        if not _log.is_enabled(level):
            return
        failure = record.failure
        details: dict[str, object] = {"error": failure} if failure is not None else {}
        if isinstance(failure, OutcomeUnknown):
            # Needed to look into a possible duplicate.
            details["message_id"] = record.message_id
        details |= self._explained(record)
        _log.event(
            level,
            "outcome unknown" if isinstance(failure, OutcomeUnknown) else "transaction",
            id=record.transaction_id,
            account=record.login.account.key,
            sender=record.envelope.reverse_path,
            recipients=len(record.envelope.forward_paths),
            bytes=record.size_bytes,
            reply=answer,
            wait_seconds=record.waited_seconds,
            relay_seconds=duration,
            **details,
        )

    def report_cut(self, record: TransactionRecord) -> None:
        """Count and log a transaction cut off by the shutdown deadline before the provider replied.

        The client gets 421 and will retry, so the recipients may get a duplicate.
        """
        _log.event(
            logging.WARNING,
            "outcome unknown",
            id=record.transaction_id,
            account=record.login.account.key,
            error="cut off at the shutdown deadline",
            message_id=record.message_id,
        )
        self._metrics.provider(record.login.account.provider).cut()

    async def wait_turn(self, record: TransactionRecord) -> None:
        """Wait until the mailbox's rate limit allows one more message. Raises `Overloaded`."""
        if not record.login.account.limits.messages_per_minute:
            return
        asked = time.monotonic()
        try:
            await self._pool.wait_turn(record.login.account)
        finally:
            self._waited(record, time.monotonic() - asked)

    def note_reply(self, record: TransactionRecord, reply: Reply) -> None:
        """Record the provider's reply and pass it to the pool, which may lower its cap."""
        record.refusal = None if reply.is_positive else reply
        self._pool.note_reply(record.login.account, reply)

    async def _attempt(self, record: TransactionRecord, content: Content) -> Reply:
        await self.wait_turn(record)
        try:
            return await self._once(record, content, new=False)
        except UpstreamClosedEarly:
            return await self._once(record, content, new=True)

    async def _once(self, record: TransactionRecord, content: Content, *, new: bool) -> Reply:
        connection = await self.acquire(record, new=new)
        try:
            reply = await transact(connection, record.envelope, content)
        except ExtensionMissing:
            self.release(record, connection, in_doubt=False)
            raise
        except BaseException:
            self.release(record, connection, in_doubt=True)
            raise
        self.note_reply(record, reply)
        self.release(record, connection, in_doubt=False)
        return reply

    def _explained(self, record: TransactionRecord) -> dict[str, str]:
        refused: ProxyError | Reply | None = record.refusal or record.failure
        if isinstance(refused, UpstreamClosedEarly):
            refused = refused.reply
        if refused is None:
            return {}
        mailbox = record.login.account
        return self.explanations.fields(str(refused), mailbox.refresher, mailbox.key)

    def _waited(self, record: TransactionRecord, seconds: float) -> None:
        record.waited_seconds += seconds
        self._metrics.provider(record.login.account.provider).pool_wait_seconds.observe(seconds)

    async def _open(self, login: Login) -> Connection:
        if login.access_token:
            return await self._connector.open_with(login.account, login.access_token)
        return await self._connector.open(login.account)


class StreamingRelay:
    """One message that is sent upstream while it still arrives.

    A failure is kept until `finish` returns its reply; octets written after it are dropped. Every
    instance ends with `finish` or `abandon`.
    """

    def __init__(self, relay: Relay, record: TransactionRecord) -> None:
        self._relay = relay
        self._record = record
        self._framing: DataFraming | None = None  # created when the content begins
        self._connection: Connection | None = None
        self._stream: StreamingTransaction | None = None
        self._has_go_ahead = False
        self._answer: Reply | None = None

    async def recipient(self, path: str) -> Reply:
        """Send the provider one RCPT and return the reply for the client.

        Once the connection is lost, later recipients and the message itself get the same reply.
        """
        found: list[Reply] = []
        if self._answer is None:
            await self._guarded(self._send_recipient(path, found))
        return self._answer or replies.for_client(found[0])

    async def write(self, octets: bytes, *, is_stuffed: bool) -> None:
        """Send content, at the pace at which the provider accepts it."""
        if self._framing is None:
            self._framing = DataFraming(is_stuffed=is_stuffed)
        if not self._record.size_bytes:
            self._record.message_id = message_id(octets)
        self._record.size_bytes += len(octets)
        if self._answer is None and octets:
            await self._guarded(self._pass_on(self._framing.feed(octets)))

    async def finish(self, octets: bytes, *, is_stuffed: bool) -> Reply:
        """Send the last content and return the final reply. Raises only `CancelledError`."""
        self._record.ended_at = time.monotonic()
        await self.write(octets, is_stuffed=is_stuffed)
        framing = self._framing or DataFraming(is_stuffed=is_stuffed)
        if self._answer is None:
            await self._guarded(self._end(framing.finish()))
        answer = self._answer or replies.INTERNAL_ERROR
        self._relay.report(self._record, answer)
        return answer

    def abandon(self) -> None:
        """Stop without a reply: the provider never gets the end of the message."""
        if self._answer is not None:
            # It had failed already, and the client has the reply.
            self._record.ended_at = time.monotonic()
            self._relay.report(self._record, self._answer)
        self._release(in_doubt=self._has_go_ahead)

    async def _guarded(self, step: Awaitable[None]) -> None:
        try:
            await step
        except TransactionRefused as refusal:
            self._conclude(refusal.reply)
        except ExtensionMissing as error:
            self._answer = error.reply
            self._release(in_doubt=False)
        except ProxyError as error:
            self._record.failure = error
            self._answer = replies.at_transaction(error)
            self._release(in_doubt=True)
        except Exception:
            self._answer = _internal_error(self._record.transaction_id)
            self._release(in_doubt=True)
        except BaseException:
            self._relay.report_cut(self._record)
            self._release(in_doubt=True)
            raise

    async def _send_recipient(self, path: str, found: list[Reply]) -> None:
        reply = await self._recipient_reply(path)
        if is_spent(reply):
            self._conclude(reply)
        else:
            found.append(reply)

    async def _recipient_reply(self, path: str) -> Reply:
        if self._stream is not None:
            return await self._stream.recipient(path)
        await self._relay.wait_turn(self._record)
        try:
            return await (await self._acquire(new=False)).recipient(path)
        except UpstreamClosedEarly:
            self._release(in_doubt=True)
            return await (await self._acquire(new=True)).recipient(path)

    async def _pass_on(self, octets: bytes) -> None:
        stream = await self._ready()
        await stream.write(octets)

    async def _end(self, octets: bytes) -> None:
        stream = await self._ready()
        self._conclude(await stream.end(octets))

    async def _ready(self) -> StreamingTransaction:
        """Return the stream once the provider has replied 354."""
        if self._stream is not None and self._has_go_ahead:
            return self._stream
        stream = self._stream or await self._begin()
        if not self._has_go_ahead:
            await stream.go_ahead()
            self._has_go_ahead = True
        return stream

    async def _begin(self) -> StreamingTransaction:
        """Send the envelope and DATA; retry on a new connection if the first was dead."""
        await self._relay.wait_turn(self._record)
        try:
            return await self._begin_on(await self._acquire(new=False))
        except UpstreamClosedEarly:
            self._release(in_doubt=True)
            return await self._begin_on(await self._acquire(new=True))

    async def _begin_on(self, stream: StreamingTransaction) -> StreamingTransaction:
        await stream.begin()
        await stream.go_ahead()
        self._has_go_ahead = True
        return stream

    async def _acquire(self, *, new: bool) -> StreamingTransaction:
        self._connection = await self._relay.acquire(self._record, new=new)
        self._stream = StreamingTransaction(self._connection, self._record.envelope)
        return self._stream

    def _conclude(self, upstream: Reply) -> None:
        self._answer = replies.for_client(upstream)
        self._relay.note_reply(self._record, upstream)
        if self._connection is not None:
            close_if_spent(self._connection, upstream)
        self._release(in_doubt=False)

    def _release(self, *, in_doubt: bool) -> None:
        connection, self._connection, self._stream = self._connection, None, None
        if connection is not None:
            self._relay.release(self._record, connection, in_doubt=in_doubt)


def _internal_error(transaction_id: str) -> Reply:
    """Log an unexpected exception and return a reply: it fails this message only."""
    _log.exception("internal error in transaction %s", transaction_id)
    return replies.INTERNAL_ERROR
