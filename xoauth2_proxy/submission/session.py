"""Serves one client's SMTP session with its own command loop on aiosmtpd's `SMTP`.

The only importer of aiosmtpd. I1: the final reply is sent only once the relay has returned it.
I2: a message received whole is relayed to the end, even if the client disconnects.
I3: replies to a pipelined group are sent in one write, in order (RFC 2920 §3.2).
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from aiosmtpd.proxy_protocol import get_proxy
from aiosmtpd.smtp import SMTP

from xoauth2_proxy import log, replies
from xoauth2_proxy.errors import ProxyError, UpstreamAuthRejected
from xoauth2_proxy.smtp import sasl
from xoauth2_proxy.smtp.content import DataReader, Refusal
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.submission.auth import AuthDialogue, AuthEnded, challenge_line
from xoauth2_proxy.submission.reader import EndOfInput, Interrupted, LineTooLong, Reader
from xoauth2_proxy.submission.transaction import BadChunk, ClientTransaction, parse_chunk

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Login
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.relay import Relay, StreamingMessage
    from xoauth2_proxy.smtp.content import Collector
    from xoauth2_proxy.submission.authenticator import Authenticator

_log = log.logger("session")

# RFC 5321 §4.5.3.1.4 (512) and what SIZE, BODY, SMTPUTF8 and AUTH= add to MAIL, generously.
_MAX_COMMAND_BYTES = 2048
_MAX_AUTH_LINE_BYTES = sasl.MAX_LINE_BYTES + len("AUTH OAUTHBEARER \r\n")
_COMMANDS_PER_TURN = 100  # of one client before other sessions get a turn
_LINGER_SECONDS = 10.0  # for the client to read the last replies
_MAX_BAD_COMMANDS = 10  # beyond it the peer is not an SMTP client
_MAX_AUTH_FAILURES = 5  # a connection, so that guessing passwords takes many connections
_READ_BYTES = 65_536  # handled at once, before other sessions get a turn
_UNREAD_REPLY_BYTES = 32_768  # replies the client has not read; beyond it the session waits
_TLS_HANDSHAKE_SECONDS = 30.0
_PROXY_HEADER_SECONDS = 5.0  # load balancers send it at once, in one packet
_MAX_CHUNK_FACTOR = 4  # a BDAT chunk this many times the limit ends the session

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """The settings that all sessions of a listener share."""

    hostname: str
    max_message_bytes: int
    max_recipients: int
    buffer_bytes: int  # content beyond this is sent upstream while it arrives
    idle_seconds: float  # for every read from the client
    tls_context: ssl.SSLContext | None  # None: STARTTLS is not offered
    may_auth_in_clear: bool
    # Load balancers whose PROXY header is trusted; no other peer's is.
    proxies: frozenset[str] = frozenset()

    def speaks_proxy(self, peer: str) -> bool:
        """Whether `peer` is a load balancer that names its client in a PROXY header."""
        return peer in self.proxies


class SessionRegistry(Protocol):
    """Counts the sessions (`listener.Listener`)."""

    def admit(self, session: ClientSession) -> bool:
        """Count a new session; False if it may not begin."""
        ...

    def leave(self, session: ClientSession) -> None:
        """Remove a session from the count, if it has ended."""
        ...


class _CloseSession(Exception):
    """Ends the session after sending `final_reply`, if there is one."""

    def __init__(self, final_reply: Reply | None = None) -> None:
        super().__init__()
        self.final_reply = final_reply


class ClientSession(SMTP):
    """One client connection, from the greeting to QUIT."""

    def __init__(
        self,
        policy: SessionPolicy,
        authenticator: Authenticator,
        relay: Relay,
        metrics: Metrics,
        registry: SessionRegistry,
    ) -> None:
        # aiosmtpd's constructor is not called: for each connection it finds all methods by
        # reflection and clears a dict that all connections share (see docs/benchmarks.md).
        self.loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=self.loop)
        asyncio.StreamReaderProtocol.__init__(
            self, reader, self._cb_client_connected, loop=self.loop
        )
        self.id = secrets.token_hex(4)
        self._policy = policy
        self._sign_in = authenticator.authenticate
        self._account_named = authenticator.known_account
        self._current_login = authenticator.current_login
        self._relay = relay
        self._metrics = metrics
        self._admit, self._leave = registry.admit, registry.leave
        self._login: Login | None = None
        self._verb = ""  # of the current command
        self._greeted = False  # EHLO or HELO was received
        self._is_secure = False
        self._is_gone = False  # the connection is closed
        self._linger: asyncio.TimerHandle | None = None
        self._is_draining = False
        self._awaits_line = False
        self._streaming: StreamingMessage | None = None  # a message sent upstream while it arrives
        self._transaction = self._new_transaction()
        self._pending: list[bytes] = []  # replies not yet written
        self._bad_commands = 0
        self._commands = 0
        self._auth_failures = 0
        self._transactions = 0

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the session, if the listener admits it."""
        self._input = Reader(cast("asyncio.Transport", transport), self._policy.idle_seconds)
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = transport
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        """Buffer octets until the session reads them."""
        self._input.feed(data)

    def eof_received(self) -> bool:
        """Let the session process what it has received; replies may still be written."""
        self._input.feed_eof()
        return not self._is_secure  # TLS has no half-closed connections

    def connection_lost(self, error: Exception | None) -> None:
        """Stop reading. A message being relayed is not cancelled (I2)."""
        # aiosmtpd's own method would cancel the session's task.
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._is_gone = True
        if self._linger is not None:
            self._linger.cancel()
        self._input.feed_eof()
        self._leave(self)

    def drain_session(self) -> None:
        """Send 421 and close as soon as no transaction is open."""
        self._is_draining = True
        if self._awaits_line and not self._transaction.has_begun:
            self._input.interrupt()

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed; a message may still be being relayed."""
        return self._is_gone

    @property
    def task(self) -> asyncio.Task[None]:
        """The task that runs this session."""
        return cast("asyncio.Task[None]", self._handler_coroutine)

    # The command loop.

    async def _handle_client(self) -> None:
        final_reply = None
        try:
            if not self._admit(self):
                raise _CloseSession(replies.TOO_MANY_CONNECTIONS)
            if self._policy.speaks_proxy(self._peer):
                await self._read_proxy_header()
            await self._converse()
        except _CloseSession as closing:
            final_reply = closing.final_reply
        except (EndOfInput, ConnectionError, ssl.SSLError):
            pass
        except TimeoutError:
            final_reply = replies.IDLE_TOO_LONG
        except (Interrupted, asyncio.CancelledError):
            # Cancelled at the deadline for draining. No message was acknowledged.
            final_reply = replies.SHUTTING_DOWN
        except Exception:
            _log.exception("session %s ended by an internal error", self.id)
            final_reply = replies.INTERNAL_ERROR
        finally:
            self._abandon()
            self._close_with(final_reply)

    def abort(self) -> None:
        """Close the connection at once."""
        cast("asyncio.Transport", self._writer.transport).abort()

    def _close_with(self, final_reply: Reply | None) -> None:
        if final_reply is not None:
            self._answer(final_reply)
        self._input.close()
        self._write_pending()
        self._writer.close()
        if not self._is_gone:
            # A client that does not read would keep the socket open forever.
            self._linger = self.loop.call_later(_LINGER_SECONDS, self.abort)

    async def _read_proxy_header(self) -> None:
        """Read the client's address from a load balancer's PROXY header (versions 1 and 2)."""
        try:
            async with asyncio.timeout(_PROXY_HEADER_SECONDS):
                header = await get_proxy(self._input)
        except asyncio.IncompleteReadError:
            raise _CloseSession from None  # a balancer checks the port by connecting alone
        except TimeoutError:
            header = None
        if header is None or not header.valid:
            _log.event(logging.WARNING, "no PROXY header", session=self.id, peer=self._peer)
            raise _CloseSession
        if header.src_addr:  # LOCAL and UNKNOWN carry none: the balancer's own health check
            self._peer = str(header.src_addr)

    async def _converse(self) -> None:
        self._pending.append(f"220 {self._policy.hostname} ESMTP xoauth2-proxy\r\n".encode())
        while True:
            try:
                line = await self._next_command()
            except LineTooLong as error:
                is_auth = error.start[:5].upper() == b"AUTH "
                self._bad_line(
                    error.start,
                    replies.AUTH_LINE_TOO_LONG if is_auth else replies.COMMAND_TOO_LONG,
                )
                continue
            try:
                await self._execute(line)
            except ProxyError as error:
                # Each command handles the errors it expects; this handles all others.
                _log.event(logging.ERROR, "unexpected error", session=self.id, error=error)
                self._answer(replies.INTERNAL_ERROR)

    async def _next_command(self) -> bytes:
        self._commands += 1
        if self._commands % _COMMANDS_PER_TURN == 0:
            await self._flush()
            await asyncio.sleep(0)  # a flood of commands must not block other sessions
        if self._is_draining and not self._transaction.has_begun:
            raise _CloseSession(replies.SHUTTING_DOWN)
        return await self._line()

    async def _execute(self, line: bytes) -> None:
        text = _command_text(line)
        word, _, argument = (text or "").partition(" ")
        verb = word.upper()
        self._verb = verb if verb in _COMMANDS else "?"  # for the log, without its arguments
        if text is None:
            self._bad_line(line, replies.COMMAND_MALFORMED)
        elif len(line) > _MAX_COMMAND_BYTES and verb != "AUTH":
            self._bad_line(line, replies.COMMAND_TOO_LONG)
        elif not word.isascii() or (method := _COMMANDS.get(verb)) is None:
            self._bad_command(replies.COMMAND_UNKNOWN)
        else:
            await method(self, argument.strip())

    def _bad_line(self, line: bytes, reply: Reply) -> None:
        if line[:4].upper() == b"BDAT":
            # A chunk of unknown length follows, which must not be read as commands.
            raise _CloseSession(reply)
        self._bad_command(reply)

    def _bad_command(self, reply: Reply) -> None:
        self._bad_commands += 1
        if self._bad_commands >= _MAX_BAD_COMMANDS:
            raise _CloseSession(replies.TOO_MANY_BAD_COMMANDS)
        self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        if _log.is_enabled(logging.DEBUG):
            _log.event(logging.DEBUG, "reply", session=self.id, command=self._verb, code=reply.code)
        self._pending.append(reply.encode())

    async def _flush(self) -> None:
        if not self._pending:
            return
        self._write_pending()
        if self._writer.transport.get_write_buffer_size() > _UNREAD_REPLY_BYTES:
            async with asyncio.timeout(self._policy.idle_seconds):
                await self._writer.drain()

    def _write_pending(self) -> None:
        if not self._writer.is_closing():  # uvloop warns of writes to a closed transport
            self._writer.write(b"".join(self._pending))
        self._pending.clear()

    async def _line(self) -> bytes:
        if not self._input.has_line:
            await self._flush()
        self._awaits_line = True
        try:
            return await self._input.line(_MAX_AUTH_LINE_BYTES)
        finally:
            self._awaits_line = False

    async def _octets(self, max_bytes: int) -> bytes:
        if not self._input.has_octets:
            await self._flush()
        return await self._input.octets(max_bytes)

    # EHLO, STARTTLS and the commands without effect on a transaction.

    async def smtp_HELO(self, hostname: str) -> None:
        """HELO (RFC 5321 §4.1.1.1)."""
        if not hostname:
            self._answer(replies.ARGUMENT_MALFORMED)
            return
        self._greet()
        self._pending.append(f"250 {self._policy.hostname}\r\n".encode())

    async def smtp_EHLO(self, hostname: str) -> None:
        """EHLO (RFC 5321 §4.1.1.1): offers only what the relay supports with every provider."""
        if not hostname:
            self._answer(replies.ARGUMENT_MALFORMED)
            return
        self._greet()
        lines = [self._policy.hostname, "PIPELINING", f"SIZE {self._policy.max_message_bytes}"]
        lines += ["8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
        if self._policy.tls_context is not None and not self._is_secure:
            lines.append("STARTTLS")
        if self._may_authenticate:
            lines.append("AUTH " + " ".join(sasl.MECHANISMS))
        self._answer(Reply(250, "", tuple(lines)))

    def _greet(self) -> None:
        self._greeted = True
        self._transaction = self._new_transaction()

    @property
    def _may_authenticate(self) -> bool:
        return self._is_secure or self._policy.may_auth_in_clear

    async def smtp_STARTTLS(self, argument: str) -> None:
        """STARTTLS (RFC 3207). Octets after the command were injected, and end the session."""
        context = self._policy.tls_context
        if argument:
            self._answer(replies.ARGUMENT_MALFORMED)
        elif context is None or self._is_secure:
            self._answer(replies.TLS_NOT_AVAILABLE)
        elif self._input.has_octets:
            raise _CloseSession(replies.OCTETS_AFTER_STARTTLS)
        else:
            # No cleartext may be accepted between the reply and the handshake.
            plain = cast("asyncio.Transport", self.transport)
            plain.pause_reading()
            self._answer(replies.START_TLS)
            await self._flush()
            await self._upgrade(plain, context)

    async def _upgrade(self, plain: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secure = await self.loop.start_tls(
                plain,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=_TLS_HANDSHAKE_SECONDS,
            )
        except (OSError, ssl.SSLError) as error:
            _log.event(logging.INFO, "TLS handshake failed", session=self.id, error=error)
            raise _CloseSession from None
        if secure is None:
            raise _CloseSession
        # Octets buffered by now came through TLS: a client may send its EHLO with the last flight
        # of the handshake.
        self.transport = secure
        self._input.move_to(secure)
        # The old writer is kept: since Python 3.13 its finalizer closes the transport below TLS.
        self._plain_writer = self._writer
        self._writer = asyncio.StreamWriter(secure, self, None, self.loop)
        # Everything received in cleartext is discarded (RFC 3207 §4.2).
        self._is_secure = True
        self._greeted = False
        self._login = None
        self._transaction = self._new_transaction()

    async def smtp_NOOP(self, argument: str) -> None:
        """NOOP (RFC 5321 §4.1.1.9)."""
        self._answer(replies.OK)

    async def smtp_HELP(self, argument: str) -> None:
        """HELP (RFC 5321 §4.1.1.8)."""
        self._answer(replies.HELP)

    async def smtp_VRFY(self, argument: str) -> None:
        """VRFY (RFC 5321 §3.5.3): always 252, since only the provider knows its addresses."""
        self._answer(replies.CANNOT_VERIFY if argument else replies.ARGUMENT_MALFORMED)

    async def smtp_EXPN(self, argument: str) -> None:
        """EXPN (RFC 5321 §3.5.2)."""
        self._answer(replies.COMMAND_NOT_IMPLEMENTED)

    async def smtp_ETRN(self, argument: str) -> None:
        """ETRN (RFC 1985): not implemented, since the relay has no queue."""
        self._answer(replies.COMMAND_NOT_IMPLEMENTED)

    async def smtp_RSET(self, argument: str) -> None:
        """RSET (RFC 5321 §4.1.1.5)."""
        if argument:
            self._answer(replies.ARGUMENT_MALFORMED)
            return
        self._transaction = self._new_transaction()
        self._answer(replies.RESET)

    async def smtp_QUIT(self, argument: str) -> None:
        """QUIT (RFC 5321 §4.1.1.10)."""
        raise _CloseSession(replies.GOODBYE)

    # Logging in.

    async def smtp_AUTH(self, argument: str) -> None:
        """AUTH (RFC 4954): mechanism in any letter case, with or without an initial response."""
        name, _, initial_response = argument.partition(" ")
        mechanism = name.upper()
        refusal = self._auth_refusal(mechanism)
        if refusal is not None:
            self._bad_command(refusal)
            return
        try:
            credentials = await self._credentials(mechanism, initial_response.strip())
        except AuthEnded as ended:
            self._count_auth(mechanism, "malformed")
            self._answer(ended.reply)
            self._count_failure()
            return
        try:
            self._login = await self._sign_in(credentials)
        except ProxyError as error:
            await self._auth_failed(mechanism, credentials, error)
        else:
            self._count_auth(mechanism, "ok")
            self._answer(replies.AUTHENTICATED)

    def _auth_refusal(self, mechanism: str) -> Reply | None:
        if not self._greeted:
            return replies.HELLO_FIRST
        if not self._may_authenticate:
            return replies.AUTH_NEEDS_TLS
        if self._login is not None:
            return replies.ALREADY_AUTHENTICATED
        if not mechanism:
            return replies.ARGUMENT_MALFORMED
        return None if mechanism in sasl.MECHANISMS else replies.AUTH_MECHANISM_UNKNOWN

    async def _credentials(self, mechanism: str, initial_response: str) -> sasl.Credentials:
        """Return the client's credentials. Raises `AuthEnded`."""
        dialogue = AuthDialogue(mechanism)
        credentials = dialogue.begin(initial_response)
        while credentials is None:
            self._pending.append(dialogue.challenge)
            credentials = dialogue.respond(await self._response_line())
        return credentials

    async def _response_line(self) -> bytes:
        try:
            return await self._line()
        except LineTooLong:
            raise AuthEnded(replies.AUTH_LINE_TOO_LONG) from None

    async def _auth_failed(
        self, mechanism: str, credentials: sasl.Credentials, error: ProxyError
    ) -> None:
        answer = replies.at_auth(error)
        is_rejected = answer.code == 535
        self._count_auth(mechanism, "rejected" if is_rejected else "unavailable")
        # An unknown login is not logged: people sometimes type a password into that field.
        account = self._account_named(credentials.authcid)
        explanation = {}
        if isinstance(error, UpstreamAuthRejected):
            explanation = self._relay.explanations.fields(str(error), "", account)
        _log.event(
            logging.WARNING,
            "AUTH failed",
            session=self.id,
            peer=self._peer,
            account=account,
            mechanism=mechanism,
            reply=answer,
            error=error,
            **explanation,
        )
        if is_rejected and isinstance(credentials, sasl.TokenLogin):
            self._pending.append(challenge_line(sasl.token_error_challenge(mechanism)))
            with suppress(AuthEnded):  # whatever the client's response, 535 follows
                await self._response_line()
        self._answer(answer)
        if is_rejected:
            self._count_failure()

    def _count_failure(self) -> None:
        self._auth_failures += 1
        if self._auth_failures >= _MAX_AUTH_FAILURES:
            raise _CloseSession(replies.TOO_MANY_AUTH_FAILURES)

    def _count_auth(self, mechanism: str, result: str) -> None:
        self._metrics.auth.labels(mechanism, result).inc()

    # The transaction.

    def _new_transaction(self) -> ClientTransaction:
        self._abandon()
        return ClientTransaction(self._policy.max_message_bytes, self._policy.max_recipients)

    async def smtp_MAIL(self, argument: str) -> None:
        """MAIL (RFC 5321 §4.1.1.2), with SIZE, BODY, SMTPUTF8 and AUTH=."""
        if not self._greeted:
            self._answer(replies.HELLO_FIRST)
        elif self._login is None:
            self._answer(replies.AUTH_REQUIRED)
        else:
            if not self._transaction.has_begun:
                self._login = self._current_login(self._login)
                if self._login is None:
                    raise _CloseSession(replies.LOG_IN_AGAIN)
            self._answer(self._transaction.mail(argument))

    async def smtp_RCPT(self, argument: str) -> None:
        """RCPT (RFC 5321 §4.1.1.3).

        The provider sees the recipients only with the content, unless the account verifies
        recipients.
        """
        answer = self._auth_missing() or self._transaction.rcpt(argument)
        login = self._login
        if answer is replies.RECIPIENT_OK and login is not None and login.account.verifies:
            answer = await self._verify_recipient(login)
        self._answer(answer)

    async def _verify_recipient(self, login: Login) -> Reply:
        """Send the provider the RCPT just added."""
        envelope = self._transaction.envelope
        if self._streaming is None:
            self._streaming = self._relay.stream(login, envelope, self._next_transaction_id())
        answer = await self._streaming.recipient(envelope.forward_paths[-1])
        if not answer.is_positive:
            self._transaction.remove_last_recipient()
        return answer

    def _auth_missing(self) -> Reply | None:
        return replies.AUTH_REQUIRED if self._login is None else None

    async def smtp_DATA(self, argument: str) -> None:
        """DATA (RFC 5321 §4.1.1.4)."""
        refusal = replies.ARGUMENT_MALFORMED if argument else None
        refusal = refusal or self._auth_missing() or self._transaction.data_refusal()
        if refusal is not None:
            self._answer(refusal)
            return
        self._answer(replies.SEND_CONTENT)
        await self._flush()
        collector = self._transaction.new_collector()
        reader = DataReader(collector)
        while (rest := reader.feed(await self._octets(_READ_BYTES))) is None:
            await self._pass_on(collector, is_stuffed=True)
        self._input.put_back(rest)
        await self._finish(collector, is_stuffed=True)

    async def smtp_BDAT(self, argument: str) -> None:
        """BDAT (RFC 3030): a refused chunk is still read to its end."""
        try:
            chunk = parse_chunk(argument)
        except BadChunk:
            raise _CloseSession(replies.ARGUMENT_MALFORMED) from None
        if chunk.size_bytes > _MAX_CHUNK_FACTOR * self._policy.max_message_bytes:
            raise _CloseSession(replies.TOO_LARGE)
        refusal = self._auth_missing() or self._transaction.chunk_refusal()
        collector = None if refusal else self._transaction.chunks
        await self._read_chunk(chunk.size_bytes, collector)
        if collector is not None and collector.is_too_large and not chunk.is_last:
            refusal = replies.TOO_LARGE
            self._record_refusal(collector, refusal)
        if refusal is not None or collector is None:
            self._transaction.fail()
            self._answer(refusal or replies.BAD_SEQUENCE)
        elif chunk.is_last:
            await self._finish(collector, is_stuffed=False)
        else:
            self._answer(replies.CHUNK_OK)

    async def _read_chunk(self, remaining: int, collector: Collector | None) -> None:
        """Read the octets of one BDAT chunk; without a collector they are discarded."""
        while remaining:
            octets = await self._octets(min(remaining, _READ_BYTES))
            remaining -= len(octets)
            if collector is not None:
                collector.add(octets)
                await self._pass_on(collector, is_stuffed=False)

    async def _pass_on(self, collector: Collector, *, is_stuffed: bool) -> None:
        """Stream content that exceeds the buffer; stop once the message is unacceptable."""
        if not collector.is_acceptable:
            self._abandon()
        elif self._streaming is not None:
            await self._streaming.write(collector.take(), is_stuffed=is_stuffed)
            await asyncio.sleep(0)  # a large message must not block other sessions
        elif collector.held_bytes > self._policy.buffer_bytes and self._login is not None:
            self._streaming = self._relay.stream(
                self._login, self._transaction.envelope, self._next_transaction_id()
            )
            await self._streaming.write(collector.take(), is_stuffed=is_stuffed)

    def _record_refusal(self, collector: Collector, answer: Reply) -> None:
        if self._login is not None:
            envelope, transaction_id = self._transaction.envelope, self._next_transaction_id()
            self._relay.refuse(self._login, envelope, collector.size_bytes, transaction_id, answer)

    def _abandon(self) -> None:
        if self._streaming is not None:
            self._streaming.abandon()
            self._streaming = None

    def _next_transaction_id(self) -> str:
        self._transactions += 1
        return f"{self.id}-{self._transactions}"

    async def _finish(self, collector: Collector, *, is_stuffed: bool) -> None:
        """Relay the message received whole, and send the final reply."""
        envelope, login, streaming = self._transaction.envelope, self._login, self._streaming
        refusal = collector.refusal()
        if login is None:
            answer = replies.AUTH_REQUIRED
        elif refusal is not None:
            answer = replies.TOO_LARGE if refusal is Refusal.TOO_LARGE else replies.BARE_LINE_ENDS
            self._record_refusal(collector, answer)
        elif streaming is not None:
            answer = await streaming.finish(collector.take(), is_stuffed=is_stuffed)
            self._streaming = None
        else:
            content = collector.content(is_stuffed=is_stuffed)
            answer = await self._relay.relay(login, envelope, content, self._next_transaction_id())
        self._transaction = self._new_transaction()
        self._answer(answer)
        # A final reply is never held back until a pipelining client's next transaction.
        await self._flush()


def _command_text(line: bytes) -> str | None:
    """Return a command line as text, or None if it is not a valid SMTP line."""
    if not line.endswith(b"\r\n"):
        return None
    try:
        text = line[:-2].decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or not _CONTROL.search(text) else None


# aiosmtpd finds commands by method name; here they are looked up once, not per connection.
_COMMANDS = {
    name.removeprefix("smtp_"): getattr(ClientSession, name)
    for name in dir(ClientSession)
    if name.startswith("smtp_")
}
