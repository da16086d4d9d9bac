"""One open connection to a provider: octets out, replies in, strictly in order.

I1: every reply answers the oldest command not yet answered. A reply to nothing, or octets that are
no reply, make the connection unusable at once (RFC 2920 §3.1; a desynchronised pair is worse than
a lost one).
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


_WRITE_BUFFER_BYTES = 65_536  # the loops' default for TLS is 512 KiB a connection


class ConnectionLost(Exception):
    """The connection closed, failed, timed out or lost its order; the text says which."""


class Connection(asyncio.Protocol):
    """A connection to a provider; authenticated once `upstream.opener` returns it."""

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str]) -> None:
        self.extensions = extensions  # EHLO keywords, upper case, with their parameters
        self.opened_at = self.last_used_at = time.monotonic()
        self.expires_at = math.inf  # when it may carry no further transaction; the pool sets it
        self.yields_at = 0.0  # when it may make room for another worker's; the pool sets it too
        self.transactions = 0  # begun on this connection
        self.needs_reset = False  # a refused transaction is still open: RSET before the next MAIL
        self.on_gone: Callable[[Connection], None] | None = None
        self._transport = transport
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._outstanding = 0
        self._awaits_content = False  # in the midst of content
        self.early_refusal: Reply | None = None  # a 4yz or 5yz that came in the midst of content
        self._gone = ""
        self._reply_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._loop = asyncio.get_running_loop()
        self._deadline = math.inf  # of the wait under way
        self._timer: asyncio.TimerHandle | None = None
        # Content waits with us, not in the transport, while the provider is slower than it comes.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.set_protocol(self)

    def __repr__(self) -> str:
        state = self._gone or f"{self._outstanding} replies outstanding"
        return f"<Connection {state}, {self.transactions} transactions>"

    @property
    def is_usable(self) -> bool:
        """Whether a new command can be sent: alive, and nothing outstanding."""
        return not self._gone and not self._outstanding and not self._replies

    @property
    def idle_seconds(self) -> float:
        """How long ago the last transaction ended, or the connection was opened."""
        return time.monotonic() - self.last_used_at

    def send(self, octets: bytes, replies: int) -> None:
        """Write `octets`, which draw this many replies; 0 means content that is not the last.

        Raises `ConnectionLost` if nothing can be written any more.
        """
        if self._gone:
            raise ConnectionLost(self._gone)
        self._outstanding += replies
        self._awaits_content = not replies
        self._transport.write(octets)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until the transport takes more octets, or an early refusal has come.

        Raises `ConnectionLost`.
        """
        if self._is_paused and not self._gone and self.early_refusal is None:
            self._drain_waiter = self._loop.create_future()
            await self._wait(self._drain_waiter, timeout_seconds)
        if self._gone and self.early_refusal is None:
            raise ConnectionLost(self._gone)

    async def reply(self, timeout_seconds: float) -> Reply:
        """Return the next reply. Raises `ConnectionLost`, and aborts when time runs out."""
        while not self._replies:
            if self._gone:
                raise ConnectionLost(self._gone)
            self._reply_waiter = self._loop.create_future()
            await self._wait(self._reply_waiter, timeout_seconds)
        return self._replies.popleft()

    def abort(self, reason: str = "aborted") -> None:
        """Close at once, without a word."""
        self._fail(reason)
        self._transport.abort()

    def close(self) -> None:
        """Say QUIT and close, without waiting for the answer (RFC 5321 §4.1.1.10 allows it)."""
        if self.is_usable:
            self._transport.write(b"QUIT\r\n")
        self._fail("closed")
        self._transport.close()

    async def _wait(self, waiter: asyncio.Future[None], timeout_seconds: float) -> None:
        """Wait until something happens; when nothing does in time, the connection is aborted."""
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
        self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        """Abort if a wait has lasted too long. One timer serves many waits: it moves on."""
        self._timer = None
        if self._loop.time() >= self._deadline:
            self.abort("timed out")
        elif self._deadline != math.inf:
            self._set_timer()

    def data_received(self, data: bytes) -> None:
        """Take octets from the transport and match replies to commands (I1)."""
        try:
            replies = self._parser.feed(data)
        except MalformedReply as error:
            self.abort(str(error))
            return
        if self._awaits_content and replies and replies[0].code >= 400 and not self._outstanding:
            # The provider has seen enough of the message and will not take it.
            self.early_refusal = self.early_refusal or replies[0]
            _wake(self._drain_waiter)
            return
        if len(replies) > self._outstanding:
            # Which of them is one too many cannot be known. They are believed only where that
            # makes no difference: where all of them say yes, or all of them no.
            if len({reply.code // 100 for reply in replies}) == 1:
                self._replies.extend(replies[: self._outstanding])
            # Only its code: a provider that knows no AUTH may echo a token in its text.
            self.abort(f"unasked reply: {replies[-1].code}")
            return
        self._outstanding -= len(replies)
        self._replies.extend(replies)
        if replies:
            _wake(self._reply_waiter)
        if self._parser.is_mid_reply and not self._outstanding and not self._awaits_content:
            self.abort("unasked octets")

    def eof_received(self) -> None:
        """The provider hung up."""
        self._fail("closed by the provider")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._fail(f"lost: {exc}" if exc else "closed by the provider")

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The transport takes octets again."""
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
