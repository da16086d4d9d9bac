"""An authenticated connection to the server under test, with SMTP's order of commands.

Messages are sent unchanged: RFC 6409 submission, RFC 4954 AUTH, content with CRLF.
I1: a connection that was interrupted, or had an unexpected reply, is closed and not used again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.client.connection import SmtpConnection, SubmissionFailed, refusal
from bench.client.data_content import DataContent
from bench.client.endpoint import Endpoint, Tls
from bench.client.login import ClientLogin, Mechanism
from bench.measurement.sample import SendFailure
from bench.plan.workloads import REPLY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.smtp.protocol import Reply

_QUIT_SECONDS = 2.0
_HELLO = b"EHLO localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBehaviour:
    """How a client behaves on its connection."""

    is_pipelined: bool = False  # MAIL, RCPT and DATA in one flight, where PIPELINING is offered
    slow_bytes_per_second: float | None = None  # None: content as fast as the server takes it
    reply_seconds: float = REPLY_SECONDS  # the longest wait for a reply or a connection


@dataclass(frozen=True, slots=True)
class OpeningTimes:
    """The durations of opening a connection."""

    connect_seconds: float  # TCP, greeting, EHLO, TLS
    auth_seconds: float | None  # None: there is no login


class _UnexpectedReply(Exception):
    """A refusing reply; `is_in_doubt` if the connection cannot be used afterwards."""

    def __init__(self, reply: Reply, *, is_in_doubt: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        # RFC 5321 §3.8: 421 announces the end. A reply that is not a refusal came out of order.
        self.is_in_doubt = is_in_doubt or reply.code == 421 or reply.code < 400


class Submission:
    """A connection that is opened, used for any number of messages, and closed."""

    def __init__(
        self, endpoint: Endpoint, login: ClientLogin, behaviour: ClientBehaviour | None = None
    ) -> None:
        self.login = login
        self.messages = 0  # started on the open connection
        self.has_connected = False  # the last attempt got as far as the login
        self._endpoint = endpoint
        self._behaviour = behaviour or ClientBehaviour()
        self._wire: SmtpConnection | None = None
        self._step = ""  # the current step, named in a failure
        self._extensions: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        """Whether the connection can take a message; False after the server has closed it."""
        return self._wire is not None and self._wire.is_quiet

    async def open(self) -> OpeningTimes:
        """Connect and log in. Cancelling closes the connection.

        Raises:
            SubmissionFailed: it failed; no connection is left open.
        """
        self.abort()
        self.messages = 0
        self.has_connected = False
        endpoint = self._endpoint
        self._step = "CONNECT"
        try:
            started = time.perf_counter()
            implicit = endpoint.tls_context if endpoint.tls is Tls.IMPLICIT else None
            self._wire = wire = await SmtpConnection.connect(
                endpoint.host, endpoint.port, implicit, self._behaviour.reply_seconds
            )
            await self._greet(wire)
            connected = time.perf_counter()
            self.has_connected = True
            if self.login.mechanism is Mechanism.NONE:
                return OpeningTimes(connected - started, None)
            self._step = "AUTH"
            await _authenticate(wire, self.login)
            return OpeningTimes(connected - started, time.perf_counter() - connected)
        except (_UnexpectedReply, SubmissionFailed) as error:
            self.abort()
            raise self._failed(error) from error
        except BaseException:
            self.abort()
            raise

    async def send(
        self, reverse_path: str, forward_paths: Sequence[str], content: bytes | DataContent
    ) -> float:
        """Send one message and return the seconds from MAIL to the final positive reply.

        It fails if one recipient is refused; then no recipient gets the message. Cancelling closes
        the connection; whether the message was accepted is then unknown.

        Raises:
            SubmissionFailed: it was refused, or the connection was lost; after a refusal the
            connection stays open if the server allows it.
        """
        wire = self._wire
        if wire is None:
            raise SubmissionFailed(SendFailure("connection lost", ""))
        self.messages += 1
        try:
            ready = content if isinstance(content, DataContent) else DataContent.of(content)
            return await self._transact(wire, reverse_path, forward_paths, ready)
        except _UnexpectedReply as error:
            failed = self._failed(error)
            await self._recover(wire, error)
            raise failed from error
        except SubmissionFailed as error:
            self.abort()
            raise self._failed(error) from error
        except BaseException:
            self.abort()
            raise

    async def close(self) -> None:
        """Send QUIT and close; never fails, and waits at most two seconds."""
        wire = self._wire
        if wire is None or not wire.is_quiet:
            self.abort()
            return
        try:
            async with asyncio.timeout(_QUIT_SECONDS):
                await _command(wire, b"QUIT")
        except (SubmissionFailed, TimeoutError):
            pass  # the outcome of every message is known by now
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection without QUIT."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    def _failed(self, error: _UnexpectedReply | SubmissionFailed) -> SubmissionFailed:
        failure = error.failure if isinstance(error, SubmissionFailed) else _failure_of(error.reply)
        return SubmissionFailed(replace(failure, step=self._step))

    async def _greet(self, wire: SmtpConnection) -> None:
        _expect_positive(await wire.reply())
        self._step = "EHLO"
        hello = _expect_positive(await _command(wire, _HELLO))
        if self._endpoint.tls is Tls.STARTTLS and self._endpoint.tls_context is not None:
            self._step = "STARTTLS"
            if "STARTTLS" not in _keywords(hello):
                raise SubmissionFailed(SendFailure("protocol error", "STARTTLS is not offered"))
            _expect_positive(await _command(wire, b"STARTTLS"))
            await wire.start_tls(self._endpoint.tls_context, self._endpoint.host)
            self._step = "EHLO"
            hello = _expect_positive(await _command(wire, _HELLO))
        self._extensions = _keywords(hello)

    async def _transact(
        self,
        wire: SmtpConnection,
        reverse_path: str,
        forward_paths: Sequence[str],
        content: DataContent,
    ) -> float:
        started = time.perf_counter()
        lines = [
            b"MAIL FROM:<%s>" % reverse_path.encode("ascii") + self._parameters(content),
            *(b"RCPT TO:<%s>" % path.encode("ascii") for path in forward_paths),
        ]
        if self._behaviour.is_pipelined and "PIPELINING" in self._extensions:
            await self._announce_at_once(wire, lines)
        else:
            for line in lines:
                self._step = line[:4].decode()
                _expect_positive(await _command(wire, line))
            self._step = "DATA"
            _expect_start(await _command(wire, b"DATA"))
        self._step = "content"
        rate = self._behaviour.slow_bytes_per_second
        if rate is None:
            wire.write(content.octets)
        elif not await wire.write_slowly(content.octets, rate):
            raise _UnexpectedReply(await wire.reply(), is_in_doubt=True)
        _expect_positive(await wire.reply())
        return time.perf_counter() - started

    async def _announce_at_once(self, wire: SmtpConnection, lines: Sequence[bytes]) -> None:
        wire.write(b"\r\n".join((*lines, b"DATA", b"")))
        replies = []
        for line in (*lines, b"DATA"):
            self._step = line[:4].decode()
            replies.append(await wire.reply())
        *replies, data = replies
        for line, reply in zip(lines, replies, strict=True):
            if not reply.is_positive:
                self._step = line[:4].decode()
                # After 354 the server awaits a message; the other recipients must not get one.
                raise _UnexpectedReply(reply, is_in_doubt=data.code < 400)
        _expect_start(data)

    def _parameters(self, content: DataContent) -> bytes:
        parameters = b""
        if "SIZE" in self._extensions:
            parameters += b" SIZE=%d" % content.size_bytes
        if "8BITMIME" in self._extensions and not content.is_ascii:
            parameters += b" BODY=8BITMIME"
        return parameters

    async def _recover(self, wire: SmtpConnection, refused: _UnexpectedReply) -> None:
        if refused.is_in_doubt or not wire.is_quiet:
            self.abort()
            return
        try:
            if not (await _command(wire, b"RSET")).is_positive:
                self.abort()
        except SubmissionFailed:
            self.abort()
        except BaseException:
            self.abort()
            raise


async def _authenticate(wire: SmtpConnection, login: ClientLogin) -> None:
    command, *answers = login.lines()
    reply = await _command(wire, command)
    for answer in answers:
        if reply.code != 334:
            break
        reply = await _command(wire, answer)
    if reply.code == 334:
        reply = await _command(wire, login.answer_to_error)
    if reply.code != 235:
        raise _UnexpectedReply(reply)


def _failure_of(reply: Reply) -> SendFailure:
    if reply.code >= 400:
        return refusal(reply)
    return SendFailure("protocol error", f"the server answered {refusal(reply)}")


async def _command(wire: SmtpConnection, line: bytes) -> Reply:
    wire.write(line + b"\r\n")
    return await wire.reply()


def _expect_positive(reply: Reply) -> Reply:
    if not reply.is_positive:
        raise _UnexpectedReply(reply)
    return reply


def _expect_start(reply: Reply) -> None:
    if reply.code != 354:
        raise _UnexpectedReply(reply)


def _keywords(hello: Reply) -> frozenset[str]:
    # The first line is the server's name (RFC 5321 §4.1.1.1).
    return frozenset(line.split()[0].upper() for line in hello.text[1:] if line.split())


async def is_listening(endpoint: Endpoint, timeout_seconds: float) -> bool:
    """Return whether a server accepts TCP connections at `endpoint`."""
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
