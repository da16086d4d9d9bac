"""The state of one SMTP session: its transaction, content, and replies.

RFC 5321 §3.3, RFC 3030 §2. Contains no I/O: `session` interprets the client's octets, `server`
writes the replies and does what the ending says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from xoauth2_proxy.sandbox.faults import Fault
    from xoauth2_proxy.sandbox.message_store import MessageStore
    from xoauth2_proxy.sandbox.provider_state import ProviderState
    from xoauth2_proxy.smtp.protocol import Envelope

    # What a command does with its argument: it returns its reply, or "" if it has said it itself.
    Run: TypeAlias = Callable[["SessionState", str], str]

_REFUSING = (b"4", b"5")
_END_OF_DATA = b"\r\n.\r\n"  # RFC 5321 §4.1.1.4, and nothing else


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


class ContentReceiver:
    """The content of one message: its size, its digest and, while there is room, its octets."""

    def __init__(self, store: MessageStore, max_bytes: int) -> None:
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._store = store
        self._digest = hashlib.sha256()
        self._pieces: list[bytes] | None = []  # None: there is no room
        self._kept = 0  # octets reserved
        self._bare = 0  # line ends that are not CRLF
        self._ends_in_cr = False

    @property
    def is_too_large(self) -> bool:
        """Whether the content is larger than allowed."""
        return self.size_bytes > self._max_bytes

    @property
    def has_bare_line_ends(self) -> bool:
        """Whether there is a CR without LF or an LF without CR (RFC 5321 §2.3.8)."""
        return self._bare != 0

    @property
    def sha256(self) -> str:
        """The digest of all octets so far, in hexadecimal."""
        return self._digest.hexdigest()

    def add(self, piece: bytes) -> None:
        """Append octets of the content."""
        if not piece:
            return
        self.size_bytes += len(piece)
        if self.size_bytes > self._max_bytes:
            self.discard()
            return
        self._digest.update(piece)
        self._bare += _bare_line_ends(piece, self._ends_in_cr)
        self._ends_in_cr = piece.endswith(b"\r")
        if self._pieces is None:
            return
        if self._store.reserve(len(piece)):
            self._pieces.append(piece)
            self._kept += len(piece)
        else:
            self.discard()

    def take_content(self) -> bytes | None:
        """Return the octets, whose room remains reserved; None if there was no room."""
        if self._pieces is None:
            return None
        content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._kept = None, 0
        return content

    def discard(self) -> None:
        """Release the octets and their room."""
        self._pieces = None
        self._store.release(self._kept)
        self._kept = 0


class DataDecoder:
    """Finds the end of DATA across reads and undoes dot-stuffing (RFC 5321 §4.5.2)."""

    def __init__(self, receiver: ContentReceiver) -> None:
        self._receiver = receiver
        self._held = b"\r\n"  # may belong to the end of data; at first, the end of the DATA line
        self._virtual = 2  # that first CRLF is no content

    def feed(self, octets: bytes, start: int) -> int:
        """Take `octets[start:]`; return the index after the end of data, or -1."""
        held = len(self._held)
        raw = self._held + octets[start:]
        end = raw.find(_END_OF_DATA)
        if end >= 0:
            self._pass_on(raw[: end + 2])
            return start + end + len(_END_OF_DATA) - held
        # As much as may be the beginning of the end of data.
        keep = next(length for length in range(4, -1, -1) if raw.endswith(_END_OF_DATA[:length]))
        self._held = raw[len(raw) - keep :]
        self._pass_on(raw[: len(raw) - keep])
        return -1

    def _pass_on(self, raw: bytes) -> None:
        # `raw` never ends within CRLF or CRLF-dot, so no dot at a line's start is missed.
        if raw:
            self._receiver.add(raw.replace(b"\r\n.", b"\r\n")[self._virtual :])
            self._virtual = 0


def _bare_line_ends(piece: bytes, follows_cr: bool) -> int:
    """Return by how much CRs and LFs differ from CRLFs, once later pieces are counted too.

    A CR at the end counts as bare until the next piece starts with LF.
    """
    pairs = piece.count(b"\r\n")
    bare = piece.count(b"\r") + piece.count(b"\n") - 2 * pairs
    return bare - 2 if follows_cr and piece.startswith(b"\n") else bare


@dataclass(slots=True)
class Transaction:
    """The envelope and the content received so far."""

    envelope: Envelope
    receiver: ContentReceiver
    decoder: DataDecoder = field(init=False)
    recipients_tried: int = 0
    via: Literal["", "DATA", "BDAT"] = ""
    has_content: bool = False
    is_binary: bool = False  # BODY=BINARYMIME was declared (RFC 3030 §3)
    is_failed: bool = False  # a chunk was refused: only RSET helps (RFC 3030 §2)

    def __post_init__(self) -> None:
        self.decoder = DataDecoder(self.receiver)


@dataclass(slots=True)
class BdatChunk:
    """The octets that follow one BDAT command."""

    left_bytes: int  # not yet received
    is_last: bool = field(kw_only=True)
    refusal: str = field(kw_only=True)  # "": the octets are wanted
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = self.left_bytes


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
