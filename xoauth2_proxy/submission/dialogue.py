"""The relay's half of an SMTP dialogue with a client, as a state machine without I/O.

The caller passes received octets to `feed`, calls `next_event` until it returns None, does what the
events ask for, and writes what `take` returns. `submission.session` is the transport around it.

I1: every command gets exactly one reply, in the order of the commands (RFC 5321 §4.2, RFC 2920);
a closing 421 may follow it. An event that must be answered stops the dialogue until it is
(`State.WAITING`).
I2: content is never read as commands. Where the length of content is in doubt (a broken BDAT), the
dialogue ends.
I3: nothing that a client said in cleartext outlives STARTTLS (RFC 3207 §4.2), and octets behind it
end the dialogue.
I4: in bounded memory: lines beyond their limit are discarded as they come, content beyond the
buffer is handed on. The caller bounds what it feeds while the dialogue waits.
I5: after `_STEPS_PER_TURN` steps without a wait, other sessions get a turn, whatever the client
says.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy import replies
from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.message import Message
from xoauth2_proxy.smtp import sasl
from xoauth2_proxy.smtp.content import DataReader, Refusal
from xoauth2_proxy.smtp.protocol import BadPath, Reply, parse_path
from xoauth2_proxy.submission.address_login import choose_login
from xoauth2_proxy.submission.auth import AuthDialogue, AuthEnded, challenge_line
from xoauth2_proxy.submission.credential_use import CredentialBusy
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
from xoauth2_proxy.submission.refusal_reasons import reason_of
from xoauth2_proxy.submission.sender_check import SenderCheck, SenderRefused
from xoauth2_proxy.submission.transaction import BadChunk, Chunk, ClientTransaction, parse_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xoauth2_proxy.accounts.accounts import Login
    from xoauth2_proxy.accounts.sender_rules import SenderRules
    from xoauth2_proxy.smtp.content import Collector
    from xoauth2_proxy.submission.policy import SessionPolicy

# RFC 5321 §4.5.3.1.4 (512) and what SIZE, BODY, SMTPUTF8 and AUTH= add to MAIL, generously.
_MAX_COMMAND_BYTES = 2048
_MAX_LINE_BYTES = sasl.MAX_LINE_BYTES + len("AUTH OAUTHBEARER \r\n")
_START_BYTES = 16  # kept of a line that is too long: enough to recognize its command
_STEPS_PER_TURN = 100  # of one client before other sessions get a turn
_PIECE_BYTES = 65_536  # of content in one step
_MAX_NOTED = 255  # characters of what a client said of itself; a domain has no more
_MAX_AUTH_FAILURES = 5  # a connection, so that guessing passwords takes many connections
_MAX_CHUNK_FACTOR = 4  # a BDAT chunk this many times the limit ends the session

# What a TLS client begins with: a handshake record of version 3.x (RFC 8446 §5.1).
_TLS_START = b"\x16\x03"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_TAB = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FIRST_SPACE = re.compile(r"[ \t]")
_HELLO = re.compile(rb"(?:HELO|EHLO)[ \t]", re.IGNORECASE)


_CONTENT_REFUSALS = {
    Refusal.TOO_LARGE: replies.TOO_LARGE,
    Refusal.NUL: replies.NUL_IN_CONTENT,
    Refusal.BARE_LINE_ENDS: replies.BARE_LINE_ENDS,
}


class State(Enum):
    """What the next octets are, or why none are read."""

    COMMAND = auto()  # a command line
    RESPONSE = auto()  # the response to a challenge (RFC 4954 §4)
    LAST_RESPONSE = auto()  # the response to a refused token (RFC 7628 §3.2.3): 535 follows
    DATA = auto()  # content up to CRLF.CRLF
    CHUNK = auto()  # the octets of a BDAT chunk
    WAITING = auto()  # an event must be answered first
    CLOSED = auto()  # the dialogue has ended


# Found as globals many times for each message: an Enum's attribute costs several times as much.
COMMAND, RESPONSE, LAST_RESPONSE, DATA, CHUNK, WAITING, CLOSED = State
_READS_LINES = (COMMAND, RESPONSE, LAST_RESPONSE)
_OCTETS_NEEDED = Signal.OCTETS_NEEDED


class ContentMemory(Protocol):
    """Says how much content may be held."""

    def has_room(self) -> bool:
        """Whether new content may come; else the client is told to try again."""
        ...

    def may_gather(self) -> bool:
        """Whether more than the buffer may be held of the present content."""
        ...


class _UnlimitedMemory:
    def has_room(self) -> bool:
        return True

    def may_gather(self) -> bool:
        return False


_UNLIMITED = _UnlimitedMemory()


class ClientDialogue:
    """One client's dialogue, from the greeting to QUIT."""

    # A dict for each client would be larger than all that an idle one holds.
    __slots__ = (
        "_auth",
        "_auth_failures",
        "_bad_commands",
        "_buffer",
        "_chunk",
        "_chunk_refusal",
        "_client",
        "_collector",
        "_commands",
        "_content_state",
        "_current_login",
        "_data",
        "_greeted",
        "_is_by_address",
        "_is_draining",
        "_is_secure",
        "_is_stopped",
        "_login",
        "_long_line",
        "_mechanism",
        "_message",
        "_messages",
        "_output",
        "_policy",
        "_refusal",
        "_remaining",
        "_saw_eof",
        "_searched",
        "_sender_rules",
        "_session_id",
        "_start",
        "_steps",
        "_trace",
        "_transaction",
        "_verb",
        "_without_password",
        "is_end_awaited",
        "is_mid_line",
        "memory",
        "state",
    )

    def __init__(
        self,
        policy: SessionPolicy,
        current_login: Callable[[Login], Login | None],
        trace: Callable[[str, int], None] | None = None,
        session_id: str = "",
        client: ConnectedClient | None = None,
        without_password: Callable[[str], Sequence[Login]] = lambda address: (),
    ) -> None:
        """`trace` hears each command's verb and code.

        `current_login` and `without_password` are those of an `Authenticator`; the former may
        raise `CredentialBusy` to refuse a message. The ids of the messages begin with `session_id`.
        What the client says of itself, and why it is refused, is noted in `client`.
        """
        self.state = COMMAND
        self.is_mid_line = False  # a part of a line was fed, and not yet its end
        # The content stops at what some clients take for its end; the caller resets it.
        self.is_end_awaited = False
        self._policy = policy
        self._current_login = current_login
        self._without_password = without_password
        self.memory: ContentMemory = _UNLIMITED  # until the caller sets another
        self._trace = trace
        self._session_id = session_id
        self._client = client or ConnectedClient()
        self._buffer = b""
        self._start = 0  # the octets before it have been read
        self._steps = 0  # taken in this turn
        self._searched = 0  # how many of the unread octets are known to hold no LF
        self._long_line: bytes | None = None  # the start of a line that is too long
        self._saw_eof = False
        self._is_draining = False
        self._output = b""
        self._verb = ""  # of the current command
        self._greeted = False  # EHLO or HELO was received
        self._is_secure = False
        self._login: Login | None = None
        self._is_by_address = False  # `_login` is the address's, chosen anew for each message
        self._sender_rules: SenderRules | None = None  # of the login
        self._auth: AuthDialogue
        self._mechanism = ""
        self._refusal: Reply  # what a client with a refused token hears after its last response
        self._bad_commands = self._commands = 0  # the latter since the last message
        self._auth_failures = 0
        self._transaction = self._new_transaction()
        self._messages = 0  # begun in this session
        self._message: Message | None = None  # of the transaction, once an event carried it
        self._is_stopped = False  # what was handed on of it will not become a message
        self._collector: Collector | None = None  # of the content under way; None: it is discarded
        self._data: DataReader
        self._chunk: Chunk
        self._chunk_refusal: Reply | None = None
        self._remaining = 0  # octets of the chunk
        self._content_state = DATA  # where `content_sent` goes on

    # The caller's side.

    @property
    def is_closed(self) -> bool:
        """Whether the dialogue has ended."""
        return self.state is CLOSED

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._is_draining

    @property
    def is_logged_in(self) -> bool:
        """Whether the client has logged in."""
        return self._login is not None

    @property
    def has_mistaken_end(self) -> bool:
        """Whether the client seems to wait for the reply to a message that it has not ended."""
        return self.state is DATA and self._data.has_mistaken_end

    @property
    def unread_bytes(self) -> int:
        """How many octets were fed and not yet read."""
        return len(self._buffer) - self._start

    def begin_with_tls(self) -> None:
        """TLS is in place before the greeting (RFC 8314 §3.3)."""
        self._is_secure = True

    @property
    def held_bytes(self) -> int:
        """How many octets are held: content collected, and what was fed and not yet dropped."""
        fed = len(self._buffer)
        return fed if self._collector is None else fed + self._collector.held_bytes

    def drop_what_was_read(self) -> None:
        """Hold only octets that have not been read, since it will be long until they are."""
        if self._start:
            self._buffer, self._start = self._buffer[self._start :], 0

    def standing(self) -> tuple[bool, object | None, int]:
        """Return whether the next octets are content, the transaction, and the octets held.

        The transaction is another object for each one, and None before one has begun.
        """
        state, transaction, held = self.state, self._transaction, len(self._buffer)
        if self._collector is not None:
            held += self._collector.held_bytes
        is_chunk = state is CHUNK
        under_way = transaction if is_chunk or transaction.has_begun else None
        return is_chunk or state is DATA, under_way, held

    def give_up(self, reply: Reply) -> Message | None:
        """End the dialogue within a transaction; return its message, which is refused."""
        message = None
        if self._login is not None and self._transaction.has_begun:
            message, self._message = self._outgoing(), None
            if self._collector is not None:
                message.size_bytes = self._collector.size_bytes
        self.close(reply)
        return message

    def greet(self) -> None:
        """Open the dialogue (RFC 5321 §3.1)."""
        self._answer(Reply(220, "", (f"{self._policy.hostname} ESMTP xoauth2-proxy",)))

    def feed(self, octets: bytes) -> None:
        """Take octets from the client."""
        if self._start < len(self._buffer):
            octets = self._buffer[self._start :] + octets
        self._buffer = octets
        self._start = 0

    def feed_eof(self) -> None:
        """Note that no more octets will come; those already here are still read."""
        self._saw_eof = True

    def drain(self) -> None:
        """End the dialogue with 421 as soon as no transaction is open."""
        self._is_draining = True

    def close(self, reply: Reply | None = None) -> Signal:
        """End the dialogue, with a last reply if there is one."""
        if reply is not None and self.state is not CLOSED:
            if reply is replies.IDLE_TOO_LONG and self.state in (DATA, CHUNK):
                self._stalled()
            self._answer(reply)
        self.state = CLOSED
        self._buffer, self._start = b"", 0
        self.memory = _UNLIMITED  # it may refer to the caller, and that to this dialogue
        if self._collector is not None:
            self._collector.clear()
        return Signal.ENDED

    def take(self) -> bytes:
        """Return the octets to write."""
        octets, self._output = self._output, b""
        return octets

    def next_event(self) -> Event | None:
        """Return what the caller must see to next; None if octets are needed first."""
        while self._steps < _STEPS_PER_TURN:
            self._steps += 1
            if self._is_draining and self._may_drain:
                return self.close(replies.SHUTTING_DOWN)
            state = self.state
            if state in _READS_LINES:
                event = self._read_line()
            elif state is DATA:
                event = self._read_data()
            elif state is CHUNK:
                event = self._read_chunk()
            elif state is CLOSED:
                return Signal.ENDED
            else:
                raise RuntimeError("the last event has not been answered")
            if event is _OCTETS_NEEDED:
                return self._paused()
            if event is not None:
                return event
        self._steps = 0
        return Signal.TURN_OVER

    def _paused(self) -> Event | None:
        """All that can be read has been: nothing of it is kept."""
        self._steps = 0
        if not self.unread_bytes:
            self._buffer, self._start = b"", 0
        return self._left() if self._saw_eof else None

    def _left(self) -> Signal:
        """End the dialogue: the client has closed its side."""
        if self.state in (DATA, CHUNK):
            self._stalled()
        return self.close()

    def _stalled(self) -> None:
        """Note that the client stopped within the content, or waits for a reply to its end."""
        reason = Refused.NO_END_OF_DATA if self.has_mistaken_end else Refused.CONTENT_BROKEN_OFF
        self._client.refuse(reason)

    # Answers to events. After the end of the dialogue they say nothing.

    def logged_in(self, login: Login) -> None:
        """The credentials are right."""
        if self._resume(COMMAND):
            self._is_by_address = False
            self._use(login)
            self._answer(replies.AUTHENTICATED)

    def _use(self, login: Login) -> None:
        self._login = login
        self._sender_rules = login.sender_rules
        self._client.account = login.account.key
        self._client.credential = login.credential.name if login.credential else ""
        self._client.forgive()

    def login_failed(self, reply: Reply, *, is_token: bool) -> None:
        """The credentials are wrong (535) or of no use (534), or could not be checked."""
        if not self._resume(COMMAND):
            return
        if reply.code == 535 and is_token:
            # XOAUTH2 and OAUTHBEARER: the error goes into a challenge, whose response is ignored.
            self._challenge(challenge_line(sasl.token_error_challenge(self._mechanism)))
            self._refusal = reply
            self.state = LAST_RESPONSE
        else:
            self._auth_refused(reply, is_failure=not reply.is_transient)

    def recipient_answered(self, reply: Reply) -> None:
        """The provider's reply to the recipient."""
        if self._resume(COMMAND):
            if not reply.is_positive:
                self._transaction.remove_last_recipient()
                self._client.refuse(
                    Refused.MESSAGE_DELAYED if reply.is_transient else Refused.MESSAGE_REFUSED,
                    reply=reply,
                )
            self._say(reply)

    def content_sent(self) -> None:
        """The part of the message has gone upstream, or was dropped there."""
        self._resume(self._content_state)

    def finish(self, reply: Reply) -> None:
        """The final reply to the message."""
        if self._resume(COMMAND):
            self._commands = 0
            self._end_transaction()
            self._say(reply)

    def secured(self) -> None:
        """TLS is in place. Octets fed since `TLS_REQUESTED` have come through it."""
        if self._resume(COMMAND):
            self._is_secure = True
            self._greeted = False
            self._login, self._is_by_address = None, False
            self._client.greeting = ""
            self._end_transaction()

    def _resume(self, state: State) -> bool:
        """Read on. Return False if the dialogue was closed meanwhile."""
        if self.state is WAITING:
            self.state = state
            self._steps = 0
        elif self.state is not CLOSED:
            raise RuntimeError("there is no event to answer")
        return self.state is not CLOSED

    # Lines.

    def _read_line(self) -> Event | None:
        """Read a line. Of one that is too long only the start is kept (I4)."""
        buffer, start = self._buffer, self._start
        if start == len(buffer):
            return _OCTETS_NEEDED
        end = buffer.find(b"\n", start + self._searched) + 1
        is_too_long = (end or len(buffer)) - start > _MAX_LINE_BYTES
        if is_too_long and self._long_line is None:
            self._long_line = buffer[start : start + _START_BYTES]
        self.is_mid_line = not end
        if not end:
            if not self._verb and buffer.startswith(_TLS_START, start):
                return self._tls_unasked()
            if self._long_line is not None:
                self._start = len(buffer)
            self._searched = len(buffer) - self._start
            return _OCTETS_NEEDED
        self._start = end
        self._searched = 0
        if self._long_line is not None:
            start_of_line, self._long_line = self._long_line, None
            return self._long_line_read(start_of_line)
        line = buffer[start:end]
        return self._command(line) if self.state is COMMAND else self._response(line)

    def _long_line_read(self, start: bytes) -> Event | None:
        if self.state is COMMAND:
            is_auth = start[:5].upper() == b"AUTH "
            return self._bad_line(
                start, replies.AUTH_LINE_TOO_LONG if is_auth else replies.COMMAND_TOO_LONG
            )
        if self.state is RESPONSE:
            return self._auth_ended(replies.AUTH_LINE_TOO_LONG)
        return self._response(start)

    def _octets(self, limit: int) -> bytes:
        taken = self._buffer[self._start : self._start + limit]
        self._start += len(taken)
        return taken

    def _tls_unasked(self) -> Event:
        """Close. No TLS alert would help: the client has read the greeting, and given up."""
        self.close(replies.TLS_UNASKED)
        return Signal.TLS_UNASKED

    def _command(self, line: bytes) -> Event | None:
        self._commands += 1
        if self._commands > self._policy.max_commands:
            return self.close(replies.TOO_MANY_COMMANDS)
        text = (_strict_text if self._policy.strict else _command_text)(line)
        if text is None and not self._verb and line.startswith(_TLS_START):
            return self._tls_unasked()
        word, _, argument = (text or "").partition(" ")
        verb = word.upper()
        command = _COMMANDS.get(verb) if word.isascii() else None
        self._verb = "?" if command is None else verb  # for the log, without its arguments
        if text is None:
            return self._bad_line(line, replies.COMMAND_MALFORMED)
        if len(line) > _MAX_COMMAND_BYTES and verb != "AUTH":
            return self._bad_line(line, replies.COMMAND_TOO_LONG)
        if command is None:
            # With white space before it, BDAT is no command, but a chunk follows it nonetheless.
            return self._bad_line(b"" if word else line, replies.COMMAND_UNKNOWN)
        return command(self, argument.strip())

    def _bad_line(self, line: bytes, reply: Reply) -> Event | None:
        if line.lstrip()[:4].upper() == b"BDAT":
            return self.close(reply)  # I2: a chunk of unknown length follows
        return self._bad_command(reply)

    def _bad_command(self, reply: Reply) -> Event | None:
        self._bad_commands += 1
        if self._bad_commands >= self._policy.max_bad_commands:
            return self.close(replies.TOO_MANY_BAD_COMMANDS)
        return self._answer(reply)

    def _answer(self, reply: Reply) -> Event | None:
        """Queue a reply, and note why the client is refused if it is.

        Return None: the caller has nothing to do.
        """
        if reply.code >= 400 and (reason := reason_of(reply)) is not None:
            self._client.refuse(reason, reply=reply)
        self._say(reply)
        return None

    def _answer_about(self, reply: Reply, argument: str) -> Event | None:
        """Queue the reply to MAIL or RCPT; if it is refused, note what was written."""
        self._answer(reply)
        client = self._client
        if reply is replies.AUTH_REQUIRED:
            client.sender = _address_in(argument)
        elif reply.code >= 400 and client.reply is reply and not client.detail:
            client.detail = argument[:_MAX_NOTED]
        return None

    def _say(self, reply: Reply) -> None:
        if self._trace is not None:
            self._trace(self._verb, reply.code)
        self._output += reply.octets

    @property
    def _may_drain(self) -> bool:
        return self.state in _READS_LINES and not self._transaction.has_begun

    # EHLO, STARTTLS and the commands without effect on a transaction.

    def _hello(self, hostname: str) -> Event | None:
        """HELO and EHLO (RFC 5321 §4.1.1.1): offers what the relay supports with every provider."""
        if not hostname and self._policy.strict:
            return self._answer(replies.ARGUMENT_MALFORMED)
        lines = [self._policy.hostname]
        if self._verb == "EHLO":
            lines += ["PIPELINING", f"SIZE {self._policy.max_message_bytes}", "8BITMIME"]
            lines += ["SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
            if self._policy.tls_context is not None and not self._is_secure:
                lines.append("STARTTLS")
            if self._may_authenticate:
                offered = " ".join(self._policy.mechanisms)
                lines.append(f"AUTH {offered}")
                if self._policy.auth_equals_line:  # for clients older than RFC 2554
                    lines.append(f"AUTH={offered}")
        self._answer(Reply(250, "", tuple(lines)))
        self._client.greeting = hostname[:_MAX_NOTED]
        self._greeted = True
        return self._end_transaction()

    @property
    def _may_authenticate(self) -> bool:
        return self._is_secure or self._policy.may_auth_in_clear

    def _starttls(self, argument: str) -> Event | None:
        """STARTTLS (RFC 3207). Octets behind the command were injected, and end the dialogue."""
        if argument:
            return self._answer(replies.ARGUMENT_MALFORMED)
        if self._policy.tls_context is None or self._is_secure:
            return self._answer(replies.TLS_NOT_AVAILABLE)
        if self.unread_bytes:
            return self.close(replies.OCTETS_AFTER_STARTTLS)
        self._answer(replies.START_TLS)
        self.state = WAITING
        return Signal.TLS_REQUESTED

    def _vrfy(self, argument: str) -> Event | None:
        """VRFY (RFC 5321 §3.5.3): always 252, since only the provider knows its addresses."""
        return self._answer(replies.CANNOT_VERIFY if argument else replies.ARGUMENT_MALFORMED)

    def _rset(self, argument: str) -> Event | None:
        """RSET (RFC 5321 §4.1.1.5)."""
        if argument:
            return self._answer(replies.ARGUMENT_MALFORMED)
        self._answer(replies.RESET)
        if self._login is not None:
            self._client.report()  # the transaction it gives up was refused
        return self._end_transaction()

    def _quit(self, argument: str) -> Event | None:
        """QUIT (RFC 5321 §4.1.1.10)."""
        return self.close(replies.GOODBYE)

    # Logging in.

    def _auth_command(self, argument: str) -> Event | None:
        """AUTH (RFC 4954): mechanism in any letter case, with or without an initial response."""
        name, _, initial_response = argument.replace("\t", " ").partition(" ")
        self._mechanism = name.upper()
        self._client.mechanism = sasl.shown_name(self._mechanism)
        refusal = self._auth_refusal(self._mechanism)
        if refusal is not None:
            return self._bad_command(refusal)
        self._auth = AuthDialogue(self._mechanism)
        return self._credentials(self._auth.begin, initial_response.strip().encode())

    def _auth_refusal(self, mechanism: str) -> Reply | None:
        if not self._greeted:
            return replies.HELLO_FIRST
        if not self._may_authenticate:
            return replies.AUTH_NEEDS_TLS
        if self._login is not None and not self._is_by_address:
            return replies.ALREADY_AUTHENTICATED
        if self._transaction.has_begun:  # RFC 4954 §4
            return replies.BAD_SEQUENCE
        if not mechanism:
            return replies.ARGUMENT_MALFORMED
        policy = self._policy
        is_taken = mechanism in policy.mechanisms or mechanism in policy.unannounced
        return None if is_taken else replies.AUTH_MECHANISM_UNKNOWN

    def _response(self, line: bytes) -> Event | None:
        if self.state is RESPONSE:
            if self._policy.strict and not line.endswith(b"\r\n"):
                return self._auth_ended(replies.COMMAND_MALFORMED)
            return self._credentials(self._auth.respond, line)
        self.state = COMMAND  # whatever the response to a refused token
        return self._auth_refused(self._refusal, is_failure=True)

    def _credentials(
        self, step: Callable[[bytes], sasl.Credentials | None], octets: bytes
    ) -> Event | None:
        """Take the client's next octets of the exchange; ask for more, or for the check."""
        try:
            credentials = step(octets)
        except AuthEnded as ended:
            return self._auth_ended(ended.reply)
        if credentials is None:
            self._challenge(self._auth.challenge)
            self.state = RESPONSE
            return None
        self.state = WAITING
        return LoginAttempt(self._mechanism, credentials)

    def _challenge(self, line: bytes) -> None:
        if self._trace is not None:
            self._trace(self._verb, 334)
        self._output += line

    def _auth_ended(self, reply: Reply) -> Event | None:
        self.state = COMMAND
        self._auth_refused(reply, is_failure=True)
        return LoginMalformed(self._mechanism)

    def _auth_refused(self, reply: Reply, *, is_failure: bool) -> Event | None:
        self._answer(reply)
        self._auth_failures += is_failure
        if self._auth_failures >= _MAX_AUTH_FAILURES:
            return self.close(replies.TOO_MANY_AUTH_FAILURES)
        return None

    # The transaction.

    def _mail(self, argument: str) -> Event | None:
        """MAIL (RFC 5321 §4.1.1.2), with SIZE, BODY, SMTPUTF8 and AUTH=."""
        if not self._greeted:
            return self._answer(replies.HELLO_FIRST)
        if self._login is None or self._is_by_address:
            try:
                return self._answer_about(self._mail_by_address(argument), argument)
            except CredentialBusy as busy:
                return self._credential_busy(busy.reply)
        if not self._transaction.has_begun:
            try:
                login = self._current_login(self._login)
            except CredentialBusy as busy:
                return self._credential_busy(busy.reply)
            if login is None:
                self._login = None
                return self.close(replies.LOG_IN_AGAIN)
            if login is not self._login:  # its settings have changed
                self._login = login
                self._sender_rules = login.sender_rules
            if limit := login.account.limits.max_message_bytes:
                self._transaction.limit(limit)
        answer = self._transaction.mail(argument)
        if self._sender_rules is not None:
            self._report_refused_sender()
            answer = self._check_sender(answer)
        return self._answer_about(answer, argument)

    def _mail_by_address(self, argument: str) -> Reply:
        """Begin a transaction of a client without a login, if its address may be one."""
        if self._transaction.has_begun:
            return replies.BAD_SEQUENCE
        self._report_refused_sender()
        self._login, self._is_by_address = None, False
        logins = self._without_password(self._client.address)
        if not logins:
            return self._login_first
        answer = self._transaction.mail(argument)
        if self._transaction.has_begun:
            login = choose_login(logins, self._transaction.envelope.reverse_path)
            if login is None:
                self._end_transaction()
                return replies.SENDER_CHOOSES_NONE
            limit = login.account.limits.max_message_bytes
            if limit and (refusal := self._transaction.limit(limit)) is not None:
                self._end_transaction()
                return refusal
            try:
                self._current_login(login)
            except CredentialBusy:
                self._end_transaction()
                raise
            self._is_by_address = True
            self._use(login)
            answer = self._check_sender(answer)
        return answer

    def _credential_busy(self, reply: Reply) -> Event | None:
        """A limit of the credential is reached: no message for now, or no session."""
        self._client.refuse(Refused.CREDENTIAL_BUSY, reply=reply)
        return self.close(reply) if reply.code == 421 else self._answer(reply)

    def _check_sender(self, answer: Reply) -> Reply:
        """Return the reply to MAIL, which was answered so far with `answer`."""
        transaction, rules = self._transaction, self._sender_rules
        if rules is None or answer is not replies.SENDER_OK:
            return answer
        envelope = transaction.envelope
        try:
            transaction.check = SenderCheck(rules, envelope)
        except SenderRefused as refused:
            self._client.sender = envelope.reverse_path
            self._client.refuse(Refused.SENDER_NOT_ALLOWED, refused.sender, refused.reply)
            self._end_transaction()
            return refused.reply
        return answer

    def _report_refused_sender(self) -> None:
        """Report it now: if the message that begins is accepted, the last one is forgotten."""
        if self._client.reason is Refused.SENDER_NOT_ALLOWED:
            self._client.report()

    def _rcpt(self, argument: str) -> Event | None:
        """RCPT (RFC 5321 §4.1.1.3).

        The provider sees the recipients only with the content, unless the account verifies
        recipients.
        """
        if self._login is None:
            return self._answer(self._login_first)
        answer = self._transaction.rcpt(argument)
        if answer is replies.RECIPIENT_OK and self._login.account.verifies:
            self.state = WAITING
            return RecipientAdded(self._outgoing())
        return self._answer_about(answer, argument)

    def _data_command(self, argument: str) -> Event | None:
        """DATA (RFC 5321 §4.1.1.4)."""
        if argument:
            return self._answer(replies.ARGUMENT_MALFORMED)
        refusal = self._auth_missing() or self._transaction.data_refusal()
        if refusal is None and not self.memory.has_room():
            refusal = replies.NO_ROOM
        if refusal is not None:
            return self._answer(refusal)
        self._collector = self._transaction.new_collector()
        self._data = DataReader(self._collector)
        self.state = DATA
        return self._answer(replies.SEND_CONTENT)

    def _bdat(self, argument: str) -> Event | None:
        """BDAT (RFC 3030): a refused chunk is still read to its end."""
        try:
            self._chunk = parse_chunk(argument)
        except BadChunk:
            return self.close(replies.ARGUMENT_MALFORMED)
        if self._chunk.size_bytes > _MAX_CHUNK_FACTOR * self._policy.max_message_bytes:
            return self.close(replies.TOO_LARGE)
        refusal = self._auth_missing() or self._transaction.chunk_refusal()
        if refusal is None and not (self._transaction.has_chunks or self.memory.has_room()):
            refusal = replies.NO_ROOM
        self._chunk_refusal = refusal
        self._collector = None if refusal else self._transaction.chunks
        self._remaining = self._chunk.size_bytes
        self.state = CHUNK
        return None

    def _auth_missing(self) -> Reply | None:
        return self._login_first if self._login is None else None

    @property
    def _login_first(self) -> Reply:
        """What a client hears that has not logged in (RFC 3207 §4, RFC 4954 §6)."""
        needs_tls = not self._may_authenticate and self._policy.tls_context is not None
        return replies.STARTTLS_FIRST if needs_tls else replies.AUTH_REQUIRED

    def _read_data(self) -> Event | None:
        if not self.unread_bytes:
            self.is_end_awaited = self._data.has_mistaken_end
            return _OCTETS_NEEDED
        rest = self._data.feed(self._octets(_PIECE_BYTES))
        if rest is None:
            return self._content_event(DATA)
        self._start -= len(rest)
        return self._complete(self._data.sink, is_stuffed=True)

    def _read_chunk(self) -> Event | None:
        if not self._remaining:
            return self._end_chunk()
        if not self.unread_bytes:
            return _OCTETS_NEEDED
        octets = self._octets(min(self._remaining, _PIECE_BYTES))
        self._remaining -= len(octets)
        if self._collector is None:
            return None
        self._collector.add(octets)
        return self._content_event(CHUNK)

    def _end_chunk(self) -> Event | None:
        collector, refusal = self._collector, self._chunk_refusal
        if collector is not None and self._chunk.is_last:
            return self._complete(collector, is_stuffed=False)
        self.state = COMMAND
        if collector is not None and not collector.is_too_large:
            return self._answer(replies.CHUNK_OK)
        self._transaction.fail()  # RFC 3030 §2: only RSET is accepted next
        answer = refusal or self._sender_refusal() or replies.TOO_LARGE
        self._answer(answer)
        return None if collector is None else self._refused(collector, answer)

    def _sender_refusal(self) -> Reply | None:
        """Return the reply if the header's sender was refused, and note why."""
        check = self._transaction.check
        refused = check.refused if check is not None else None
        if refused is None:
            return None
        reason = Refused.SENDER_NOT_ALLOWED if refused.sender else Refused.CONTENT_MALFORMED
        self._client.refuse(reason, refused.detail, refused.reply)
        return refused.reply

    def _content_event(self, state: State) -> Event | None:
        """Hand on content that exceeds the buffer; stop once the message is unacceptable."""
        collector = self._collector
        if collector is None or self._is_stopped:
            return None
        held = collector.held_bytes
        is_due = held > self._policy.buffer_bytes or (held > 0 and self._message is not None)
        if is_due and (check := self._transaction.check) is not None:
            is_settled = check.examine(collector, is_stuffed=state is DATA, is_last=False)
            if not is_settled:
                return None  # nothing goes out before the whole header is here
        if not collector.is_acceptable:
            self._is_stopped = True
            return None if self._message is None else Signal.CONTENT_UNACCEPTABLE
        if not is_due or (self._message is None and self.memory.may_gather()):
            return None
        octets = collector.take()
        if not octets:
            return None
        self._content_state, self.state = state, WAITING
        is_stuffed = state is DATA
        return ContentArrived(self._outgoing(), octets, is_stuffed, is_last=False)

    def _complete(self, collector: Collector, *, is_stuffed: bool) -> Event | None:
        """The message has been received to its end."""
        refusal = collector.refusal()
        if refusal is None and (check := self._transaction.check) is not None:
            check.examine(collector, is_stuffed=is_stuffed, is_last=True)
            refusal = collector.refusal()
        if refusal is not None:
            answer = self._sender_refusal() or _CONTENT_REFUSALS[refusal]
            self.state = COMMAND
            is_strict = self._policy.strict
            if answer is replies.BARE_LINE_ENDS and is_strict and self.unread_bytes:
                # What the client meant to be the end is unknown, and so what these octets are.
                answer = replies.BARE_LINE_ENDS_AND_MORE
                self.close(answer)
            else:
                self._answer(answer)
            refused = self._refused(collector, answer)
            self._end_transaction()
            return refused
        self.state = WAITING
        if self._message is not None:
            return ContentArrived(self._message, collector.take(), is_stuffed, is_last=True)
        return MessageComplete(self._outgoing(), collector.content())

    def _outgoing(self) -> Message:
        """Return the transaction's message, as events carry it."""
        if self._message is None:
            if self._login is None:
                raise RuntimeError("a message without a login")
            self._messages += 1
            message_id = f"{self._session_id}-{self._messages}"
            self._message = Message(
                self._login, self._transaction.envelope, message_id, client=self._client
            )
        return self._message

    def _refused(self, collector: Collector, answer: Reply) -> Event:
        message, self._message = self._outgoing(), None
        message.size_bytes = collector.size_bytes
        return MessageRefused(message, answer)

    def _end_transaction(self) -> Signal | None:
        """Begin anew; a message that was being handed on is dropped."""
        message, self._message = self._message, None
        self._is_stopped = False
        self._collector = None
        self._transaction = self._new_transaction()
        return None if message is None else Signal.TRANSACTION_DROPPED

    def _new_transaction(self) -> ClientTransaction:
        policy = self._policy
        return ClientTransaction(
            policy.max_message_bytes, policy.max_recipients, is_strict=policy.strict
        )


def _address_in(argument: str) -> str:
    """Return the sender that the argument of MAIL names, or ""."""
    try:
        return parse_path(argument, "FROM:")[0][:_MAX_NOTED]
    except BadPath:
        return ""


def _command_text(line: bytes) -> str | None:
    """Return a command line as text, or None if it holds control octets or is not UTF-8.

    LF ends it, with or without CRs before it: where content is never read as commands (I2), no
    intermediary can have taken the line for anything else. The first tab becomes a space. The
    argument of HELO and EHLO, which is only shown, may be in any character set.
    """
    octets = line.rstrip(b"\r\n")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        if not _HELLO.match(octets):
            return None
        text = octets.decode("latin-1")
    if text.isprintable():
        return text
    if _CONTROL_BUT_TAB.search(text):
        return None
    return _FIRST_SPACE.sub(" ", text, count=1)


def _strict_text(line: bytes) -> str | None:
    """Return a command line as text, or None if it is not a valid SMTP line."""
    if not line.endswith(b"\r\n"):
        return None
    try:
        text = line[:-2].decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or not _CONTROL.search(text) else None


def _always(reply: Reply) -> Callable[[ClientDialogue, str], Event | None]:
    return lambda dialogue, argument: dialogue._answer(reply)


_COMMANDS: dict[str, Callable[[ClientDialogue, str], Event | None]] = {
    "HELO": ClientDialogue._hello,
    "EHLO": ClientDialogue._hello,
    "STARTTLS": ClientDialogue._starttls,
    "AUTH": ClientDialogue._auth_command,
    "MAIL": ClientDialogue._mail,
    "RCPT": ClientDialogue._rcpt,
    "DATA": ClientDialogue._data_command,
    "BDAT": ClientDialogue._bdat,
    "RSET": ClientDialogue._rset,
    "QUIT": ClientDialogue._quit,
    "VRFY": ClientDialogue._vrfy,
    "NOOP": _always(replies.OK),  # RFC 5321 §4.1.1.9
    "HELP": _always(replies.HELP),  # §4.1.1.8
    "EXPN": _always(replies.COMMAND_NOT_IMPLEMENTED),  # §3.5.2
    "ETRN": _always(replies.COMMAND_NOT_IMPLEMENTED),  # RFC 1985: the relay has no queue
}
