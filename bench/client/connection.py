"""One TCP or TLS connection to an SMTP server: sends octets, reads replies; any command order.

Every wait is limited, and so is the memory that a server can make us use.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections import deque
from typing import cast

from bench.measurement.sample import SendFailure
from bench.plan.workloads import REPLY_SECONDS
from xoauth2_proxy.network import is_without_tls
from xoauth2_proxy.smtp.protocol import MalformedReply, Reply, ReplyParser

TLS_FAILED = "tls failed"  # the error code for it in the results
NO_ANSWER = "no answer"  # the beginning of the text where a reply was awaited in vain
NO_TLS = "the server answers in clear, not in TLS"  # the text of it
_CONNECT_SECONDS = 60.0  # less if `reply_seconds` is less
_MAX_REPLIES_HELD = 4000  # more than one flight causes: MAIL, a thousand RCPT, DATA
_SLICES_PER_SECOND = 10  # of content that is sent slowly
_MAX_TEXT_CHARACTERS = 200


class SubmissionFailed(Exception):
    """The connection could not be opened, or the message was not accepted; `failure` says why."""

    def __init__(self, failure: SendFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class SmtpConnection(asyncio.Protocol):
    """A connection; only one coroutine at a time may use it."""

    def __init__(self, reply_seconds: float = REPLY_SECONDS) -> None:
        self._reply_seconds = reply_seconds
        self._transport: asyncio.Transport | None = None  # None: not connected yet, or closed
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._broken: SendFailure | None = None  # why no more replies will come

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        reply_seconds: float = REPLY_SECONDS,
    ) -> SmtpConnection:
        """Return an open connection, with TLS if there is a context.

        Raises:
            SubmissionFailed: it could not be opened within `reply_seconds`.
        """
        loop, wire = asyncio.get_running_loop(), cls(reply_seconds)
        name = None if context is None else host
        try:
            async with asyncio.timeout(wire._connect_seconds):
                await loop.create_connection(
                    lambda: wire, host, port, ssl=context, server_hostname=name
                )
        except OSError as error:  # includes ssl.SSLError and TimeoutError
            wire.abort()
            raise SubmissionFailed(_failure_to_connect(error, wire._connect_seconds)) from error
        return wire

    @property
    def is_quiet(self) -> bool:
        """Whether the connection is open and the server has sent nothing unrequested."""
        transport = self._transport
        is_open = transport is not None and not transport.is_closing() and self._broken is None
        return is_open and not self._replies and not self._parser.is_mid_reply

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Switch to TLS.

        Raises:
            SubmissionFailed: the handshake failed, or more data had come in clear (RFC 3207 §4.2).
        """
        if self._transport is None or not self.is_quiet:
            raise SubmissionFailed(
                SendFailure("protocol error", "octets behind the reply to STARTTLS")
            )
        try:
            async with asyncio.timeout(self._connect_seconds):
                transport = await asyncio.get_running_loop().start_tls(
                    self._transport, self, context, server_hostname=host
                )
        except OSError as error:
            raise SubmissionFailed(_failure_to_connect(error, self._connect_seconds)) from error
        self._transport = cast("asyncio.Transport", transport)

    def write(self, octets: bytes) -> None:
        """Send the octets; the reply shows whether they arrived."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    async def write_slowly(self, octets: bytes, bytes_per_second: float) -> bool:
        """Send at a limited rate; return False if the server replied before the end.

        Each octet has its own time at that rate, so late timers do not add up, and there is no wait
        after the last octet.
        """
        size = max(1, int(bytes_per_second / _SLICES_PER_SECOND))
        started = time.perf_counter()
        for start in range(0, len(octets), size):
            end = min(start + size, len(octets))
            await asyncio.sleep(started + end / bytes_per_second - time.perf_counter())
            if not self.is_quiet:
                return False
            self.write(octets[start:end])
        return True

    async def reply(self) -> Reply:
        """Return the next reply.

        Raises:
            SubmissionFailed: none came in time, or the data was not a reply.
        """
        if not self._replies and self._broken is None:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(self._reply_seconds, self._give_up)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._replies:
            return self._replies.popleft()
        raise SubmissionFailed(self._broken or SendFailure("connection lost", ""))

    def abort(self) -> None:
        """Close without QUIT."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Take replies."""
        try:
            self._replies += self._parser.feed(data)
        except MalformedReply as error:
            self._distrust(str(error))
        if len(self._replies) > _MAX_REPLIES_HELD:
            self._distrust("replies without an end")
        if self._replies:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the operation in progress."""
        self._transport = None
        self._break(SendFailure("connection lost", ""))

    @property
    def _connect_seconds(self) -> float:
        return min(_CONNECT_SECONDS, self._reply_seconds)

    def _distrust(self, reason: str) -> None:
        self._replies.clear()
        self._break(SendFailure("protocol error", reason))

    def _give_up(self) -> None:
        self._break(SendFailure("timeout", f"{NO_ANSWER} within {self._reply_seconds:g} s"))

    def _break(self, failure: SendFailure) -> None:
        self._broken = self._broken or failure
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def refusal(reply: Reply) -> SendFailure:
    """Return the failure for a refusing reply: its code and its text."""
    return SendFailure(str(reply.code), printable(" ".join((reply.enhanced, *reply.text))))


def printable(text: str) -> str:
    """Return a server's text as one short line for a terminal, without control characters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:_MAX_TEXT_CHARACTERS]


def _failure_to_connect(error: OSError, waited_seconds: float) -> SendFailure:
    if isinstance(error, TimeoutError):
        return SendFailure("timeout", f"no connection within {waited_seconds:g} s")
    if isinstance(error, ssl.SSLError):
        return SendFailure(TLS_FAILED, NO_TLS if is_without_tls(error) else printable(str(error)))
    # For a name with several addresses, asyncio raises one OSError with all their texts.
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return SendFailure("connection refused", "")
    return SendFailure("connection failed", printable(str(error)))
