"""Serves one client: the transport around its dialogue, and the work that the dialogue asks for.

I1: the final reply is sent only once the relay has returned it.
I2: a message received whole is relayed to the end, even if the client disconnects.
I3: replies to a pipelined group are sent in one write, in order (RFC 2920 §3.2).
I4: a task exists only while something takes time; at most one. Meanwhile octets are buffered, and
beyond `_HIGH_BYTES` the transport stops reading, so that TCP's flow control slows the client down.
I5: octets of content are counted in the budget that all sessions share, from their arrival until
the provider has answered.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import secrets
import struct
import termios
from ssl import SSLError
from typing import TYPE_CHECKING, Protocol, cast

from aiosmtpd.smtp import SMTP

from xoauth2_proxy import log, replies
from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.diagnostics import explain
from xoauth2_proxy.errors import (
    CredentialsRejected,
    GuessingSlowed,
    ProxyError,
    UpstreamAuthRejected,
)
from xoauth2_proxy.network import plain_peer
from xoauth2_proxy.smtp.sasl import PasswordLogin, TokenLogin
from xoauth2_proxy.submission import pace
from xoauth2_proxy.submission.credential_use import CredentialBusy, use_name
from xoauth2_proxy.submission.dialogue import ClientDialogue
from xoauth2_proxy.submission.events import (
    ContentArrived,
    Event,
    LoginAttempt,
    LoginMalformed,
    MessageComplete,
    MessageRefused,
    RecipientAdded,
    Signal,
)
from xoauth2_proxy.submission.policy import ListenerTls
from xoauth2_proxy.submission.refusal_reasons import handshake_failure, login_failure

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable

    from xoauth2_proxy.accounts.accounts import Login
    from xoauth2_proxy.message import Message
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.relay import Relay, StreamingMessage
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.smtp.sasl import Credentials
    from xoauth2_proxy.submission.arrivals import Arrival
    from xoauth2_proxy.submission.authenticator import Authenticator
    from xoauth2_proxy.submission.buffer_budget import BufferBudget
    from xoauth2_proxy.submission.policy import SessionPolicy

_log = log.logger("session")

_HIGH_BYTES = 65_536  # reading pauses above it; one read of an event loop may exceed it
_GATHERED = 16  # times the buffer is what is held of a slow client's message, before it streams
_UNREAD_REPLY_BYTES = 32_768  # replies the client has not read; beyond it nothing is read either
_LINGER_SECONDS = 10.0  # for the client to read the last replies
_DISPLACED_SECONDS = 1.0  # the same, while others need the place
_TLS_HANDSHAKE_SECONDS = 30.0
# For a client that has sent what it takes for the end of its message, and will send nothing more.
# Devices wait longer for a reply.
_MISTAKEN_END_SECONDS = 10.0
_C_INT = struct.Struct("i")


class SessionRegistry(Protocol):
    """Counts the sessions (`listener.Listener`)."""

    budget: BufferBudget
    slow_clients: pace.RecentClients  # each by its account and address
    trusted_clients: pace.RecentClients

    def admit(self, session: ClientSession, address: str) -> Reply | None:
        """Count a new session; return the reply that turns the client away, or None."""
        ...

    def logged_in(self, session: ClientSession) -> None:
        """The client has logged in."""
        ...

    def ended(self, session: ClientSession) -> None:
        """The session has sent its last reply, or its connection has closed."""
        ...


class ClientSession(SMTP):
    """One client connection, from the greeting to QUIT.

    aiosmtpd's `SMTP` is the protocol that its servers and controllers expect, and asyncio's
    `data_received` is where a protocol may take its octets over. The dialogue is ours, since
    `SMTP`'s own reads line by line in a task for each connection, and its constructor, which is not
    called, finds all methods by reflection and clears a dict that all connections share.
    """

    def __init__(
        self,
        policy: SessionPolicy,
        authenticator: Authenticator,
        relay: Relay,
        metrics: Metrics,
        registry: SessionRegistry,
        arrival: Arrival | None = None,
    ) -> None:
        """`arrival` is what was found out before the session; None: nothing was."""
        self.loop = asyncio.get_running_loop()
        self.id = secrets.token_hex(4)
        self._policy = policy
        self._logins = authenticator
        self._relay = relay
        self._metrics = metrics
        self._registry = registry
        self._client = ConnectedClient(
            "" if arrival is None else arrival.client.address,
            policy.listener,
            self.id,
            relay.observer,
        )
        trace = self._trace if _log.is_enabled(logging.DEBUG) else None
        self._dialogue = ClientDialogue(
            policy,
            self._current_login,
            trace,
            self.id,
            self._client,
            self._without_password,
        )
        self._dialogue.memory = self
        self._streaming: StreamingMessage | None = None  # a message sent upstream while it arrives
        self._is_busy = False  # a task is running, or the next turn is scheduled
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0  # for the client, by the loop's clock
        self._greeted_at = 0.0
        self._is_reading_paused = False
        self._is_writing_paused = False  # the client does not read its replies
        self._is_secure = False
        self.began_with_tls = False
        self.spoke_tls_unasked = False  # from its first octet, where it was greeted in clear
        self.arrival = arrival
        self._is_stranger = True  # it has not logged in yet
        self._under_way: object | None = None  # the transaction, when the client had the word last
        self._under_way_since = 0.0
        self._awaits_content = False  # and the budget knows it
        self._is_waiting_for_room = False
        self._due = 0.0  # when the client's credit is spent (`pace`)
        self._in_flight_bytes = 0  # of content that the provider has not taken or answered
        self.held_bytes = 0  # as the budget knows it
        self.owner: Hashable = ""  # of what is held
        self._refused_passwords: frozenset[bytes] = frozenset()  # their digests
        self._is_logging_in = False
        self._counted_as = ""  # as a session of this credential, which has limits
        self._has_ended = False  # the last reply is written, and no task is left
        self._is_gone = False  # the connection is closed

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, if the listener admits it."""
        self._set_transport(cast("asyncio.Transport", transport))
        client = self._client
        if not client.address:
            client.address = plain_peer((transport.get_extra_info("peername") or ("",))[0])
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._is_secure = self.began_with_tls = True
            client.tls = tls.version()
            self._dialogue.begin_with_tls()
        refusal = self._registry.admit(self, client.address)
        if refusal is None:
            self._greet()
        else:
            self._end(refusal)

    def data_received(self, data: bytes) -> None:
        """Pass octets to the dialogue, and go on with it unless it waits for a task."""
        if self._has_ended:
            return
        if not self._dialogue.is_mid_line:  # a line must be complete in time, not begun
            self._waiting_since = self.loop.time()
        if self._awaits_content:
            self._due = pace.due_after(self._due, len(data), self._waiting_since)
        elif self._streaming is not None:
            self._due = pace.due_at_first(self._waiting_since)
        self._dialogue.feed(data)
        if not self._is_busy:
            self._advance()
            return
        self._count_held()
        if self._dialogue.unread_bytes > _HIGH_BYTES:
            self._pause_reading()

    def eof_received(self) -> bool:
        """Process what was received; replies may still be written."""
        self._no_more_input()
        return not self._is_secure  # TLS has no half-closed connections

    def connection_lost(self, error: Exception | None) -> None:
        """Process what was received. A message being relayed is not cancelled (I2)."""
        self._is_gone = True
        self._is_writing_paused = False
        self._drop_login()
        if isinstance(error, SSLError):  # TLS 1.3: an alert comes after the server's handshake
            self._client.refuse(*handshake_failure(error))
        self._no_more_input()
        if self._has_ended:
            self._stop_timer()
            self._registry.ended(self)

    def pause_writing(self) -> None:
        """Stop reading commands while the client does not read the replies."""
        self._is_writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        """Go on, since the client reads again."""
        self._is_writing_paused = False
        self._waiting_since = self.loop.time()
        self._advance()

    # The listener's side.

    def drain_session(self) -> None:
        """Send 421 and close as soon as no transaction is open."""
        self._dialogue.drain()
        self._advance()

    def displace(self) -> None:
        """Send 421 and close: another client needs the place."""
        self.cut(replies.DISPLACED)
        self.loop.call_later(_DISPLACED_SECONDS, self.abort)

    def cut(self, reply: Reply = replies.SHUTTING_DOWN) -> None:
        """Send 421 and close, whatever is under way. No message under way is acknowledged."""
        if self._task is None or self._task.done():
            self._end(reply)
        else:
            # The task may finish before it is cancelled, and the dialogue may start another.
            self._task.add_done_callback(lambda _: self.cut(reply))
            # Let the task start first: a message whose task never ran would not be recorded.
            self.loop.call_soon(self._task.cancel)

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    @property
    def has_ended(self) -> bool:
        """Whether the last reply is written, and no message is being relayed any more."""
        return self._has_ended

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed; a message may still be in progress."""
        return self._is_gone

    @property
    def client(self) -> ConnectedClient:
        """What the client is known by."""
        return self._client

    # Progress.

    def _greet(self) -> None:
        self._dialogue.greet()
        self._waiting_since = self._greeted_at = self.loop.time()
        self._look_at_the_clock()
        self._advance()

    def _advance(self) -> None:
        """Let the dialogue go on until it needs octets, or something that takes time."""
        if self._is_busy or (self._is_writing_paused and not self._dialogue.is_closed):
            return
        try:
            while (event := self._dialogue.next_event()) is not None:
                if not self._handle(event):
                    return
            self._write()
            if self._is_stranger and self._dialogue.is_logged_in:
                self._is_stranger = False
                self._registry.logged_in(self)
            self._rest()
            if self._dialogue.is_end_awaited:
                self._dialogue.is_end_awaited = False
                self._stop_timer()
                self._look_at_the_clock()
            if self._is_reading_paused:
                self._resume_reading()
        except Exception:
            self._close_after_internal_error()
            self._end()

    def _handle(self, event: Event) -> bool:
        """Handle an event. Return whether the dialogue can go on at once."""
        if event is Signal.TRANSACTION_DROPPED:
            self._abandon()
        elif event is Signal.CONTENT_UNACCEPTABLE:
            self._stop_streaming()
        elif isinstance(event, LoginMalformed):
            self._count_auth(event.mechanism, "malformed")
        elif isinstance(event, MessageRefused):
            self._stop_streaming()
            self._streaming = None
            self._relay.refuse(event.message, event.reply)
        elif event is Signal.ENDED:
            self._end()
            return False
        elif event is Signal.TURN_OVER:
            self._write()
            self._go_on_soon()
            return False
        elif event is Signal.TLS_UNASKED:
            self._client.detail = self._tls_expected()
        elif event is Signal.TLS_REQUESTED and not self._prepare_for_tls():
            self._end()
            return False
        elif isinstance(event, ContentArrived) and not event.is_last:
            self._send_content(event)
            return False
        else:
            self._begin_task(event)
            return False
        return True

    def _go_on_soon(self) -> None:
        """Let the other sessions have their turn before this one goes on."""
        self._is_busy = True
        self.loop.call_soon(self._go_on)

    def _begin_task(
        self, event: Event, waiting: Coroutine[None, None, object] | None = None
    ) -> None:
        self._is_busy = True
        self._leave_content()
        if isinstance(event, MessageComplete):
            self._in_flight_bytes = len(event.content.octets)
            self._dialogue.drop_what_was_read()
        elif isinstance(event, ContentArrived):
            self._in_flight_bytes = len(event.octets)
            if not event.is_last:
                # Else as much again would be held meanwhile.
                self._pause_reading()
                self._dialogue.drop_what_was_read()
        self._count_held()
        self._task = self.loop.create_task(self._handle_slowly(event, waiting))

    def _prepare_for_tls(self) -> bool:
        """Write the reply that precedes the handshake; return whether it has left.

        If it has not, the client is not reading its replies, and once TLS owns the transport, this
        session would not be notified that writing can resume.
        """
        # No cleartext may be accepted between the reply and the handshake.
        self._transport.pause_reading()
        self._write()
        return not self._is_writing_paused

    def _go_on(self) -> None:
        self._is_busy = False
        self._advance()

    async def _handle_slowly(
        self, event: Event, waiting: Coroutine[None, None, object] | None
    ) -> None:
        """Do what takes time, give the dialogue its answer, and go on.

        `waiting` is what to await before the provider accepts more content. `cut` cancels the task
        and ends the session.
        """
        dialogue = self._dialogue
        try:
            if isinstance(event, MessageComplete):
                dialogue.finish(await self._relay.relay(event.message, event.content))
                # A final reply is never held back until a pipelining client's next transaction.
                self._write()
            elif waiting is not None:
                await waiting
                dialogue.content_sent()
            elif isinstance(event, ContentArrived):
                reply = await self._stream(event.message).finish(
                    event.octets, is_stuffed=event.is_stuffed
                )
                self._streaming = None
                dialogue.finish(reply)
                self._write()
            elif isinstance(event, RecipientAdded):
                dialogue.recipient_answered(await self._stream(event.message).add_recipient())
            elif isinstance(event, LoginAttempt):
                await self._log_in(event)
            else:
                await self._start_tls()
        except Exception:
            self._close_after_internal_error()
        self._task = None
        self._in_flight_bytes = 0
        self._waiting_since = self.loop.time()
        self._due = pace.due_at_first(self._waiting_since)
        self._go_on()

    def _close_after_internal_error(self) -> None:
        _log.exception("session %s ended by an internal error", self.id)
        self._dialogue.close(replies.INTERNAL_ERROR)

    def _no_more_input(self) -> None:
        self._dialogue.feed_eof()
        self._advance()

    def _end(self, reply: Reply | None = None) -> None:
        """Send the last replies and close the connection."""
        if self._has_ended:
            return
        self._dialogue.close(reply)
        self._abandon()
        self._write()
        self._has_ended = True
        self._leave_content()
        self._in_flight_bytes = 0
        self._count_held()
        if self._client.messages:
            self._registry.trusted_clients.note(self._account_and_address, self.loop.time())
        self._stop_counting()
        self._report_client()
        self._transport.close()
        self._stop_timer()
        if not self._is_gone:
            # A client that does not read would keep the socket open forever.
            self._timer = self.loop.call_later(_LINGER_SECONDS, self.abort)
        self._registry.ended(self)

    def _report_client(self) -> None:
        """Say why the client was turned away, if it was; a health check or a stop is no reason."""
        client = self._client
        if client.reason is Refused.IDLE and self._dialogue.is_logged_in:
            return  # it keeps a connection for its next message, and can open another
        has_done_nothing = client.reason is None and not client.is_known
        if has_done_nothing and self._greeted_at and not self._dialogue.is_draining:
            client.refuse(Refused.LEFT, "logged in" if self._dialogue.is_logged_in else "")
        client.report()

    # Reading and writing.

    def _set_transport(self, transport: asyncio.Transport) -> None:
        self._transport = self.transport = transport
        self._is_reading_paused = False
        transport.set_write_buffer_limits(high=_UNREAD_REPLY_BYTES)
        if hasattr(transport, "set_read_buffer_limits"):  # TLS would hold 256 KiB while we pause
            transport.set_read_buffer_limits(_HIGH_BYTES)

    def _write(self) -> None:
        octets = self._dialogue.take()
        if octets and not self._transport.is_closing():  # uvloop warns of writes to a closed one
            self._transport.write(octets)

    def _pause_reading(self) -> None:
        if not self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not (self._is_writing_paused or self._is_waiting_for_room):
            self._is_reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _trace(self, verb: str, code: int) -> None:
        _log.event(logging.DEBUG, "reply", session=self.id, command=verb, code=code)

    # Time.

    def _look_at_the_clock(self) -> None:
        """Close the session if the client was silent, or took, for too long.

        Else strangers who send an octet now and then would fill the listener, and clients that drip
        would hold a connection of their mailbox. The timer is set again when it fires, not at each
        command.
        """
        now, policy = self.loop.time(), self._policy
        if self._is_busy:
            self._waiting_since = now
        due, reply = self._waiting_since + policy.idle_seconds, replies.IDLE_TOO_LONG
        if not (self._dialogue.is_logged_in or self._is_busy):
            due = min(due, self._greeted_at + policy.login_seconds)
            reply = replies.LOGIN_TOO_LATE
        elif self._dialogue.has_mistaken_end:
            due = min(due, self._waiting_since + _MISTAKEN_END_SECONDS)
            reply = replies.NO_END_OF_DATA
        if self._under_way is not None and not self._is_busy:
            message_due = self._under_way_since + policy.message_seconds
            if message_due < due:
                due, reply = message_due, replies.MESSAGE_TOO_LATE
            if self._streaming is not None and self._due < due:
                due, reply = self._due, replies.TOO_SLOW
        if due > now:
            # What begins meanwhile is not due before that.
            longest_seconds = policy.message_seconds
            if self._streaming is not None:
                longest_seconds = min(longest_seconds, pace.CREDIT_SECONDS)
            due = min(due, now + longest_seconds)
            self._timer = self.loop.call_at(due, self._look_at_the_clock)
        elif reply in (replies.MESSAGE_TOO_LATE, replies.TOO_SLOW):
            self._give_up(reply)
        else:
            self._end(reply)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The memory for content: this session is a `buffer_budget.Holder`.

    @property
    def due(self) -> float:
        """When the client's credit is spent; octets in the socket of a paused session count."""
        if not self._is_waiting_for_room:
            return self._due
        return pace.due_with_waiting(self._due, self._octets_in_socket(), self.loop.time())

    @property
    def is_trusted(self) -> bool:
        """Whether the client has sent messages lately."""
        return self._client.messages > 0 or self._registry.trusted_clients.has(
            self._account_and_address, self.loop.time()
        )

    @property
    def _account_and_address(self) -> tuple[str, str]:
        return self._client.account, self._client.address

    @property
    def is_streaming(self) -> bool:
        """Whether content goes upstream as it arrives."""
        return self._streaming is not None

    def pause_content(self) -> None:
        """Read no more until `resume_content`."""
        self._is_waiting_for_room = True
        self._pause_reading()

    def resume_content(self) -> None:
        """Read on."""
        self._is_waiting_for_room = False
        self._waiting_since = self.loop.time()
        self._due = pace.due_at_first(self._waiting_since)
        if not self._is_busy and self._is_reading_paused:
            self._resume_reading()

    def give_up_content(self) -> None:
        """End the session: its memory is needed for others."""
        self._give_up(replies.ROOM_NEEDED)

    def _give_up(self, reply: Reply) -> None:
        """End the session within a transaction, and record its message as refused."""
        if reply is replies.TOO_SLOW:
            self._registry.slow_clients.note(self._account_and_address, self.loop.time())
        message = self._dialogue.give_up(reply)
        self._stop_streaming()
        self._streaming = None
        if message is not None:
            self._relay.refuse(message, reply)
        self._end()

    def has_room(self) -> bool:
        """Whether new content may come."""
        return self._registry.budget.has_room()

    def may_gather(self) -> bool:
        """Whether to hold more than the buffer, since the client is slow.

        While its message streamed, it would hold a connection of its mailbox.
        """
        gathered, registry = self._dialogue.held_bytes, self._registry
        if gathered > _GATHERED * self._policy.buffer_bytes or not registry.budget.is_roomy:
            return False
        now = self._waiting_since
        seconds = now - self._under_way_since if self._under_way is not None else 0.0
        return not pace.is_fast_enough(gathered, seconds) or registry.slow_clients.has(
            self._account_and_address, now
        )

    def _rest(self) -> None:
        """Note where the transaction stands, now that the client has the word."""
        awaits_content, under_way, held_bytes = self._dialogue.standing()
        if under_way is not self._under_way:
            self._under_way, self._under_way_since = under_way, self._waiting_since
        if awaits_content is not self._awaits_content:
            if self._awaits_content:
                self._leave_content()
            else:
                self._enter_content()
        if held_bytes != self.held_bytes:  # nothing is in flight
            self._count_held()

    def _enter_content(self) -> None:
        self._awaits_content = True
        self._due = pace.due_at_first(self._waiting_since)
        if not self.held_bytes:
            self.owner = self._client.account
        self._registry.budget.enter(self)

    def _leave_content(self) -> None:
        if self._awaits_content:
            self._awaits_content = False
            self._registry.budget.leave(self)

    def _count_held(self) -> None:
        held = self._in_flight_bytes + self._dialogue.held_bytes
        change = held - self.held_bytes
        if change:
            if not self.held_bytes:
                self.owner = self._client.account
            self.held_bytes = held
            self._registry.budget.change(self, change)

    @property
    def descriptor(self) -> int:
        """The connection's file descriptor: always the lowest that was free; -1: it has none."""
        socket = self._transport.get_extra_info("socket")
        return -1 if socket is None else int(socket.fileno())

    def _octets_in_socket(self) -> int:
        descriptor = self.descriptor
        if descriptor < 0 or self._transport.is_closing():
            return 0
        found = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(_C_INT.size))
        return int(_C_INT.unpack(found)[0])

    # TLS.

    async def _start_tls(self) -> None:
        context = self._policy.tls_context
        if context is None:
            raise RuntimeError("STARTTLS was not offered")
        plain = self._transport
        try:
            secure = await self.loop.start_tls(
                plain,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=_TLS_HANDSHAKE_SECONDS,
            )
            if secure is None:
                raise ConnectionError("closed during the handshake")
        except BaseException as error:
            # The transport no longer calls this protocol: `connection_lost` would never come.
            self._is_gone = True
            plain.abort()
            if not isinstance(error, OSError):
                raise
            self._client.refuse(*handshake_failure(error))
            self._dialogue.close()
            return
        self._set_transport(secure)
        self._is_secure = True
        self._client.tls = secure.get_extra_info("ssl_object").version()
        self._abandon()
        self._dialogue.secured()

    def _tls_expected(self) -> str:
        self.spoke_tls_unasked = True
        if self._policy.tls is ListenerTls.AUTO:
            return "it had greeted the client already, and will wait for TLS when it tries again"
        if self._policy.tls_context is None:
            return "it offers no TLS"
        return "it expects STARTTLS"

    # Logging in.

    async def _log_in(self, attempt: LoginAttempt) -> None:
        credentials = attempt.credentials
        try:
            login = await self._authenticated(credentials)
        except ProxyError as error:
            answer = replies.at_auth(error)
            self._count_auth(attempt.mechanism, _result(error, answer))
            self._note_refused_login(credentials.authcid, answer, error)
            if answer.code == 421:
                self._dialogue.close(answer)
                return
            if isinstance(credentials, PasswordLogin):
                self._refused_passwords |= {_digest(credentials.password)}
            is_token = isinstance(credentials, TokenLogin)
            self._dialogue.login_failed(answer, is_token=is_token)
        else:
            if not self._may_use(login):
                return
            self._count_auth(attempt.mechanism, "ok")
            self._client.login = login.credential.key if login.credential else login.account.key
            self._dialogue.logged_in(login)

    async def _authenticated(self, credentials: Credentials) -> Login:
        self._is_logging_in = True
        try:
            self._check_is_new(credentials)
            return await self._logins.authenticate(credentials, self._client.address)
        finally:
            self._is_logging_in = False

    def _drop_login(self) -> None:
        """The client has gone: what it tried to log in with is not looked at any more."""
        if self._is_logging_in and self._task is not None:
            self._task.add_done_callback(lambda _: self._end())
            self._task.cancel()

    def _check_is_new(self, credentials: Credentials) -> None:
        """Raise `CredentialsRejected` for a token that was refused as a password just now.

        Some libraries try one mechanism after the other, with the mistyped password as a token. It
        is not for the provider.
        """
        if not isinstance(credentials, TokenLogin) or not self._refused_passwords:
            return
        if _digest(credentials.access_token) in self._refused_passwords:
            raise CredentialsRejected("it was refused as a password before")

    def _note_refused_login(self, typed: str, answer: Reply, error: ProxyError) -> None:
        client = self._client
        known = self._logins.known_login(typed)
        client.login = known or self._logins.shown_login(typed)
        client.account = self._logins.known_account(typed)
        reason = login_failure(error, is_known=bool(known))
        if reason is Refused.LOGIN_UNKNOWN:
            detail = self._logins.nearest_login(typed)
        elif isinstance(error, CredentialsRejected):
            detail = ""  # the reason says all
        else:
            detail = self._explained(error)
        client.refuse(reason, detail, answer)

    def _explained(self, error: ProxyError) -> str:
        advice = explain(str(error)) if isinstance(error, UpstreamAuthRejected) else None
        if advice is None:
            return str(error)
        return f"{error} ({advice.cause}; {advice.remedy_for(self._client.account)})"

    def _without_password(self, address: str) -> list[Login]:
        """Return the logins of the client's address; that of its load balancer proves nothing."""
        if self.arrival is not None and self.arrival.is_unnamed:
            return []
        return self._logins.without_password(address)

    def _may_use(self, login: Login) -> bool:
        """Count a session of a limited credential; end it if there are too many."""
        try:
            self._count_session(login)
        except CredentialBusy as busy:
            self._client.login = login.credential.key if login.credential else ""
            self._client.refuse(Refused.CREDENTIAL_BUSY, reply=busy.reply)
            self._dialogue.close(busy.reply)
            return False
        return True

    def _current_login(self, login: Login) -> Login | None:
        """Return as `Authenticator.current_login`. Raises `CredentialBusy`: no message for now."""
        current = self._logins.current_login(login)
        if current is not None and (one := current.credential) is not None and one.is_limited:
            self._count_session(current)
            self._logins.use_counts.count_message(current.account, one)
        return current

    def _count_session(self, login: Login) -> None:
        """Count the session as the credential's, if that has limits. Raises `CredentialBusy`."""
        credential = login.credential
        if credential is None or not credential.is_limited:
            return
        if self._counted_as == use_name(login.account, credential):
            return
        self._stop_counting()
        self._counted_as = self._logins.use_counts.begin_session(login.account, credential)

    def _stop_counting(self) -> None:
        if self._counted_as:
            self._logins.use_counts.end_session(self._counted_as)
            self._counted_as = ""

    def _count_auth(self, mechanism: str, result: str) -> None:
        self._metrics.auth.labels(mechanism, result).inc()

    # Messages.

    def _send_content(self, part: ContentArrived) -> None:
        """Send part of a message; start a task only if the provider accepts it slowly."""
        waiting = self._stream(part.message).write(part.octets, is_stuffed=part.is_stuffed)
        if waiting is None:
            self._dialogue.content_sent()
            self._go_on_soon()
        else:
            self._begin_task(part, waiting)

    def _stream(self, message: Message) -> StreamingMessage:
        """Return the message that is sent while it arrives; begin it if there is none yet."""
        if self._streaming is None:
            self._streaming = self._relay.stream(message)
            # A connection of the mailbox is held from now on.
            policy = self._policy
            self._due = pace.due_at_first(self.loop.time())
            self._stop_timer()
            self._timer = self.loop.call_later(
                min(pace.CREDIT_SECONDS, policy.idle_seconds, policy.message_seconds),
                self._look_at_the_clock,
            )
        return self._streaming

    def _stop_streaming(self) -> None:
        if self._streaming is not None:
            self._streaming.stop()

    def _abandon(self) -> None:
        if self._streaming is not None:
            self._streaming.abandon()
            self._streaming = None


def _result(error: ProxyError, answer: Reply) -> str:
    """Return the label that counts a failed AUTH."""
    if isinstance(error, GuessingSlowed):
        return "slowed"
    return "unavailable" if answer.is_transient else "rejected"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
