"""A message's content, encoded for DATA."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DataContent:
    """Content ready to be sent; make it once to send it often."""

    octets: bytes = field(repr=False)  # dot-stuffed, with the end of data (RFC 5321 §4.5.2)
    size_bytes: int  # of the content itself
    is_ascii: bool

    @classmethod
    def of(cls, content: bytes) -> DataContent:
        """Return the encoded form of content with CRLF line ends."""
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        octets = (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"
        return cls(octets, len(content), content.isascii())
