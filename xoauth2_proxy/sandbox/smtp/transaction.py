"""One mail transaction (RFC 5321 §3.3) and one chunk of its content (RFC 3030 §2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.smtp.content_receiver import ContentReceiver, DataDecoder

if TYPE_CHECKING:
    from typing import Literal

    from xoauth2_proxy.smtp.protocol import Envelope


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
