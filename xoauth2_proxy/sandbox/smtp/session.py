"""Reads what a client sends in an SMTP session, and dispatches it (RFC 5321, RFC 2920).

As strict as a large provider, so that a relay that works here should work there. No I/O: `server`
passes in octets, writes the replies and acts on `ending`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.behaviour import MAX_AUTH_LINE_BYTES
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.smtp.commands import COMMANDS, TURNED_AWAY, UNKNOWN
from xoauth2_proxy.sandbox.smtp.content_commands import end_chunk, end_data
from xoauth2_proxy.sandbox.smtp.fault_injection import run_and_alter, run_step
from xoauth2_proxy.sandbox.smtp.session_state import Ending, Input, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.sandbox.smtp.session_state import Run

_MAX_EXCHANGE_BYTES = 12_288  # RFC 4954 §4, without CRLF
_MAX_LINE_BYTES = MAX_AUTH_LINE_BYTES

_EXCHANGE_TOO_LONG = "500 5.5.6 Authentication exchange line too long"
_VIOLATION = "503 5.5.0 Protocol violation, wait for the reply"


@dataclass(slots=True, eq=False)
class Session(SessionState):
    """A session that is driven by octets.

    After each call: take `take_replies()`, then obey `ending`; while `is_held`, call `release`
    after `hold_seconds`.
    """

    _buffer: bytes = b""
    _position: int = 0  # of the first octet not yet consumed

    @property
    def backlog_bytes(self) -> int:
        """The number of received octets not yet consumed."""
        return len(self._buffer) - self._position

    @property
    def is_mid_flight(self) -> bool:
        """Whether the client has begun something that it must go on sending."""
        return self.backlog_bytes > 0 or self.input is Input.CHUNK

    def greet(self) -> None:
        """Send the greeting."""
        self.must_wait = True
        self.at = b"CONNECT"
        provider = self.provider
        greeting = f"220 {provider.behaviour.greeting or provider.dialect.greeting}"
        run_step(self, Step.CONNECT, "", lambda session, _: greeting)

    def receive(self, octets: bytes) -> None:
        """Act on octets from the client."""
        self.must_wait = False
        backlog = self._buffer[self._position :]
        self._buffer = backlog + octets if backlog else octets
        self._position = 0
        self._run()

    def release(self) -> None:
        """End a hold: release the held replies and read on."""
        self.is_held = False
        self.replies += self.held
        self.held = []
        self.hold_seconds = 0.0
        if self.held_ending is not Ending.NONE:
            self.end(self.held_ending)
            self.held_ending = Ending.NONE
        self._run()

    def take_replies(self) -> bytes:
        """Return the replies to write now, as one flight."""
        if not self.replies:
            return b""
        self.provider.counters.count_replies(self.replies)
        flight = b"".join(self.replies)
        self.replies.clear()
        return flight

    def abandon(self) -> None:
        """Release everything: the connection is lost, or starts again after STARTTLS."""
        self.input = Input.NOTHING
        self._buffer, self._position = b"", 0
        self.end_transaction()
        if self.is_authenticated:
            self.is_authenticated = False
            self.provider.counters.mailbox_closed(self.mailbox)
            if self.provider.limits is not None:
                self.provider.limits.leave(self.mailbox, self)

    def violate(self) -> None:
        """Refuse octets that the client sent when it had to wait, and close."""
        if self.ending is Ending.NONE and not self.is_silent:
            self.say(_VIOLATION)
            self.close()

    def _run(self) -> None:
        while not self.is_held and _READERS[self.input](self):
            pass
        if self._position:
            self._buffer, self._position = self._buffer[self._position :], 0

    # The readers: each consumes what it can and returns whether there may be more to do now.

    def _read_nothing(self) -> bool:
        self._buffer, self._position = b"", 0
        return False

    def _read_line(self) -> bool:
        end = self._buffer.find(b"\n", self._position)
        if end < 0:
            if self.backlog_bytes <= _MAX_LINE_BYTES:
                return False
            self.input = Input.LONG_LINE
            return True
        line = self._buffer[self._position : end]
        self._position = end + 1
        if line.find(b"\r") != len(line) - 1 or not line:
            self.say("500 5.5.2 Syntax error, lines end with CRLF")
            self.close()
        elif self.expects is None:
            self._take_command(line[:-1])
        else:
            self._take_response(line[:-1])
        return True

    def _skip_line(self) -> bool:
        end = self._buffer.find(b"\n", self._position)
        self._position = end + 1 if end >= 0 else len(self._buffer)
        if end < 0:
            return False
        self.input = Input.LINE
        if self.expects is None:
            self.at = b"COMMAND"
            self.say(self.provider.dialect.line_too_long)
        else:
            self.expects = None
            self.say(_EXCHANGE_TOO_LONG)
        return True

    def _take_response(self, line: bytes) -> None:
        expects, self.expects = self.expects, None
        if len(line) > _MAX_EXCHANGE_BYTES:
            self.say(_EXCHANGE_TOO_LONG)
        elif self.backlog_bytes:
            self.violate()
        elif expects is not None:
            self.must_wait = True
            self.say(expects(self, line))

    def _take_command(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        command = COMMANDS.get(verb, UNKNOWN)
        if self.is_turned_away and verb != b"QUIT":
            command = TURNED_AWAY
        provider = self.provider
        # An unknown verb is not recorded: it may be a token on the wrong line.
        self.at, self.why = (b"COMMAND" if command is UNKNOWN else verb), ""
        if len(line) > provider.short_line_bytes and (why := self._why_too_long(verb, len(line))):
            self.why = why
            self.say(provider.dialect.line_too_long)
            return
        try:
            argument = rest.decode().strip()
        except UnicodeDecodeError:
            self.say("500 5.5.2 Syntax error, not UTF-8")
            return
        must_wait = command.must_wait if provider.has_pipelining else verb != b"BDAT"
        if must_wait and self.backlog_bytes:
            self.say(
                "554 5.5.0 Protocol violation, octets after STARTTLS"
                if verb == b"STARTTLS"
                else _VIOLATION
            )
            self.close()
            return
        self.must_wait = must_wait
        if command.step is None:
            self.say(command.run(self, argument))
        else:
            run_step(self, command.step, argument, command.run)

    def _why_too_long(self, verb: bytes, line_bytes: int) -> str:
        """Return why a command line is too long; "" if it is not."""
        octets, most = line_bytes + len(b"\r\n"), self.provider.max_line_bytes(verb)
        if octets <= most:
            return ""
        if verb != b"AUTH":
            return f"the command has {octets} octets, and {most} are allowed"
        return (
            f"limit max_auth_line_bytes={most}: AUTH and its response are {octets} octets in one "
            "line; send the response on a line of its own"
        )

    def _read_data(self) -> bool:
        transaction = self.transaction
        if transaction is None or not self.backlog_bytes:
            return False
        if not self._begin_content():
            return True
        end = transaction.decoder.feed(self._buffer, self._position)
        self._position = end if end >= 0 else len(self._buffer)
        if end < 0:
            return False
        self.input = Input.LINE
        self.at = b"END"
        self.say(self._reply_to_content(end_data))
        return True

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
        self.input = Input.LINE
        self.at = b"END" if chunk.is_last else b"BDAT"
        self.say(self._reply_to_content(end_chunk))
        return True

    def _begin_content(self) -> bool:
        """Run the faults at the start of content; return whether reading may go on at once."""
        transaction = self.transaction
        if transaction is None or transaction.has_content:
            return True
        transaction.has_content = True
        before, self.at = self.input, b"CONTENT"
        run_step(self, Step.CONTENT, "", lambda session, _: "")
        return self.input is before and not self.is_held

    def _reply_to_content(self, run: Run) -> str:
        """Reply to the content after applying the pending faults."""
        if not self.pending_faults:
            return run(self, "")
        fault = self.pending_faults.pop(0)
        run_and_alter(self, fault, "", lambda session, _: self._reply_to_content(run))
        return ""


_READERS: dict[Input, Callable[[Session], bool]] = {
    Input.LINE: Session._read_line,
    Input.LONG_LINE: Session._skip_line,
    Input.DATA: Session._read_data,
    Input.CHUNK: Session._read_chunk,
    Input.NOTHING: Session._read_nothing,
}
