"""Sends commands over one connection to a provider and matches its replies in order.

I1: every reply answers the oldest unanswered command. An unexpected reply, or octets that are not a
reply, make the connection unusable at once (RFC 2920 §3.1): attributing replies to the wrong
commands would be worse than losing the connection.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING

from xoauth2_proxy.smtp.protocol import MalformedReply, Reply, ReplyParser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_WRITE_BUFFER_BYTES = 65_536  # the event loops' default for TLS is 512 KiB a connection


class ConnectionLost(Exception):
    """The connection closed, failed, timed out or got out of step; the text says which."""


class Connection(asyncio.Protocol):
    """A connection to a provider, authenticated by the time `upstream.connector` returns it."""

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str]) -> None:
        self.extensions = extensions  # EHLO keywords in upper case, with their parameters
        self.opened_at = self.last_used_at = time.monotonic()
        self.expires_at = math.inf  # when it may carry no more transactions; set by the pool
        self.yields_at = 0.0  # when it may make room for another worker's; set by the pool
        self.transactions = 0  # the number begun on this connection
        self.needs_reset = False  # a refused transaction is open: RSET before the next MAIL
        self.on_gone: Callable[[Connection], None] | None = None
        self._transport = transport
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._outstanding = 0
        self._awaits_content = False  # content is being sent
        self.early_refusal: Reply | None = None  # a 4yz or 5yz that came during the content
        self._gone = ""
        self._reply_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._loop = asyncio.get_running_loop()
        self._deadline = math.inf  # of the current wait
        self._timer: asyncio.TimerHandle | None = None
        # While the provider is slow, content waits here rather than in the transport's buffer.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.set_protocol(self)

    def __repr__(self) -> str:
        state = self._gone or f"{self._outstanding} replies outstanding"
        return f"<Connection {state}, {self.transactions} transactions>"

    @property
    def is_usable(self) -> bool:
        """Whether a new command can be sent: the connection is open and no reply is outstanding."""
        return not self._gone and not self._outstanding and not self._replies

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last transaction ended, or since the connection was opened."""
        return time.monotonic() - self.last_used_at

    def send(self, octets: bytes, replies: int) -> None:
        """Write `octets`, to which this many replies are expected; 0 for all but the last content.

        Raises `ConnectionLost` if the connection is closed.
        """
        if self._gone:
            raise ConnectionLost(self._gone)
        self._outstanding += replies
        self._awaits_content = not replies
        self._transport.write(octets)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until the transport accepts more octets or an early refusal arrives.

        Raises `ConnectionLost`.
        """
        if self._is_paused and not self._gone and self.early_refusal is None:
            self._drain_waiter = self._loop.create_future()
            await self._wait(self._drain_waiter, timeout_seconds)
        if self._gone and self.early_refusal is None:
            raise ConnectionLost(self._gone)

    async def reply(self, timeout_seconds: float) -> Reply:
        """Return the next reply. Raises `ConnectionLost`; a timeout aborts the connection."""
        while not self._replies:
            if self._gone:
                raise ConnectionLost(self._gone)
            self._reply_waiter = self._loop.create_future()
            await self._wait(self._reply_waiter, timeout_seconds)
        return self._replies.popleft()

    def abort(self, reason: str = "aborted") -> None:
        """Close at once, without QUIT."""
        self._fail(reason)
        self._transport.abort()

    def close(self) -> None:
        """Send QUIT and close without waiting for the reply, as RFC 5321 §4.1.1.10 allows."""
        if self.is_usable:
            self._transport.write(b"QUIT\r\n")
        self._fail("closed")
        self._transport.close()

    async def _wait(self, waiter: asyncio.Future[None], timeout_seconds: float) -> None:
        """Wait for the next event; abort the connection if none comes in time."""
        self._deadline = self._loop.time() + timeout_seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()
        try:
            await waiter
        finally:
            self._deadline = math.inf

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        """Abort if a wait has lasted too long. One timer, moved forward, serves many waits."""
        self._timer = None
        if self._loop.time() >= self._deadline:
            self.abort("timed out")
        elif self._deadline != math.inf:
            self._set_timer()

    def data_received(self, data: bytes) -> None:
        """Parse octets from the transport and match replies to commands (I1)."""
        try:
            replies = self._parser.feed(data)
        except MalformedReply as error:
            self.abort(str(error))
            return
        if self._awaits_content and replies and replies[0].code >= 400 and not self._outstanding:
            # The provider refuses the message before its end.
            self.early_refusal = self.early_refusal or replies[0]
            _wake(self._drain_waiter)
            return
        if len(replies) > self._outstanding:
            # Which of them is one too many cannot be known. They are used only if that
            # makes no difference: if all have the same class.
            if len({reply.code // 100 for reply in replies}) == 1:
                self._replies.extend(replies[: self._outstanding])
            # Only the code: a provider without AUTH may echo a token in its text.
            self.abort(f"unasked reply: {replies[-1].code}")
            return
        self._outstanding -= len(replies)
        self._replies.extend(replies)
        if replies:
            _wake(self._reply_waiter)
        if self._parser.is_mid_reply and not self._outstanding and not self._awaits_content:
            self.abort("unasked octets")

    def eof_received(self) -> None:
        """Handle the provider's closing of the connection."""
        self._fail("closed by the provider")

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the loss of the transport."""
        self._fail(f"lost: {exc}" if exc else "closed by the provider")

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Continue writing: the transport accepts octets again."""
        self._is_paused = False
        _wake(self._drain_waiter)

    def _fail(self, reason: str) -> None:
        if self._gone:
            return
        self._gone = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _wake(self._reply_waiter)
        _wake(self._drain_waiter)
        if self.on_gone is not None:
            self.on_gone(self)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
