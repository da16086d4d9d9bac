"""Collects, checks and frames a message's content, which arrives in chunks of any size.

No I/O, and nothing reads line by line: each chunk is searched and counted as a whole.
I1: only CRLF.CRLF ends DATA (RFC 5321 §4.1.1.4; CVE-2024-27305 and its family).
I2: content with a bare CR or a bare LF is never sent (RFC 5321 §2.3.8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

END_OF_DATA = b"\r\n.\r\n"
# A regular expression that begins with a literal is faster than `bytes.find`, `count` and `replace`
# (see docs/benchmarks.md), and is still one pass at C speed.
_END_OF_DATA = re.compile(re.escape(END_OF_DATA))
_DOT_LINE = re.compile(rb"\r\n\.")
_BARE_CR = re.compile(rb"\r[^\n]")
# One pass for all that is rare: a bare CR, and a line that begins with a dot, the end included. At
# the very end, where neither can be ruled out yet, a CR or CRLF matches as well.
_REMARKABLE = re.compile(rb"\r(?!\n[^.])")
_NO_LINE_END = bytes(octet for octet in range(256) if octet not in b"\r\n")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
_MAX_LOOKS = 64  # lines of one chunk that are looked at one by one
MAX_HEADER_BYTES = 16_384  # how far `message_id` looks


@dataclass(frozen=True, slots=True)
class Content:
    """A message's content as received: dot-stuffed from DATA, verbatim from BDAT."""

    octets: bytes  # ends with CRLF; without the final dot
    is_stuffed: bool
    may_have_dots: bool = True  # False: no line begins with a dot, so both forms are the same

    def for_bdat(self) -> bytes:
        """Return the octets as BDAT sends them (RFC 3030 §2): verbatim."""
        if not (self.is_stuffed and self.may_have_dots):
            return self.octets
        octets = _DOT_LINE.sub(b"\r\n", self.octets)
        return octets[1:] if octets.startswith(b".") else octets

    def for_data(self) -> bytes:
        """Return the octets as DATA sends them (RFC 5321 §4.5.2): stuffed, with the final dot."""
        if self.is_stuffed or not self.may_have_dots:
            return self.octets + b".\r\n"
        # With a CRLF in front, a dot at the very start is found like any other.
        return _DOT_LINE.sub(b"\r\n..", b"\r\n" + self.octets)[2:] + b".\r\n"


class DataFraming:
    """Turns content that arrives in chunks into what DATA sends (RFC 5321 §4.5.2)."""

    __slots__ = ("_is_stuffed", "_tail")

    def __init__(self, *, is_stuffed: bool) -> None:
        self._is_stuffed = is_stuffed
        self._tail = b"\r\n"  # the part of a CRLF with which the octets so far end

    def feed(self, chunk: bytes) -> bytes:
        """Return the octets to send for the next chunk."""
        window = self._tail + chunk[-2:] if self._is_stuffed else self._tail + chunk
        skipped = len(self._tail)
        if window.endswith(b"\r\n"):
            self._tail = b"\r\n"
        else:
            self._tail = b"\r" if window.endswith(b"\r") else b""
        if self._is_stuffed:
            return chunk
        return _DOT_LINE.sub(b"\r\n..", window)[skipped:]

    def finish(self) -> bytes:
        """Return the octets that end the content: the final dot, on a line of its own."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class LineEnds:
    """Checks, across chunks, that every CR is followed by LF and every LF preceded by CR."""

    __slots__ = ("_ends_in_cr", "is_clean")

    def __init__(self) -> None:
        self._ends_in_cr = False
        self.is_clean = True

    def add(self, chunk: bytes, *, is_plain: bool = False) -> None:
        """Check the next chunk; `is_plain`: it has no bare CR, unless at its end."""
        if not chunk or not self.is_clean:
            return
        ends = chunk.translate(None, _NO_LINE_END)
        returns = ends.count(b"\r")
        feeds = len(ends) - returns
        is_clean = is_plain or _BARE_CR.search(chunk) is None
        if self._ends_in_cr:
            # The CR that ended the last chunk must be followed by LF.
            is_clean = is_clean and chunk[0] == 0x0A
            feeds -= 1
        self._ends_in_cr = chunk[-1] == 0x0D
        if self._ends_in_cr:
            returns -= 1
        # Every CR has its LF, so equal counts mean that every LF has its CR.
        self.is_clean = is_clean and feeds == returns

    def finish(self) -> bool:
        """Return whether all line ends were CRLF; a CR at the very end is bare."""
        return self.is_clean and not self._ends_in_cr


class Refusal(Enum):
    """Why content cannot be relayed."""

    TOO_LARGE = auto()
    BARE_LINE_ENDS = auto()


class Collector:
    """Collects content, and checks its size and its line ends.

    Beyond `max_bytes`, or after a bare CR or LF, octets are counted but not kept.
    """

    __slots__ = ("_held", "_line_ends", "_max_bytes", "may_have_dots", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._held = bytearray()  # one buffer: a slow client would fill a list with tiny pieces
        self.may_have_dots = False  # whether a line may begin with a dot; `DataReader` sets it
        self._line_ends = LineEnds()
        self._max_bytes = max_bytes
        self.size_bytes = 0

    @property
    def is_too_large(self) -> bool:
        """Whether more than `max_bytes` arrived."""
        return self.size_bytes > self._max_bytes

    @property
    def has_clean_line_ends(self) -> bool:
        """Whether the complete content has no bare CR and no bare LF."""
        return self._line_ends.finish()

    def refusal(self) -> Refusal | None:
        """Return what is wrong with the complete content, or None."""
        if self.is_too_large:
            return Refusal.TOO_LARGE
        return None if self.has_clean_line_ends else Refusal.BARE_LINE_ENDS

    @property
    def is_acceptable(self) -> bool:
        """Whether nothing received so far makes the message unacceptable."""
        return not self.is_too_large and self._line_ends.is_clean

    def add(self, chunk: bytes, *, is_plain: bool = False) -> None:
        """Add the next octets; once the message is unacceptable, they are not kept.

        `is_plain` says that they are known to have no bare CR, but perhaps at their end.
        """
        self.size_bytes += len(chunk)
        self._line_ends.add(chunk, is_plain=is_plain)
        if not self.is_acceptable:
            self._held.clear()
            return
        self._held += chunk

    @property
    def held_bytes(self) -> int:
        """The number of octets collected since the last `take`."""
        return len(self._held)

    def take(self) -> bytes:
        """Return and remove the octets collected since the last call."""
        octets = bytes(self._held)
        self._held.clear()
        return octets

    def content(self, *, is_stuffed: bool) -> Content:
        """Return the collected content; a missing CRLF at the end is added.

        A next hop may use DATA, where content always ends with CRLF (RFC 3030 §3).
        """
        if self._held and not self._held.endswith(b"\r\n"):
            self._held += b"\r\n"
        return Content(bytes(self._held), is_stuffed, self.may_have_dots or not is_stuffed)


class DataReader:
    """Finds the end of DATA in a stream of chunks and returns the stuffed octets unchanged."""

    __slots__ = ("_not_content", "_sink", "_tail")

    def __init__(self, sink: Collector) -> None:
        self._sink = sink
        # The last octets, held back while they may be part of the end. The CRLF that ended the DATA
        # command counts as one of them, because empty content is just ".CRLF".
        self._tail = b"\r\n"
        self._not_content = len(self._tail)

    def feed(self, chunk: bytes) -> bytes | None:
        """Take a chunk; return the octets after the end of the data, or None before the end."""
        window = self._tail + chunk
        end, is_plain = self._end_of(window)
        if end >= 0:
            self._pass_on(window[:end], is_plain=is_plain)
            return window[end + len(".\r\n") :]
        kept = min(len(window), len(END_OF_DATA) - 1)
        self._pass_on(window[: len(window) - kept], is_plain=is_plain)
        self._tail = window[len(window) - kept :]
        return None

    def _end_of(self, window: bytes) -> tuple[int, bool]:
        """Return where the content ends, or -1, and whether it surely has no bare CR before."""
        last = len(window) - 1
        for number, match in enumerate(_REMARKABLE.finditer(window)):
            at = match.start()
            if window.startswith(END_OF_DATA, at):
                return at + 2, True
            is_bare = at < last and window[at + 1] != 0x0A
            self._sink.may_have_dots = self._sink.may_have_dots or at + 1 < last
            if is_bare or number == _MAX_LOOKS:
                end = _END_OF_DATA.search(window, at)
                return (-1 if end is None else end.start() + 2), False
        return -1, True

    def _pass_on(self, octets: bytes, *, is_plain: bool) -> None:
        if self._not_content:
            skipped = min(self._not_content, len(octets))
            self._not_content -= skipped
            octets = octets[skipped:]
        if octets:
            self._sink.add(octets, is_plain=is_plain)


def message_id(octets: bytes) -> str:
    """Return the value of the Message-ID field for the log, or "" if none is near the start."""
    header, _, _ = octets[:MAX_HEADER_BYTES].partition(b"\r\n\r\n")
    match = _MESSAGE_ID.search(header)
    return match[1].decode("ascii", "replace") if match else ""
