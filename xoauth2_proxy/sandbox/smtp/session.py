"""One SMTP session as a state machine: octets in, flights of replies and an ending out.

Does no I/O: `connection` carries out what it decides, `commands` and `delivery` know what the
commands mean. As strict as a large provider, for a relay that gets by here must get by there.
RFC 5321, RFC 2920.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.behaviour import MAX_AUTH_LINE_BYTES
from xoauth2_proxy.sandbox.dialects import spoken
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.smtp import content_commands
from xoauth2_proxy.sandbox.smtp.commands import COMMANDS, TURNED_AWAY, UNKNOWN
from xoauth2_proxy.sandbox.smtp.content_commands import BdatChunk, Transaction
from xoauth2_proxy.sandbox.smtp.fault_injection import meet, run_and_spoil
from xoauth2_proxy.smtp.protocol import reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.sandbox.faults import Fault
    from xoauth2_proxy.sandbox.provider_state import ProviderState

_MAX_EXCHANGE_BYTES = 12_288  # RFC 4954 §4, without CRLF
_MAX_LINE_BYTES = MAX_AUTH_LINE_BYTES

_REFUSING = (b"4", b"5")
_EXCHANGE_TOO_LONG = reply(500, "5.6", "Authentication exchange line too long").encode()
_BAD_LINE = reply(500, "5.2", "Syntax error, lines end with CRLF").encode()
_BAD_CHARACTERS = reply(500, "5.2", "Syntax error, not UTF-8").encode()
_VIOLATION = reply(503, "5.0", "Protocol violation, wait for the reply").encode()
_STARTTLS_VIOLATION = reply(554, "5.0", "Protocol violation, octets behind STARTTLS").encode()


class Ending(Enum):
    """What the connection does once the replies are written."""

    NONE = 0
    CLOSE = 1
    ABORT = 2  # with a TCP RST, unwritten replies included
    FREEZE = 3  # read nothing any more
    UPGRADE = 4  # to TLS


class Session:
    """One client's session, from the greeting or from the TLS handshake to its end.

    After each call: take `take_replies()`, then obey `ending`; while `is_held`, call `release`
    after `hold_seconds`.
    """

    __slots__ = (
        "_answered",
        "_buffer",
        "_held_ending",
        "_position",
        "_reader",
        "_spoilers",
        "at",
        "auth_failures",
        "chunk",
        "claimed",
        "client",
        "ending",
        "expects",
        "held",
        "hold_seconds",
        "is_authenticated",
        "is_encrypted",
        "is_greeted",
        "is_held",
        "is_silent",
        "is_turned_away",
        "mailbox",
        "mechanism",
        "must_wait",
        "presumed",
        "provider",
        "replies",
        "transaction",
        "why",
    )

    def __init__(self, provider: ProviderState, *, is_encrypted: bool, client: str = "") -> None:
        self.provider = provider
        self.client = client  # address:port
        self.is_encrypted = is_encrypted
        self.is_greeted = False  # EHLO or HELO was answered
        self.is_turned_away = False  # by the greeting: nothing is left but QUIT
        self.is_silent = False  # for good: nothing is said to this client any more
        self.is_authenticated = False
        self.mailbox = ""  # lower case; who authenticated, or is trying to
        self.claimed = ""  # the mailbox of the latest login, good or not
        self.mechanism = ""
        self.at = b""  # the verb, or the step, that is being answered
        self.why = ""  # the real reason of the next refusal; "": it says so itself
        self.presumed = ""  # what a fault takes the token for, whatever it is; "": nothing
        self.auth_failures = 0
        self.transaction: Transaction | None = None
        self.chunk = BdatChunk(0, is_last=False, refusal=b"")
        self.expects: Callable[[Session, bytes], None] | None = None  # takes the next line
        self.must_wait = False  # the client may not send before the last reply has reached it
        self.replies: list[bytes] = []
        self.ending = Ending.NONE
        self.is_held = False
        self.hold_seconds = 0.0
        self.held: list[bytes] = []  # replies that wait for `release`
        self._held_ending = Ending.NONE
        self._answered = False  # a fault replied before the content was over
        self._spoilers: list[Fault] = []  # that the reply to what is being read will meet
        self._buffer = b""
        self._position = 0
        self._reader: Callable[[Session], bool] = Session._read_line

    @property
    def backlog_bytes(self) -> int:
        """How many octets were received and not looked at."""
        return len(self._buffer) - self._position

    @property
    def is_mid_flight(self) -> bool:
        """Whether the client has begun something that it must go on sending."""
        return self.backlog_bytes > 0 or self._reader is Session._read_chunk

    def greet(self) -> None:
        """Begin."""
        self.must_wait = True
        self.at = b"CONNECT"
        self.step(Step.CONNECT, "", Session._greet)

    def _greet(self, _: str) -> None:
        provider = self.provider
        self.say(spoken(f"220 {provider.behaviour.greeting or provider.dialect.greeting}"))

    def receive(self, octets: bytes) -> None:
        """Act on octets from the client."""
        self.must_wait = False
        backlog = self._buffer[self._position :]
        self._buffer = backlog + octets if backlog else octets
        self._position = 0
        self._run()

    def release(self) -> None:
        """End a hold: give the held replies free and go on."""
        self.is_held = False
        self.replies += self.held
        self.held = []
        self.hold_seconds = 0.0
        if self._held_ending is not Ending.NONE:
            self.end(self._held_ending)
            self._held_ending = Ending.NONE
        self._run()

    def take_replies(self) -> bytes:
        """Return the replies to be written now, as one flight."""
        replies = self.replies
        if not replies:
            return b""
        self.provider.counters.count_replies(replies)
        flight = b"".join(replies)
        replies.clear()
        return flight

    def abandon(self) -> None:
        """The connection is gone: let go of everything."""
        self._reader = Session._read_nothing
        self._buffer, self._position = b"", 0
        self.end_transaction()
        if self.is_authenticated:
            self.is_authenticated = False
            self.provider.counters.mailbox_closed(self.mailbox)
            if self.provider.limits is not None:
                self.provider.limits.leave(self.mailbox, self)

    def violate(self) -> None:
        """The client sent when it had to wait: say so and close."""
        if self.ending is Ending.NONE and not self.is_silent:
            self.say(_VIOLATION)
            self.close()

    # What the commands use.

    def say(self, octets: bytes) -> None:
        """Add a reply to the flight, as this provider words it."""
        self.say_verbatim(self.provider.dialect.worded(octets))

    def refuse(self, octets: bytes, why: str) -> None:
        """Add a refusal whose real reason is `why`, whatever its words are."""
        self.why = why
        self.say(octets)

    def say_verbatim(self, octets: bytes) -> None:
        """Add what somebody has chosen to the flight."""
        if octets[:1] in _REFUSING:
            self.note_refusal(octets)
        self.replies.append(octets)

    def note_refusal(self, octets: bytes, why: str = "") -> None:
        """Remember that this was said, or done, in place of what the client wanted."""
        mailbox = self.mailbox or self.claimed
        why, self.why = why or self.why, ""
        self.provider.refusals.add(self.client, mailbox, self.at.decode(), octets, why)

    def end(self, ending: Ending) -> None:
        """Stop reading commands; `ending` follows once the replies are written."""
        self.ending = ending
        self._reader = Session._read_nothing

    def close(self) -> None:
        """Stop reading commands; close once the replies are written."""
        self.end(Ending.CLOSE)

    def upgrade(self) -> None:
        """Stop reading commands; start TLS once the replies are written."""
        self.end(Ending.UPGRADE)

    def end_transaction(self) -> None:
        """Forget the transaction and what came of its content."""
        if self.transaction is not None:
            self.transaction.discard()
            self.transaction = None

    def step(self, step: Step, argument: str, run: Callable[[Session, str], None]) -> None:
        """Do `run`, or what the fault placed at this step says."""
        fault = self.provider.arrive(step, self.mailbox, argument)
        if fault is None:
            run(self, argument)
        else:
            meet(self, fault, argument, run)

    def read_data(self) -> None:
        """Take what follows as the content of DATA."""
        self._reader = Session._read_data

    def read_chunk(self, chunk: BdatChunk) -> None:
        """Take what follows as a chunk of BDAT."""
        self.chunk = chunk
        if self._reader is Session._read_line:  # not when a fault has ended the session
            self._reader = Session._read_chunk

    def hold(self, mark: int, seconds: float) -> None:
        """Keep the replies from `mark` on for so long, and look at nothing behind them before."""
        if self.is_held:
            seconds += self.hold_seconds
        self.is_held, self.hold_seconds = True, seconds
        self.held += self.replies[mark:]
        del self.replies[mark:]
        if self.ending is not Ending.NONE:
            self._held_ending, self.ending = self.ending, Ending.NONE

    def close_in_turn(self) -> None:
        """Close once all replies are written, those on hold included."""
        if self.is_silent:
            return
        if self.is_held:
            self._held_ending = Ending.CLOSE
        else:
            self.close()

    def abort(self) -> None:
        """Close with a TCP RST, whatever is unwritten."""
        self.end(Ending.ABORT)

    def freeze(self) -> None:
        """Neither read nor answer any more."""
        self.is_silent = True
        self.end(Ending.FREEZE)

    def stall(self) -> None:
        """Read on and answer nothing any more."""
        self.is_silent = True
        self._reader = Session._read_nothing

    def answer_early(self) -> None:
        """Note that what is being read has had its reply."""
        self._answered = True

    def answer_spoiled(self, fault: Fault) -> None:
        """Let the reply to what is being read meet this fault."""
        self._spoilers.append(fault)

    def turn_away(self) -> None:
        """Take nothing but QUIT any more (RFC 5321 §3.1)."""
        self.is_turned_away = True

    def _run(self) -> None:
        while not self.is_held and self._reader(self):
            pass
        if self._position:
            self._buffer, self._position = self._buffer[self._position :], 0

    # The readers: each consumes what it can and returns whether there is more to do now.

    def _read_nothing(self) -> bool:
        self._buffer, self._position = b"", 0
        return False

    def _read_line(self) -> bool:
        end = self._buffer.find(b"\n", self._position)
        if end < 0:
            if self.backlog_bytes > _MAX_LINE_BYTES:
                self._reader = Session._skip_line
                return True
            return False
        line = self._buffer[self._position : end]
        self._position = end + 1
        if line.find(b"\r") != len(line) - 1 or not line:
            self.say(_BAD_LINE)
            self.close()
        elif self.expects is None:
            self._take_command(line[:-1])
        else:
            self._take_exchange(line[:-1])
        return True

    def _skip_line(self) -> bool:
        end = self._buffer.find(b"\n", self._position)
        self._position = end + 1 if end >= 0 else len(self._buffer)
        if end < 0:
            return False
        self._reader = Session._read_line
        if self.expects is None:
            self.at = b"COMMAND"
        self.say(self._too_long() if self.expects is None else _EXCHANGE_TOO_LONG)
        self.expects = None
        return True

    def _too_long(self) -> bytes:
        return spoken(self.provider.dialect.line_too_long)

    def _take_exchange(self, line: bytes) -> None:
        expects, self.expects = self.expects, None
        if len(line) > _MAX_EXCHANGE_BYTES:
            self.say(_EXCHANGE_TOO_LONG)
        elif self.backlog_bytes:
            self.violate()
        elif expects is not None:
            self.must_wait = True
            expects(self, line)

    def _take_command(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        command = COMMANDS.get(verb, UNKNOWN)
        if self.is_turned_away and verb != b"QUIT":
            command = TURNED_AWAY
        provider = self.provider
        # Of an unknown verb nothing is remembered: it may be a token on the wrong line.
        self.at, self.why = (b"COMMAND" if command is UNKNOWN else verb), ""
        if len(line) > provider.short_line_bytes and len(line) + 2 > provider.max_line_bytes(verb):
            self.refuse(self._too_long(), _why_too_long(verb, len(line) + 2, provider))
            return
        try:
            argument = rest.decode().strip()
        except UnicodeDecodeError:
            self.say(_BAD_CHARACTERS)
            return
        must_wait = command.must_wait
        if not provider.has_pipelining:
            must_wait = verb != b"BDAT"
        if must_wait and self.backlog_bytes:
            self.say(_STARTTLS_VIOLATION if verb == b"STARTTLS" else _VIOLATION)
            self.close()
            return
        self.must_wait = must_wait
        if command.step is None:
            command.run(self, argument)
        else:
            self.step(command.step, argument, command.run)

    def _read_data(self) -> bool:
        transaction = self.transaction
        if transaction is None or not self.backlog_bytes:
            return False
        if not self._begin_content():
            return True
        end = transaction.reader.feed(self._buffer, self._position)
        self._position = end if end >= 0 else len(self._buffer)
        if end < 0:
            return False
        self._reader = Session._read_line
        self._answer(Session._end_data)
        return True

    def _end_data(self) -> None:
        self.at = b"END"
        if self._answered:
            self._answered = False
            content_commands.refuse(self)
        else:
            self.step(Step.END, "", content_commands.finish)

    def _read_chunk(self) -> bool:
        chunk = self.chunk
        transaction = None if chunk.refusal else self.transaction
        begins = transaction is not None and chunk.left_bytes and self.backlog_bytes
        if begins and not self._begin_content():
            return True
        piece = self._buffer[self._position : self._position + chunk.left_bytes]
        self._position += len(piece)
        chunk.left_bytes -= len(piece)
        if transaction is not None:
            transaction.receiver.add(piece)
        if chunk.left_bytes:
            return False
        self._reader = Session._read_line
        self._answer(Session._end_chunk)
        return True

    def _answer(self, run: Callable[[Session], None]) -> None:
        """Answer what was read, as the faults say that were met before its end."""
        if self._spoilers:
            spoiler = self._spoilers.pop(0)
            run_and_spoil(self, spoiler, "", lambda session, _: session._answer(run))
        else:
            run(self)

    def _end_chunk(self) -> None:
        chunk = self.chunk
        self.at = b"END" if chunk.is_last else b"BDAT"
        if self._answered:
            self._answered = False
            content_commands.fail_chunk(self, b"")
        elif chunk.refusal:
            content_commands.fail_chunk(self, chunk.refusal)
        elif chunk.is_last:
            self.step(Step.END, "", content_commands.finish)
        else:
            content_commands.take_chunk(self)

    def _begin_content(self) -> bool:
        """Return whether reading may go on at once: no fault stopped it."""
        transaction = self.transaction
        if transaction is not None and not transaction.has_content:
            transaction.has_content = True
            reader = self._reader
            self.at = b"CONTENT"
            self.step(Step.CONTENT, "", lambda session, _: None)
            return self._reader is reader and not self.is_held
        return True


def _why_too_long(verb: bytes, octets: int, provider: ProviderState) -> str:
    most = provider.max_line_bytes(verb)
    if verb == b"AUTH":
        told = f"limit max_auth_line_bytes={most}: AUTH and its response are {octets} octets in one"
        return f"{told} line; send the response on a line of its own"
    return f"the command has {octets} octets, and {most} are allowed"
