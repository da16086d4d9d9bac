"""The relay's half of an SMTP dialogue with a provider, as a state machine without I/O.

The caller begins a step, writes what `take` returns, passes received octets to `feed`, and reads
`result` when it is there. `upstream.connection` is the transport around it.

I1: every reply answers the oldest command that has none (RFC 2920 §3.1). A reply to no command, or
octets that are no reply, end the dialogue: replies matched to the wrong commands are worse than a
lost connection.
I2: a message counts as delivered only after a 250 that cannot be the reply to another command.
I3: what the loss of the connection means depends on the state (`_LOSS`), unless a reply has said
already what became of the message (`lose`).
I4: what replies mean does not depend on how they are cut into packets.
I5: a message goes to all of its recipients or to none; its content leaves only after an accepted
envelope, except in one flight to a single recipient.
RFC 5321 §3.3, §4.1.4, §4.2; RFC 2920; RFC 3030.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import (
    OutcomeUnknown,
    UpstreamClosedEarly,
    UpstreamDropped,
    UpstreamError,
)
from xoauth2_proxy.smtp.protocol import MalformedReply, Reply, ReplyParser
from xoauth2_proxy.upstream.envelope import ends_session, joined, mail_command, rcpt_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Envelope

# Most content sent before the envelope is accepted; a refusal wastes it.
ONE_FLIGHT_BYTES = 262_144
_PIECE_BYTES = 65_536  # of content for each `take`, so that it waits here and not in the transport


class State(Enum):
    """What is under way, and so what may be sent and what a reply or a loss means."""

    READY = auto()  # every command has its reply
    COMMAND = auto()  # a lone command is out
    ENVELOPE = auto()  # MAIL and RCPT are out, perhaps DATA behind them
    GO_AHEAD = auto()  # DATA is out by itself
    GRANTED = auto()  # content may go, none has
    CONTENT = auto()  # content has gone, not all of it
    FLIGHT = auto()  # the envelope and all of the content are out
    FINAL = auto()  # all of the content is out, after its envelope was accepted
    CLOSED = auto()  # nothing can be sent any more

    __hash__ = object.__hash__  # Enum's own is a Python function, and the tables are asked often


class Command(Enum):
    """What a reply is awaited for."""

    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    END = auto()  # the final dot of DATA, or the last octet of BDAT LAST
    RECIPIENT = auto()  # a RCPT by itself: its reply ends the step, whatever it is
    OTHER = auto()  # AUTH and its responses: the caller judges the reply

    __hash__ = object.__hash__  # as above


# As globals, since an Enum's attribute costs several times as much.
READY, COMMAND, ENVELOPE, GO_AHEAD, GRANTED, CONTENT, FLIGHT, FINAL, CLOSED = State
RSET, MAIL, RCPT, DATA, END, RECIPIENT, OTHER = Command

# From which states a step may begin.
_MAY_BEGIN = {
    COMMAND: (READY,),
    ENVELOPE: (READY,),
    GO_AHEAD: (READY,),
    CONTENT: (GRANTED, CONTENT),
    FINAL: (GRANTED, CONTENT),
}

# I3. Before content leaves, nothing can have been delivered. While it is incomplete, the provider
# must discard it (RFC 5321 §4.1.1.4, RFC 3030 §2). Once it is complete, only the reply can tell.
_LOSS: dict[State, type[UpstreamError]] = {
    READY: UpstreamClosedEarly,
    COMMAND: UpstreamClosedEarly,
    ENVELOPE: UpstreamClosedEarly,
    GO_AHEAD: UpstreamClosedEarly,
    GRANTED: UpstreamClosedEarly,
    CONTENT: UpstreamDropped,
    FLIGHT: OutcomeUnknown,
    FINAL: OutcomeUnknown,
}

# The first digits of the replies that can answer a command; others are out of order.
_MAY_ANSWER: dict[Command, tuple[int, ...]] = {
    RSET: (2,),  # or 421; never refused (RFC 5321 §4.3.2), unless replies are out of step
    MAIL: (2, 4, 5),
    RCPT: (2, 4, 5),
    DATA: (3, 4, 5),  # of 3yz only 354; a 2yz must not pass for the message's (I2)
    END: (2, 4, 5),
    RECIPIENT: (2, 4, 5),
    OTHER: (2, 3, 4, 5),
}


class Dialogue:
    """One connection's dialogue, from the first command after EHLO to its end.

    A step is one of `command`, `send_message`, `begin`, `add_recipient`, `ask_for_go_ahead`,
    `end_content`. It ends when `result` is set: to the provider's reply, or to an error.
    """

    def __init__(self, extensions: Mapping[str, str]) -> None:
        self.extensions = extensions  # EHLO keywords in upper case, with their parameters
        self.state = READY
        self.ending = ""  # why the dialogue ended; "" while it goes on
        self.result: Reply | UpstreamError | None = None  # of the step; reset when it is collected
        self.early_refusal: Reply | None = None  # a 4yz or 5yz that came amid content
        self.is_spent = False  # the provider's reply says that nothing further can be sent
        self.is_content_out = False  # all of the present transaction's content was taken
        self.needs_reset = False  # a transaction is still open: RSET before the next MAIL
        self.transactions = 0  # begun in this dialogue
        self._parser = ReplyParser()
        self._expected: deque[Command] = deque()  # those that have no reply yet
        self._queue: deque[tuple[Command, bytes]] = deque()  # commands to send one by one
        self._output: list[bytes] = []
        self._content: Content | None = None
        self._rest = memoryview(b"")  # content that is not written yet
        self._held: list[Reply] = []  # until it is known what follows them
        self._closing: UpstreamClosedEarly | None = None  # 421 to MAIL, in one flight
        self._is_premature = False
        self._final_by_bdat = False
        self._is_granted = False
        self._recipients: list[str] = []
        self._judged = 0  # how many of them have a reply
        self._refusals: list[tuple[str, Reply]] = []
        self._sender_refusal: Reply | None = None

    @property
    def awaited_replies(self) -> int:
        """How many replies are awaited."""
        return len(self._expected)

    # Steps.

    def command(self, line: bytes) -> None:
        """Send one command, or the response to a challenge. The result is the reply."""
        self._begin_step(COMMAND)
        self._send(OTHER, line)

    def send_message(self, envelope: Envelope, content: Content, *, is_fresh: bool) -> None:
        """Send a message in as few round trips as the provider allows.

        One: MAIL, RCPT, BDAT LAST and the content in one flight, to one recipient on a connection
        that `is_fresh` (an older one may be dead: content that left on it could neither be sent
        again nor be called delivered). Two: MAIL and RCPT, then BDAT; or MAIL, RCPT and DATA, then
        the content. Without PIPELINING, one for each command.

        The result is the final reply or the refusal of the envelope; the message goes to every
        recipient or to none. Raises `ExtensionMissing`; then nothing was sent.
        """
        octets = content.octets
        recipients = envelope.forward_paths
        sender = mail_command(envelope, self.extensions, len(octets), octets.isascii)
        commands = self._envelope(envelope, sender, recipients)
        may_pipeline, may_chunk = "PIPELINING" in self.extensions, self._may_chunk
        self._begin_transaction(recipients)
        self._content = content
        if not may_pipeline:
            self._send_in_turn(commands)
            return
        is_alone = len(recipients) == 1
        # A refused RSET would leave it unknown whether what flew along was delivered.
        may_fly = may_chunk and is_fresh and is_alone and not self.needs_reset
        if may_fly and len(octets) <= ONE_FLIGHT_BYTES:
            body = content.for_bdat()
            commands.append((END, b"BDAT %d LAST\r\n" % len(body) + body))
            self._final_by_bdat = self.is_content_out = True
            self.state = FLIGHT
        elif not may_chunk:
            commands.append((DATA, b"DATA\r\n"))
        self._send_all(commands)

    def begin(self, envelope: Envelope, recipients: list[str]) -> None:
        """Send MAIL, and RCPT for these recipients, for content that is still arriving.

        The result is a 2yz or the refusal of the envelope. Raises `ExtensionMissing`.
        """
        sender = mail_command(envelope, self.extensions, envelope.size_bytes)
        commands = self._envelope(envelope, sender, recipients)
        self._begin_transaction(recipients)
        if "PIPELINING" in self.extensions:
            self._send_all(commands)
        else:
            self._send_in_turn(commands)

    def add_recipient(self, envelope: Envelope) -> None:
        """Send RCPT for the envelope's last recipient. The result is its reply.

        Raises `ExtensionMissing`; then nothing was sent.
        """
        command = rcpt_command(envelope, len(envelope.forward_paths) - 1, self.extensions)
        self._begin_step(COMMAND)
        self._send(RECIPIENT, command)

    def ask_for_go_ahead(self) -> None:
        """Send DATA. The result is a refusal or the 354."""
        self._begin_step(GO_AHEAD)
        self._send(DATA, b"DATA\r\n")

    def add_content(self, octets: bytes) -> None:
        """Send content that is not the last, as DATA frames it."""
        self._begin_step(CONTENT)
        self._output.append(octets)

    def end_content(self, octets: bytes) -> None:
        """Send the octets that end the content. The result is the final reply."""
        self._begin_step(FINAL)
        self._output.append(octets)
        self._await_final_reply()

    # Output and input.

    def take(self) -> bytes:
        """Return the octets to write next, b"" if there are none at present.

        Content comes in pieces: take the next one when the transport has written the last.
        """
        if self._output:
            octets = b"".join(self._output)
            self._output.clear()
            return octets
        if not self._rest:
            return b""
        piece, self._rest = self._rest[:_PIECE_BYTES], self._rest[_PIECE_BYTES:]
        if self._rest:
            self.state = CONTENT
        else:
            self._rest = memoryview(b"")  # an empty slice would keep the whole message
            self.state = FINAL
            self._await_final_reply()
        return bytes(piece)

    def feed(self, octets: bytes) -> None:
        """Take octets from the provider; `result` and `take` may have something new after it."""
        if self.state is CLOSED:
            return
        try:
            replies = self._held + self._parser.feed(octets)
        except MalformedReply as error:
            self.lose(str(error))
            return
        self._held = []
        awaited = len(self._expected)
        closing = self._unasked(replies[awaited:]) if len(replies) > awaited else None
        if closing is not None:
            del replies[awaited:]
        # The beginning of a reply to no command counts as one: more of it will come.
        has_rest = self._parser.is_mid_reply and not self._takes_content
        surplus = len(replies) - awaited + has_rest
        if has_rest and len(replies) == awaited > 0 and self._parser.may_become("421"):
            self._held = replies  # a 421 is no surplus
            return
        # Which reply is the extra one cannot be known, so they count only if all have the same
        # first digit. Of a message's final reply no surplus is believed: another command's reply
        # may have taken its place (I2).
        if surplus > 0 and (self._awaits_delivery or len({one.code // 100 for one in replies}) > 1):
            replies = []
        for reply in replies[:awaited]:
            self._answer(reply)
            if self.ending:
                return
        if surplus > 0:
            # Its text is not told: a provider that does not know AUTH may echo a token.
            self.lose("a reply that no command asked for")
        elif closing is not None:
            self._hear_unasked(closing)

    def _unasked(self, surplus: list[Reply]) -> Reply | None:
        """Return a reply that no command asked for and that yet makes sense, or None.

        A provider may announce the end of the session with 421 at any time (RFC 5321 §3.8), and may
        refuse content once 354 has allowed it.
        """
        if self._parser.is_mid_reply:
            return None
        if self._takes_content or (self._expected and self._expected[-1] is DATA):
            return surplus[0] if all(one.code >= 400 for one in surplus) else None
        is_end = len(surplus) == 1 and surplus[0].code == 421 and self._expected
        return surplus[0] if is_end else None

    def _hear_unasked(self, reply: Reply) -> None:
        if self.state is GRANTED:
            self.result = None  # of a 354 that has not been collected
        if self.state is CONTENT or (self.state is GRANTED and reply.code != 421):
            self.early_refusal = reply
        self.lose(f"closed by the provider: {reply.code}")

    @property
    def _takes_content(self) -> bool:
        return self.state in (GRANTED, CONTENT)

    def lose(self, reason: str) -> None:
        """Note that the connection is lost, or must be. The result says what that means (I3)."""
        if self.state is CLOSED:
            return
        state, self.state, self.ending = self.state, CLOSED, reason
        self._output.clear()
        self._rest = memoryview(b"")
        if self.result is not None:
            pass  # settled, and not yet collected: what comes after a reply does not undo it
        elif self.early_refusal is not None:
            self.result = self.early_refusal
        elif state is FLIGHT and self._closing is not None:
            self.result = self._closing
        elif state is FLIGHT and (refusal := self._refusal()) is not None:
            # The only recipient, or the sender, was refused before the loss: nothing was delivered.
            self.result = refusal
        else:
            self.result = _LOSS[state](reason)

    # Beginning.

    @property
    def _may_chunk(self) -> bool:
        # Without enhanced codes the final reply cannot be told from a second reply to RCPT (I2).
        return "CHUNKING" in self.extensions and "ENHANCEDSTATUSCODES" in self.extensions

    @property
    def _awaits_delivery(self) -> bool:
        return self.state in (FLIGHT, FINAL)

    def _envelope(
        self, envelope: Envelope, sender: bytes, recipients: list[str]
    ) -> list[tuple[Command, bytes]]:
        commands = [(MAIL, sender)]
        if self.needs_reset:
            commands.insert(0, (RSET, b"RSET\r\n"))
        commands += [
            (RCPT, rcpt_command(envelope, index, self.extensions))
            for index in range(len(recipients))
        ]
        return commands

    def _begin_transaction(self, recipients: list[str]) -> None:
        self._begin_step(ENVELOPE)
        self.transactions += 1
        self._recipients = recipients
        self._judged = 0
        self._content = None
        self._refusals = []
        self._sender_refusal = self._closing = None
        self._is_granted = self._final_by_bdat = False
        self._is_premature = self.is_content_out = False

    def _begin_step(self, state: State) -> None:
        # A step that begins elsewhere would take an earlier reply for its own (I1).
        if self.state not in _MAY_BEGIN[state]:
            raise RuntimeError(f"{state.name} cannot follow {self.state.name}")
        self.result = None
        self.state = state

    def _await_final_reply(self) -> None:
        self._expected.append(END)
        self._is_premature = self._parser.is_mid_reply  # begun before the content was complete
        self.is_content_out = True

    def _send(self, command: Command, octets: bytes) -> None:
        self._expected.append(command)
        self._output.append(octets)

    def _send_all(self, commands: list[tuple[Command, bytes]]) -> None:
        for command, octets in commands:
            self._send(command, octets)

    def _send_in_turn(self, commands: list[tuple[Command, bytes]]) -> None:
        self._queue.extend(commands)
        self._send(*self._queue.popleft())

    # Replies.

    def _answer(self, reply: Reply) -> None:
        """Apply a reply to the oldest command that has none (I1)."""
        command = self._expected.popleft()
        code = reply.code
        may_answer = code // 100 in _MAY_ANSWER[command] or (command is RSET and code == 421)
        if not may_answer or (command is DATA and 354 != code < 400):
            self.lose(f"{command.name} was answered {reply}")
            return
        if command is END:
            self._answer_content(reply)
            return
        if command is RCPT:
            if code >= 400:
                self._refusals.append((self._recipients[self._judged], reply))
            self._judged += 1
        elif command is DATA:
            self._is_granted = code < 400
        elif command is MAIL or command is RSET:
            self._answer_opening(command, reply)
        if not self._expected and not self.ending:
            self._go_on(reply, is_opaque=command is OTHER)

    def _answer_opening(self, command: Command, reply: Reply) -> None:
        if reply.code == 421:
            # No transaction exists without MAIL (RFC 5321 §4.1.4), so nothing is in doubt – unless
            # the message that went along is answered otherwise.
            closing = UpstreamClosedEarly(f"{command.name}: {reply}", reply)
            if self.state is FLIGHT:
                self._closing = closing
            else:
                self.result = closing
                self.lose("closed by the provider")
        elif command is RSET:
            self.needs_reset = False
        elif reply.code < 400:
            self.needs_reset = True  # until the transaction ends well
        else:
            self._sender_refusal = reply
            self._queue.clear()

    def _answer_content(self, reply: Reply) -> None:
        """Take the reply to the whole message."""
        refusal = self._refusal()
        if self._closing is not None and not reply.is_positive:
            self.lose("closed by the provider")
        elif (refusal is not None or self._closing is not None) and reply.is_positive:
            self.result = OutcomeUnknown("the envelope was refused, but the message was accepted")
            self.lose("contradictory replies")
        elif refusal is not None:
            # BDAT behind a refused envelope is answered as well; the first refusal is the reason.
            self._finish(refusal)
        elif reply.is_positive and (self._is_premature or not self._may_mean_delivery(reply)):
            self.lose(f"not the reply to a message: {reply}")
        else:
            if reply.is_positive:
                self.needs_reset = False
            self._finish(reply)

    def _may_mean_delivery(self, reply: Reply) -> bool:
        """Whether a 2yz can only be the reply to the message (I2).

        RFC 3463 §3.2: x.1.z speaks of an address, so that one answers MAIL or RCPT. Behind BDAT a
        reply without an enhanced code may answer another command; behind DATA, 354 came between.
        """
        if reply.code != 250 or reply.enhanced.startswith("2.1."):
            return False
        return bool(reply.enhanced) or not self._final_by_bdat

    def _go_on(self, reply: Reply, *, is_opaque: bool) -> None:
        """Every reply awaited has come: send what follows, or end the step."""
        if self._queue:
            self._send(*self._queue.popleft())
        elif self.state is COMMAND:
            self.result, self.state = reply, READY
            self.is_spent = not is_opaque and ends_session(reply)
        elif (refusal := self._refusal()) is not None:
            if self._is_granted:
                # DATA went along with an envelope that was refused in part. Even an empty message
                # would reach the recipients that were accepted.
                self.result = refusal
                self.lose("the envelope was refused in part, but DATA was granted")
            else:
                self._finish(refusal)
        elif self._is_granted:
            self._begin_content(reply)
        elif reply.code >= 400:
            self._finish(reply)  # DATA was refused
        elif self._content is None:
            self._finish(reply)
        elif self._may_chunk:
            body = self._content.for_bdat()
            self._final_by_bdat = True
            self._write_content(b"BDAT %d LAST\r\n" % len(body) + body)
        else:
            self.state = GO_AHEAD
            self._send(DATA, b"DATA\r\n")

    def _begin_content(self, reply: Reply) -> None:
        self.state = GRANTED
        if self._content is None:
            self.result = reply
        else:
            self._write_content(self._content.for_data())

    def _write_content(self, octets: bytes) -> None:
        self.state = GRANTED
        self._rest = memoryview(octets)

    def _refusal(self) -> Reply | None:
        """Return the refusal of the envelope so far, or None."""
        if self._sender_refusal is not None:
            return self._sender_refusal
        if self._refusals:
            return joined(self._refusals, recipients=len(self._recipients))
        return None

    def _finish(self, result: Reply) -> None:
        self.result = result
        self.state = READY
        self.is_spent = ends_session(result)
        self._content = None
