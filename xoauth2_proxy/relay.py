"""Relays messages: lease a connection, send, reply. The client's reply is the provider's reply.

I1: a positive reply is returned only after the provider's own.
I2: a second attempt is made only where the first can have delivered nothing.

When a second attempt may be made, case by case (`_Message.attempt` makes it, once, on a new
connection; `upstream.dialogue` tells the cases apart by the state of the loss):

- The connection was dead before anything was sent, or was lost while the envelope, or DATA, awaited
  its reply: yes. No content has left, so no provider can have taken responsibility for the message
  (RFC 5321 §4.2.5 ties that to the reply after the content).
- RSET or MAIL was answered 421: yes, even in one flight. Without an accepted MAIL there is no
  transaction (RFC 5321 §4.1.4), so the BDAT behind it was refused whatever its reply.
- A 4yz or 5yz to anything else: no. It is the provider's answer, and the client's to act on.
- Lost while content was under way: no, although the provider must discard it (RFC 5321 §4.1.1.4).
  The client's 451 has it try again when the network may be better.
- Lost after the last octet, or answered out of order there: no. The provider may have accepted the
  message; RFC 1047 describes the duplicates. The client hears 451, and the log says that the
  outcome is unknown.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from xoauth2_proxy import log, replies
from xoauth2_proxy.diagnostics import Explanations
from xoauth2_proxy.errors import (
    ExtensionMissing,
    OutcomeUnknown,
    ProxyError,
    UpstreamClosedEarly,
)
from xoauth2_proxy.smtp.content import MAX_HEADER_BYTES, DataFraming, message_id
from xoauth2_proxy.upstream.connection import CONTENT_TAKEN
from xoauth2_proxy.upstream.envelope import ends_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from xoauth2_proxy.accounts.accounts import Login
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Envelope, Reply
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.connector import Connector
    from xoauth2_proxy.upstream.pool import Lease, Pool

    Send = Callable[[Connection], Awaitable[Reply]]
    Judge = Callable[[Reply], Reply | None]

_log = log.logger("relay")


@dataclass(slots=True)
class TransactionRecord:
    """One transaction's data for its log line and the metrics."""

    login: Login
    envelope: Envelope
    transaction_id: str
    size_bytes: int = 0
    start: bytes = b""  # of the content, for its Message-ID
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
        self.pool = pool
        self._connector = connector
        self._metrics = metrics
        self.explanations = explanations or Explanations()

    def relay(
        self, login: Login, envelope: Envelope, content: Content, transaction_id: str
    ) -> Coroutine[None, None, Reply]:
        """Return the final reply to a message received whole. Raises only `CancelledError`."""
        octets = content.octets
        record = TransactionRecord(login, envelope, transaction_id, len(octets), octets)
        record.ended_at = time.monotonic()
        return _WholeMessage(self, record).send(content)

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

    def stream(self, login: Login, envelope: Envelope, transaction_id: str) -> StreamingMessage:
        """Return a message that is sent while its content still arrives."""
        return StreamingMessage(self, TransactionRecord(login, envelope, transaction_id))

    def lease(self, record: TransactionRecord, *, new: bool) -> Lease:
        """Return the lease of a connection for this message."""
        login = record.login
        return self.pool.lease(
            login.account, partial(self._open, login), credential=login.credential, new=new
        )

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
            details["message_id"] = message_id(record.start)
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

    def report_cut(self, record: TransactionRecord, *, in_doubt: bool) -> None:
        """Count and log a transaction cut off by the shutdown deadline before the provider replied.

        The client gets 421 and will retry; if all of the content was out, the recipients may get
        a duplicate.
        """
        _log.event(
            logging.WARNING,
            "outcome unknown" if in_doubt else "transaction cut off",
            id=record.transaction_id,
            account=record.login.account.key,
            error="cut off at the shutdown deadline",
            message_id=message_id(record.start),
        )
        self._metrics.provider(record.login.account.provider).cut()

    def note_wait(self, record: TransactionRecord, seconds: float) -> None:
        """Count the time that a message waited for a connection, or for its turn."""
        record.waited_seconds += seconds
        self._metrics.provider(record.login.account.provider).pool_wait_seconds.observe(seconds)

    def _explained(self, record: TransactionRecord) -> dict[str, str]:
        refused: ProxyError | Reply | None = record.refusal or record.failure
        if isinstance(refused, UpstreamClosedEarly):
            refused = refused.reply
        if refused is None:
            return {}
        mailbox = record.login.account
        return self.explanations.fields(str(refused), mailbox.refresher, mailbox.key)

    async def _open(self, login: Login) -> Connection:
        if login.access_token:
            return await self._connector.open_with(login.account, login.access_token)
        return await self._connector.open(login.account)


class _Message:
    """One message being sent: owns the lease, the attempts, and what their failures mean."""

    def __init__(self, relay: Relay, record: TransactionRecord) -> None:
        self._relay = relay
        self._record = record
        self._lease: Lease | None = None

    async def _attempt(self, send: Send, judge: Judge) -> Reply | None:
        """Let `send` use a leased connection, and once more where that is safe (I2).

        Return the answer for the client once `judge` or a failure settles the message, else None.
        Raises only cancellation.
        """
        try:
            if self._record.login.account.limits.messages_per_minute:
                await self._wait_turn()
            try:
                reply = await send(self._kept_connection() or await self._connect(new=False))
            except UpstreamClosedEarly:
                self._end_lease(in_doubt=True)
                reply = await send(await self._connect(new=True))
            return judge(reply)
        except BaseException as error:
            return self._failed(error)

    def _settled(self, answer: Reply) -> None:
        """Note the answer that the client gets."""
        raise NotImplementedError

    def _concluded(self, reply: Reply) -> Reply:
        """Settle the message by the provider's reply; return the answer for the client."""
        self._record.refusal = None if reply.is_positive else reply
        self._relay.pool.note_reply(self._record.login.account, reply)
        self._end_lease(in_doubt=False)
        answer = replies.for_client(reply)
        self._settled(answer)
        return answer

    def _failed(self, error: BaseException) -> Reply:
        """Settle the message by what went wrong; return the answer for the client.

        A connection that was in use is in doubt, unless nothing was sent. Cancellation is raised
        again: what cancelled sends the client 421.
        """
        connection = self._lease.connection if self._lease is not None else None
        in_doubt = connection is not None and connection.is_content_out
        self._end_lease(in_doubt=not isinstance(error, ExtensionMissing))
        if isinstance(error, ProxyError):
            self._record.failure = error
            answer = replies.at_transaction(error)
        elif isinstance(error, Exception):
            # One message may fail by an error of ours; the others go on.
            _log.error("internal error in %s", self._record.transaction_id, exc_info=error)
            answer = replies.INTERNAL_ERROR
        else:
            self._relay.report_cut(self._record, in_doubt=in_doubt)
            raise error
        self._settled(answer)
        return answer

    def _kept_connection(self) -> Connection | None:
        """Lease a connection that is kept, without waiting; None if there is none."""
        lease = self._lease = self._relay.lease(self._record, new=False)
        if lease.connection is not None:
            self._relay.note_wait(self._record, 0.0)
        return lease.connection

    async def _connect(self, *, new: bool) -> Connection:
        """Lease a connection that must be opened, or waited for."""
        if self._lease is None:
            self._lease = self._relay.lease(self._record, new=new)
        began = time.monotonic()
        try:
            return await self._lease.open()
        finally:
            self._relay.note_wait(self._record, time.monotonic() - began)

    async def _wait_turn(self) -> None:
        began = time.monotonic()
        try:
            await self._relay.pool.wait_turn(self._record.login.account)
        finally:
            self._relay.note_wait(self._record, time.monotonic() - began)

    def _end_lease(self, *, in_doubt: bool) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end(in_doubt=in_doubt)


class _WholeMessage(_Message):
    """A message received whole: one step settles it."""

    def send(self, content: Content) -> Coroutine[None, None, Reply]:
        """Return the final reply. Raises only cancellation."""
        envelope = self._record.envelope
        attempt = self._attempt(
            lambda connection: connection.send_message(envelope, content), self._concluded
        )
        return cast("Coroutine[None, None, Reply]", attempt)  # `_concluded` settles every reply

    def _settled(self, answer: Reply) -> None:
        self._relay.report(self._record, answer)


class StreamingMessage(_Message):
    """A message that is sent upstream while it still arrives.

    A failure is kept until `finish` returns its reply; octets written after it are dropped. Every
    instance ends with `finish` or `abandon`.
    """

    def __init__(self, relay: Relay, record: TransactionRecord) -> None:
        super().__init__(relay, record)
        self._framing: DataFraming | None = None  # made when the content begins
        self._is_open = False  # MAIL was accepted
        self._has_go_ahead = False
        self._is_stopped = False
        self._answer: Reply | None = None

    async def recipient(self) -> Reply:
        """Send the provider RCPT for the last recipient; return the reply for the client.

        Once the connection is lost, later recipients and the message itself get the same reply.
        """
        if self._answer is not None:
            return self._answer
        replied: list[Reply] = []

        async def ask(connection: Connection) -> Reply:
            envelope = self._record.envelope
            if not self._is_open:
                sender = await connection.begin(envelope, [])
                if not sender.is_positive:
                    return sender
            reply = await connection.add_recipient(envelope)
            self._is_open = True
            replied.append(reply)
            return reply

        def judge(reply: Reply) -> Reply | None:
            return None if replied and not ends_session(reply) else self._concluded(reply)

        answer = await self._step(ask, judge)
        return answer or replies.for_client(replied[0])

    async def write(self, octets: bytes, *, is_stuffed: bool) -> None:
        """Send content, at the pace at which the provider accepts it."""
        if self._framing is None:
            self._framing = DataFraming(is_stuffed=is_stuffed)
            self._record.start = octets[:MAX_HEADER_BYTES]  # kept for as long as it streams
        self._record.size_bytes += len(octets)
        if self._answer is None and octets:
            await self._get_go_ahead()
        if self._answer is None and octets:
            framed = self._framing.feed(octets)
            await self._step(lambda connection: connection.add_content(framed), self._unless_taken)

    async def finish(self, octets: bytes, *, is_stuffed: bool) -> Reply:
        """Send the last content and return the final reply. Raises only `CancelledError`."""
        self._record.ended_at = time.monotonic()
        await self.write(octets, is_stuffed=is_stuffed)
        framing = self._framing or DataFraming(is_stuffed=is_stuffed)
        await self._get_go_ahead()
        if self._answer is None:
            end = framing.finish()
            await self._step(lambda connection: connection.end_content(end), self._concluded)
        answer = self._answer or replies.INTERNAL_ERROR
        self._relay.report(self._record, answer)
        return answer

    def stop(self) -> None:
        """Send no more: the provider never gets the end of the message."""
        self._is_stopped = True
        self._end_lease(in_doubt=self._has_go_ahead)

    def abandon(self) -> None:
        """Stop, since the client gave the message up."""
        if self._answer is not None:
            # It had failed already, and the client has the reply.
            self._record.ended_at = time.monotonic()
            self._relay.report(self._record, self._answer)
        self.stop()

    def refuse(self, size_bytes: int, answer: Reply) -> None:
        """Stop, and record that the relay itself refused the message because of its content."""
        self.stop()
        self._record.ended_at = time.monotonic()
        self._record.size_bytes = size_bytes
        self._record.failure = self._record.refusal = None
        self._relay.report(self._record, answer)

    async def _get_go_ahead(self) -> None:
        """Send the envelope if needed, then DATA; do nothing if that is settled."""
        if self._has_go_ahead or self._answer is not None:
            return

        async def ask(connection: Connection) -> Reply:
            if not self._is_open:
                envelope = self._record.envelope
                reply = await connection.begin(envelope, envelope.forward_paths)
                if not reply.is_positive:
                    return reply
            return await connection.ask_for_go_ahead()

        def judge(reply: Reply) -> Reply | None:
            self._has_go_ahead = reply.code == 354
            return None if self._has_go_ahead else self._concluded(reply)

        await self._step(ask, judge)

    async def _step(self, send: Send, judge: Judge) -> Reply | None:
        """Make a step of the message. Only the first one, before any content, may be retried."""
        if self._is_stopped:
            raise RuntimeError("the message was stopped")  # a step would begin it anew
        if self._lease is None or self._lease.connection is None:
            return await self._attempt(send, judge)
        try:
            return judge(await send(self._lease.connection))
        except BaseException as error:
            return self._failed(error)

    def _unless_taken(self, reply: Reply) -> Reply | None:
        """Settle the message if the provider refuses its content before the end."""
        return None if reply is CONTENT_TAKEN else self._concluded(reply)

    def _settled(self, answer: Reply) -> None:
        self._answer = answer
