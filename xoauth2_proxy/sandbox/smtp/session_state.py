"""The state of one SMTP session, and the replies that commands and faults add to it.

Contains no I/O and reads no input: `session` interprets the client's octets, `connection` writes
the replies and does what the ending says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.smtp.transaction import BdatChunk

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from xoauth2_proxy.sandbox.faults import Fault
    from xoauth2_proxy.sandbox.provider_state import ProviderState
    from xoauth2_proxy.sandbox.smtp.transaction import Transaction

    # What a command does with its argument: it returns its reply, or "" if it has said it itself.
    Run: TypeAlias = Callable[["SessionState", str], str]

_REFUSING = (b"4", b"5")


class Input(IntEnum):  # Enum's own hash is a Python function, and readers are found by it
    """How the client's next octets are read."""

    LINE = 0  # a command, or a response of an AUTH exchange
    LONG_LINE = 1  # the rest of a line that is too long, which is discarded
    DATA = 2
    CHUNK = 3
    NOTHING = 4  # octets are discarded


class Ending(Enum):
    """What the connection does once the replies are written."""

    NONE = 0
    CLOSE = 1
    ABORT = 2  # with a TCP RST; unwritten replies are lost
    FREEZE = 3  # stop reading
    UPGRADE = 4  # to TLS


@dataclass(slots=True, eq=False)
class SessionState:
    """One client's session, from the greeting or from the TLS handshake to its end."""

    provider: ProviderState
    is_encrypted: bool = field(kw_only=True)
    client: str = field(default="", kw_only=True)  # address:port
    input: Input = Input.LINE
    ending: Ending = Ending.NONE
    is_greeted: bool = False  # EHLO or HELO was answered
    is_turned_away: bool = False  # the greeting refused: only QUIT is accepted
    is_silent: bool = False  # this client gets no further reply
    must_wait: bool = False  # the client may not send before it has the last reply

    is_authenticated: bool = False
    mailbox: str = ""  # lower case; who authenticated, or is trying to
    claimed: str = ""  # the mailbox of the latest login, good or not
    mechanism: str = ""
    auth_failures: int = 0
    expects: Callable[[SessionState, bytes], str] | None = None  # takes the next AUTH response
    refuses_token: bool = False  # a fault treats the token as bad, whatever it is

    transaction: Transaction | None = None
    chunk: BdatChunk = field(default_factory=lambda: BdatChunk(0, is_last=False, refusal=""))
    is_answered: bool = False  # a fault replied before the content was complete
    pending_faults: list[Fault] = field(default_factory=list)  # for the reply to the content

    replies: list[bytes] = field(default_factory=list)
    is_held: bool = False
    hold_seconds: float = 0.0
    held: list[bytes] = field(default_factory=list)  # replies that wait for the end of the hold
    held_ending: Ending = Ending.NONE

    at: bytes = b""  # the verb or the step that is being answered
    why: str = ""  # the real reason of the next refusal; "": the reply says it

    def say(self, reply: str) -> None:
        """Add a reply, its lines with their codes, as this provider ends it; "" adds none."""
        if reply:
            self.say_verbatim(self.provider.dialect.encode(reply))

    def say_verbatim(self, octets: bytes) -> None:
        """Add these octets to the replies as they are."""
        if octets[:1] in _REFUSING:
            self.note_refusal(octets)
        self.replies.append(octets)

    def say_late(self, octets: bytes, seconds: float) -> None:
        """Add these octets to the replies, held for so long."""
        mark = len(self.replies)
        self.say_verbatim(octets)
        if seconds > 0.0:
            self.hold(mark, seconds)

    def note_refusal(self, octets: bytes, why: str = "") -> None:
        """Record that this was said, or done, instead of what the client wanted."""
        mailbox = self.mailbox or self.claimed
        why, self.why = why or self.why, ""
        self.provider.refusals.add(self.client, mailbox, self.at.decode(), octets, why)

    def hold(self, mark: int, seconds: float) -> None:
        """Hold the replies from index `mark` on; until they are released, read no input."""
        if self.is_held:
            seconds += self.hold_seconds
        self.is_held, self.hold_seconds = True, seconds
        self.held += self.replies[mark:]
        del self.replies[mark:]
        if self.ending is not Ending.NONE:
            self.held_ending, self.ending = self.ending, Ending.NONE

    def end(self, ending: Ending) -> None:
        """Read no further command; `ending` follows once the replies are written."""
        self.ending, self.input = ending, Input.NOTHING

    def close(self) -> None:
        """Read no further command, and close once the replies are written."""
        self.end(Ending.CLOSE)

    def end_transaction(self, *, is_refused: bool = False) -> None:
        """Discard the transaction and its content; count it if its content was refused."""
        self.provider.counters.transactions_refused += is_refused
        if self.transaction is not None:
            self.transaction.receiver.discard()
            self.transaction = None
