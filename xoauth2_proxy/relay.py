"""Relays messages: lease a connection, send, reply. The client's reply is the provider's reply.

I1: a positive reply is returned only after the provider's own.
I2: a second attempt is made only where the first can have delivered nothing.

When a second attempt may be made, case by case (`_Transaction._attempt` makes it, once, on a new
connection; `upstream.dialogue` tells the cases apart by the state of the loss):

- The connection was dead before anything was sent, or was lost while the envelope, or DATA, awaited
  its reply: yes. No content has left, so no provider can have taken responsibility for the message
  (RFC 5321 §4.2.5 ties that to the reply after the content).
- RSET or MAIL was answered 421: yes, even in one flight. Without an accepted MAIL there is no
  transaction (RFC 5321 §4.1.4), so the BDAT behind it was refused whatever its reply.
- A 4yz or 5yz to anything else: no. It is the provider's answer, and the client's to act on.
- Lost while content was under way: no. The provider must discard it (RFC 5321 §4.1.1.4), so that a
  second attempt would be safe; but the client gets 451 and tries again later, when the network may
  be better.
- Lost after the last octet, or answered out of order there: no. The provider may have accepted the
  message; RFC 1047 describes the duplicates. The client gets 451, and the log says that the
  outcome is unknown.
"""

from __future__ import annotations

import logging
import time
from asyncio import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from xoauth2_proxy import log, replies
from xoauth2_proxy.clients.causes import explain
from xoauth2_proxy.clients.interface import NoObserver
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
    from xoauth2_proxy.clients.interface import ClientObserver
    from xoauth2_proxy.message import Message
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.connector import Connector
    from xoauth2_proxy.upstream.pool import Lease, Pool

    Send = Callable[[Connection], Awaitable[Reply]]
    Judge = Callable[[Reply], Reply | None]

T = TypeVar("T")

_log = log.logger("relay")

# Of each write of the content held so far; TLS would copy one large write as a whole.
_PIECE_BYTES = 65_536


class Relay:
    """Sends messages on behalf of logins."""

    def __init__(
        self,
        pool: Pool,
        connector: Connector,
        metrics: Metrics,
        explanations: Explanations | None = None,
        observer: ClientObserver | None = None,
    ) -> None:
        self.pool = pool
        self._connector = connector
        self._metrics = metrics
        self.explanations = explanations or Explanations()
        self.observer = observer or NoObserver()

    def relay(self, message: Message, content: Content) -> Coroutine[None, None, Reply]:
        """Return the final reply to a message received whole. Raises only `CancelledError`."""
        message.start = content.octets
        message.size_bytes = len(content.octets)
        message.ended_at = time.monotonic()
        return _WholeMessage(self, message).send(content)

    def refuse(self, message: Message, answer: Reply) -> None:
        """Record a message that the relay itself refused because of its content."""
        message.ended_at = time.monotonic()
        message.failure = message.refusal = None
        self.report(message, answer)

    def stream(self, message: Message) -> StreamingMessage:
        """Return a message that is sent while its content still arrives."""
        return StreamingMessage(self, message)

    def lease(self, message: Message, *, new: bool) -> Lease:
        """Return the lease of a connection for this message."""
        login = message.login
        return self.pool.lease(
            login.account, partial(self._open, login), credential=login.token_digest, new=new
        )

    def report(self, message: Message, answer: Reply) -> None:
        """Count and log a transaction that has its final reply."""
        duration = time.monotonic() - message.ended_at
        series = self._metrics.provider(message.login.account.provider)
        series.message(answer.code, message.size_bytes, duration)
        self._log_transaction(message, answer, duration)
        if message.client is not None:
            message.client.finished(message.envelope.reverse_path, message.size_bytes, answer)

    def _log_transaction(self, message: Message, answer: Reply, duration: float) -> None:
        level = logging.INFO if answer.is_positive else logging.WARNING
        if not _log.is_enabled(level):
            return
        failure = message.failure
        details: dict[str, object] = {"error": failure} if failure is not None else {}
        details |= self._explained(message)
        envelope = message.envelope
        _log.event(
            level,
            "outcome unknown" if isinstance(failure, OutcomeUnknown) else "transaction",
            **_origin(message),
            sender=envelope.reverse_path,
            recipients=len(envelope.forward_paths),
            recipient=envelope.forward_paths[0] if envelope.forward_paths else "",
            bytes=message.size_bytes,
            reply=answer,
            wait_seconds=message.waited_seconds,
            relay_seconds=duration,
            **details,
        )

    def report_cut(self, message: Message, *, in_doubt: bool) -> None:
        """Count and log a transaction cut off by the shutdown deadline before the provider replied.

        The client gets 421 and will retry; if all of the content had been sent, the recipients may
        get a duplicate.
        """
        _log.event(
            logging.WARNING,
            "outcome unknown" if in_doubt else "transaction cut off",
            **_origin(message),
            error="cut off at the shutdown deadline",
        )
        self._metrics.provider(message.login.account.provider).cut()

    def note_wait(self, message: Message, seconds: float) -> None:
        """Count the time that a message waited for a connection, or for its turn."""
        message.waited_seconds += seconds
        self._metrics.provider(message.login.account.provider).pool_wait_seconds.observe(seconds)

    def _explained(self, message: Message) -> dict[str, str]:
        client = message.client
        if client is not None and client.reason is not None:  # the relay itself refused it
            own = explain(client.reason, client)
            return {"cause": own.cause, "remedy": own.remedy}
        refused: ProxyError | Reply | None = message.refusal or message.failure
        if isinstance(refused, UpstreamClosedEarly):
            refused = refused.reply
        if refused is None:
            return {}
        mailbox = message.login.account
        return self.explanations.fields(str(refused), mailbox.refresher, mailbox.key)

    async def _open(self, login: Login) -> Connection:
        if login.access_token:
            return await self._connector.open_with(login.account, login.access_token)
        return await self._connector.open(login.account)


class _Transaction:
    """One message being sent: owns the lease, the attempts, and what their failures mean."""

    def __init__(self, relay: Relay, message: Message) -> None:
        self._relay = relay
        self._message = message
        self._lease: Lease | None = None
        self._sent: Awaitable[Reply] | None = None  # the step whose reply is awaited

    async def _attempt(self, send: Send, judge: Judge) -> Reply | None:
        """Let `send` use a leased connection, and once more where that is safe (I2).

        Return the answer for the client once `judge` or a failure settles the message, else None.
        Raises only cancellation.
        """
        relay, message = self._relay, self._message
        account = message.login.account
        self._sent = None
        try:
            if account.limits.messages_per_minute:
                await self._timed(relay.pool.wait_turn(account))
            lease = self._lease = relay.lease(message, new=False)
            if (connection := lease.connection) is not None:
                relay.note_wait(message, 0.0)
            else:
                connection = await self._timed(lease.open())
            try:
                self._sent = send(connection)
                reply = await self._sent
            except UpstreamClosedEarly:
                self._sent = None
                lease.end(in_doubt=True)
                lease = self._lease = relay.lease(message, new=True)
                self._sent = send(await self._timed(lease.open()))
                reply = await self._sent
            return judge(reply)
        except BaseException as error:
            return self._interrupted(error, judge)

    def _interrupted(self, error: BaseException, judge: Judge) -> Reply | None:
        """Settle what raised `error`, or judge the reply that arrived just before a cancellation.

        If a received 250 were not passed on, the client would send a duplicate.
        """
        sent = self._sent
        if isinstance(error, CancelledError) and isinstance(sent, Future) and _has_result(sent):
            return judge(sent.result())
        return self._failed(error)

    async def _timed(self, waiting: Awaitable[T]) -> T:
        """Wait for the message's turn or its connection, and note how long that took."""
        began = time.monotonic()
        try:
            return await waiting
        finally:
            self._relay.note_wait(self._message, time.monotonic() - began)

    def _settled(self, answer: Reply) -> None:
        """Note the answer that the client gets."""
        raise NotImplementedError

    def _settle_by_reply(self, reply: Reply) -> Reply:
        """Settle the message by the provider's reply; return the answer for the client."""
        self._message.refusal = None if reply.is_positive else reply
        self._relay.pool.note_reply(self._message.login.account, reply)
        self._end_lease(in_doubt=False)
        answer = replies.for_client(reply)
        self._settled(answer)
        return answer

    def _failed(self, error: BaseException) -> Reply:
        """Settle the message by what went wrong; return the answer for the client.

        A connection that was in use is in doubt, unless nothing was sent. Cancellation is raised
        again: the caller that cancelled sends 421.
        """
        connection = self._lease.connection if self._lease is not None else None
        in_doubt = connection is not None and connection.dialogue.is_content_out
        self._end_lease(in_doubt=not isinstance(error, ExtensionMissing))
        if isinstance(error, ProxyError):
            self._message.failure = error
            answer = replies.at_transaction(error)
        elif isinstance(error, Exception):
            # One message may fail by an error of ours; the others go on.
            _log.error("internal error in %s", self._message.id, exc_info=error)
            answer = replies.INTERNAL_ERROR
        else:
            self._relay.report_cut(self._message, in_doubt=in_doubt)
            raise error
        self._settled(answer)
        return answer

    def _end_lease(self, *, in_doubt: bool) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end(in_doubt=in_doubt)


class _WholeMessage(_Transaction):
    """A message received whole: one step settles it."""

    def send(self, content: Content) -> Coroutine[None, None, Reply]:
        """Return the final reply. Raises only cancellation."""
        envelope = self._message.envelope
        attempt: Coroutine[None, None, Reply] = self._attempt(  # type: ignore[assignment]
            lambda connection: connection.send_message(envelope, content),
            self._settle_by_reply,  # which settles every reply, so that there is always an answer
        )
        return attempt

    def _settled(self, answer: Reply) -> None:
        self._relay.report(self._message, answer)


class StreamingMessage(_Transaction):
    """A message that is sent upstream while it still arrives.

    A failure is kept until `finish` returns its reply; octets written after it are dropped. Every
    instance ends with `finish`, `abandon`, or `stop`, after which `Relay.refuse` records it.
    """

    def __init__(self, relay: Relay, message: Message) -> None:
        super().__init__(relay, message)
        self._framing: DataFraming | None = None  # made when the content begins
        self._is_open = False  # MAIL was accepted
        self._has_go_ahead = False
        self._answer: Reply | None = None

    async def add_recipient(self) -> Reply:
        """Send the provider RCPT for the last recipient; return the reply for the client.

        Once the connection is lost, later recipients and the message itself get the same reply.
        """
        if self._answer is not None:
            return self._answer
        answers: list[Reply] = []

        async def ask(connection: Connection) -> Reply:
            envelope = self._message.envelope
            if not self._is_open:
                sender = await connection.begin(envelope, [])
                if not sender.is_positive:
                    return sender
            try:
                reply = await connection.add_recipient(envelope)
                answers.append(replies.for_client(reply))
            except ExtensionMissing as error:  # this recipient alone needs it
                answers.append(error.reply)
                reply = replies.OK
            self._is_open = True
            return reply

        def judge(reply: Reply) -> Reply | None:
            return None if answers and not ends_session(reply) else self._settle_by_reply(reply)

        return await self._step(ask, judge) or answers[0]

    def write(self, octets: bytes, *, is_stuffed: bool) -> Coroutine[None, None, object] | None:
        """Send content as fast as the provider accepts it.

        Return None if more may follow at once, else what must be awaited before it does.
        """
        if self._framing is None:
            self._framing = DataFraming(is_stuffed=is_stuffed)
        message = self._message
        if message.size_bytes < MAX_HEADER_BYTES:  # its Message-ID is kept while it streams
            message.start += octets[: MAX_HEADER_BYTES - message.size_bytes]
        message.size_bytes += len(octets)
        if self._answer is not None or not octets:
            return None
        framed = self._framing.feed(octets)
        return self._send_framed(framed) if self._has_go_ahead else self._begin_with(framed)

    async def finish(self, octets: bytes, *, is_stuffed: bool) -> Reply:
        """Send the last content and return the final reply. Raises only `CancelledError`."""
        self._message.ended_at = time.monotonic()
        waiting = self.write(octets, is_stuffed=is_stuffed)
        if waiting is not None:
            await waiting
        await self._get_go_ahead()
        if self._answer is None and self._framing is not None:
            end = self._framing.finish()
            await self._step(lambda connection: connection.end_content(end), self._settle_by_reply)
        answer = self._answer or replies.INTERNAL_ERROR
        self._relay.report(self._message, answer)
        return answer

    def stop(self) -> None:
        """Send no more: the provider never gets the end of the message."""
        self._end_lease(in_doubt=self._has_go_ahead)

    def abandon(self) -> None:
        """Stop, since the client gave the message up."""
        if self._answer is not None:
            # It had failed already: the client has the reply, or left before it was due.
            self._message.ended_at = time.monotonic()
            self._relay.report(self._message, self._answer)
        self.stop()

    async def _begin_with(self, framed: bytes) -> None:
        """Send the envelope, DATA, and the first content."""
        await self._get_go_ahead()
        for start in range(0, len(framed), _PIECE_BYTES):
            if self._answer is not None:
                return
            waiting = self._send_framed(framed[start : start + _PIECE_BYTES])
            if waiting is not None:
                await waiting

    def _send_framed(self, framed: bytes) -> Coroutine[None, None, Reply | None] | None:
        """Send content after the go-ahead. Return what must be awaited before more, or None."""
        connection = self._lease.connection if self._lease is not None else None
        if connection is None or connection.add_content(framed):  # None: nothing more after `stop`
            return None
        return self._step(lambda connection: connection.room(), self._answer_if_refused)

    async def _get_go_ahead(self) -> None:
        """Send the envelope if needed, then DATA; do nothing if either has been settled."""
        if self._has_go_ahead or self._answer is not None:
            return

        async def ask(connection: Connection) -> Reply:
            if not self._is_open:
                envelope = self._message.envelope
                reply = await connection.begin(envelope, envelope.forward_paths)
                if not reply.is_positive:
                    return reply
            return await connection.ask_for_go_ahead()

        def judge(reply: Reply) -> Reply | None:
            self._has_go_ahead = reply.code == 354
            return None if self._has_go_ahead else self._settle_by_reply(reply)

        await self._step(ask, judge)

    async def _step(self, send: Send, judge: Judge) -> Reply | None:
        """Make a step of the message. Only the first one, before any content, may be retried."""
        if self._lease is None or self._lease.connection is None:
            return await self._attempt(send, judge)
        try:
            self._sent = send(self._lease.connection)
            return judge(await self._sent)
        except BaseException as error:
            return self._interrupted(error, judge)

    def _answer_if_refused(self, reply: Reply) -> Reply | None:
        """Settle the message if the provider refuses its content before the end."""
        return None if reply is CONTENT_TAKEN else self._settle_by_reply(reply)

    def _settled(self, answer: Reply) -> None:
        self._answer = answer


def _origin(message: Message) -> dict[str, object]:
    """Return the fields that name a message and whose it is."""
    client = message.client
    named = {} if client is None else {"client": client.address, "listener": client.listener}
    credential = message.login.credential
    return {
        "id": message.id,
        **named,
        "account": message.login.account.key,
        # "": the client brought a token of its own.
        "credential": credential.name if credential is not None else "",
        "message_id": message_id(message.start),
    }


def _has_result(step: Future[Reply]) -> bool:
    return step.done() and not step.cancelled() and step.exception() is None
