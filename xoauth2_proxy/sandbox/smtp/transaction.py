"""One mail transaction (RFC 5321 §3.3) and one chunk of its content (RFC 3030 §2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

    from xoauth2_proxy.sandbox.message_store import MessageStore
    from xoauth2_proxy.smtp.protocol import Envelope

_END_OF_DATA = b"\r\n.\r\n"  # RFC 5321 §4.1.1.4, and nothing else


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
