"""Collects, checks and frames a message's content, which arrives in chunks of any size.

No I/O, and nothing reads line by line: each chunk is searched and counted as a whole.
I1: only CRLF.CRLF ends DATA (RFC 5321 §4.1.1.4; CVE-2024-27305 and its family).
I2: a bare CR, a bare LF or a NUL is never sent (RFC 5321 §2.3.8, RFC 2045 §2.8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from io import IncrementalNewlineDecoder

from xoauth2_proxy.smtp.line_ends import LineEnds, TooManyCrs

END_OF_DATA = b"\r\n.\r\n"
# A regular expression that begins with a literal is faster than `bytes.find`, `count` and `replace`
# (see docs/benchmarks.md), and is still one pass at C speed.
_END_OF_DATA = re.compile(re.escape(END_OF_DATA))
_DOT_LINE = re.compile(rb"\r\n\.")
# A lone dot between line ends that are not both CRLF, behind which nothing has come.
_MISTAKEN_END = re.compile(rb"(?:(?<!\r)\n|\r)\.(?:\r\n?|\n)\Z|\r\n\.\n\Z")
# The same and QUIT: scripts send all at once. The dot was stuffed when its line end was repaired.
_MISTAKEN_END_AND_QUIT = re.compile(rb"\r\n\.\.\r\nQUIT\r?\n\Z", re.IGNORECASE)
_T_AND_LINE_END = (b"T\n", b"T\r\n", b"t\n", b"t\r\n")
_MESSAGE_ID = b"\nmessage-id:"
_FIELD_VALUE = re.compile(rb"(?:[ \t]|\r?\n(?=[ \t]))*(\S{1,998})")  # RFC 5322 §2.1.1, §2.2.3
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


class Refusal(Enum):
    """Why content cannot be relayed."""

    TOO_LARGE = auto()
    NUL = auto()
    BARE_LINE_ENDS = auto()


class Collector:
    """Collects content, checks its size and its octets, and repairs its line ends.

    Once the message cannot be relayed, octets are counted but not kept.
    """

    __slots__ = (
        "_behind",
        "_held",
        "_is_strict",
        "_line_ends",
        "_max_bytes",
        "_newlines",
        "_refusal",
        "is_stuffed",
        "may_have_dots",
        "size_bytes",
    )

    def __init__(self, max_bytes: int, *, is_strict: bool = False) -> None:
        """`is_strict`: content with a bare CR or LF is refused, not repaired."""
        self._held = bytearray()  # one buffer: a slow client would fill a list with tiny pieces
        self._newlines = IncrementalNewlineDecoder(None, translate=False)
        self._line_ends: LineEnds | None = None  # once a bare CR or LF was seen
        self._max_bytes = max_bytes
        self._is_strict = is_strict
        self._refusal: Refusal | None = None
        self._behind = b"\r\n"  # the last octets taken; the content begins at the start of a line
        self.is_stuffed = False  # `DataReader` sets it
        self.may_have_dots = False  # whether a line may begin with a dot; `DataReader` sets it
        self.size_bytes = 0  # as received

    @property
    def is_too_large(self) -> bool:
        """Whether more than `max_bytes` arrived, or would leave with the line ends repaired."""
        repaired_bytes = 0 if self._line_ends is None else self._line_ends.repaired_bytes
        return max(self.size_bytes, repaired_bytes) > self._max_bytes

    @property
    def is_acceptable(self) -> bool:
        """Whether nothing received so far makes the message unacceptable."""
        return self._refusal is None

    @property
    def is_repaired(self) -> bool:
        """Whether the content had a bare CR or LF, which was repaired."""
        return self._line_ends is not None

    def refusal(self) -> Refusal | None:
        """Return what is wrong with the content, or None. No more is added after it."""
        if self._refusal is None:
            self._newlines.decode("", final=True)  # a CR at the very end is bare
            if self._newlines.newlines in (None, "\r\n"):
                return None
            self._refusal = self._repair(b"", is_last=True)
        return Refusal.TOO_LARGE if self.is_too_large else self._refusal

    def add(self, chunk: bytes) -> None:
        """Add the next octets; once the message is unacceptable, they are not kept."""
        self.size_bytes += len(chunk)
        # The decoder notes which line ends it sees, in one pass and across chunks. ISO 8859-1 maps
        # each octet to one character.
        self._newlines.decode(chunk.decode("latin-1"))
        if (
            self.size_bytes <= self._max_bytes
            and self._newlines.newlines in (None, "\r\n")
            and b"\0" not in chunk
            and self._refusal is None
        ):
            self._held += chunk
            return
        if self._refusal is None:
            self._refusal = self._added(chunk)
        if self._refusal is not None:
            self._held.clear()

    def _added(self, chunk: bytes) -> Refusal | None:
        if self.is_too_large:
            return Refusal.TOO_LARGE
        return Refusal.NUL if b"\0" in chunk else self._repair(chunk)

    def _repair(self, chunk: bytes, *, is_last: bool = False) -> Refusal | None:
        """Add a chunk of content that has a bare CR or LF, in this chunk or an earlier one."""
        if self._is_strict:
            return Refusal.BARE_LINE_ENDS
        if self._line_ends is None:
            clean_bytes = self.size_bytes - len(chunk)
            if self._held.endswith(b"\r"):  # bare, or part of the next line end
                del self._held[-1]
                clean_bytes -= 1
                chunk = b"\r" + chunk
            behind = self._behind + self._held[-3:]
            self._line_ends = LineEnds(clean_bytes, behind, is_stuffed=self.is_stuffed)
            self.may_have_dots = True
        try:
            self._held += self._line_ends.feed(chunk)
        except TooManyCrs:
            return Refusal.BARE_LINE_ENDS
        if is_last:
            self._held += self._line_ends.finish()
        return Refusal.TOO_LARGE if self.is_too_large else None

    @property
    def held_bytes(self) -> int:
        """The number of octets collected since the last `take`."""
        return len(self._held)

    @property
    def held(self) -> bytearray:
        """The octets collected since the last `take`, to be read at once and not kept."""
        return self._held

    def replace_start(self, size_bytes: int, octets: bytes) -> None:
        """Put `octets` in the place of as many of the octets held."""
        self._held[:size_bytes] = octets

    def discard(self) -> None:
        """Keep nothing: the caller refuses the message, whatever else comes of it."""
        self._max_bytes = -1
        self._refusal = Refusal.TOO_LARGE
        self._held.clear()

    def clear(self) -> None:
        """Remove the octets collected since the last `take`."""
        self._held.clear()

    def take(self) -> bytes:
        """Return and remove the octets collected, except a CR at the end, which may be bare."""
        octets = bytes(self._held)
        self._held.clear()
        if octets.endswith(b"\r"):
            octets = octets[:-1]
            self._held += b"\r"
        self._behind = octets[-3:] if len(octets) > 2 else (self._behind + octets)[-3:]
        return octets

    def content(self) -> Content:
        """Return and remove the collected content; a missing CRLF at the end is added.

        A next hop may use DATA, where content always ends with CRLF (RFC 3030 §3).
        """
        if self._held and not self._held.endswith(b"\r\n"):
            self._held += b"\r\n"
        octets = bytes(self._held)
        self._held.clear()
        return Content(octets, self.is_stuffed, self.may_have_dots or not self.is_stuffed)


class DataReader:
    """Finds the end of DATA in a stream of chunks and returns the stuffed octets unchanged."""

    __slots__ = ("_not_content", "_tail", "sink")

    def __init__(self, sink: Collector) -> None:
        self.sink = sink
        sink.is_stuffed = True
        # The last octets, held back while they may be part of the end. The end of the DATA command,
        # a bare LF too, counts as a CRLF among them, because empty content is just ".CRLF".
        self._tail = b"\r\n"
        self._not_content = len(self._tail)

    @property
    def has_mistaken_end(self) -> bool:
        """Whether the octets so far end with what some clients take for the end, and which is none.

        A CR that only lacks its LF may still be the end.
        """
        tail = self._tail
        if b"." in tail:
            return _MISTAKEN_END.search(tail) is not None
        if not (tail.endswith(_T_AND_LINE_END) and self.sink.is_repaired):
            return False
        return _MISTAKEN_END_AND_QUIT.search(b"\r\n" + self.sink.held[-9:] + tail) is not None

    def feed(self, chunk: bytes) -> bytes | None:
        """Take a chunk; return the octets after the end of the data, or None before the end."""
        window = self._tail + chunk
        # One octet is found fifty times as fast as three or five, and encoded attachments have no
        # dots at all. That there are no three or five is found from the end in half the time.
        if b"." in window:
            end = _END_OF_DATA.search(window) if window.rfind(END_OF_DATA) >= 0 else None
            size = len(window) if end is None else end.start()
            if not self.sink.may_have_dots:
                self.sink.may_have_dots = window.rfind(b"\r\n.", 0, size) >= 0
            if end is not None:
                self._pass_on(window[: size + 2])
                return window[end.end() :]
        kept = min(len(window), len(END_OF_DATA) - 1)
        self._pass_on(window[: len(window) - kept])
        self._tail = window[len(window) - kept :]
        return None

    def _pass_on(self, octets: bytes) -> None:
        if self._not_content:
            skipped = min(self._not_content, len(octets))
            self._not_content -= skipped
            octets = octets[skipped:]
        if octets:
            self.sink.add(octets)


def message_id(octets: bytes) -> str:
    """Return the value of the Message-ID field for the log, or "" if none is near the start."""
    # Each message has this done: a search without letter case costs more than the copies.
    header = b"\n" + octets[:MAX_HEADER_BYTES].partition(b"\r\n\r\n")[0]
    start = header.lower().find(_MESSAGE_ID)
    match = _FIELD_VALUE.match(header, start + len(_MESSAGE_ID)) if start >= 0 else None
    return match[1].decode("ascii", "replace") if match else ""
