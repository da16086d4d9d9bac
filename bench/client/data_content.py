"""A message's content in the form DATA wants it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DataContent:
    """Content that is ready to be sent; to send the same one often, make it once."""

    octets: bytes = field(repr=False)  # dot-stuffed, with the end of data (RFC 5321 §4.5.2)
    size_bytes: int  # of the content itself
    is_ascii: bool

    @classmethod
    def of(cls, content: bytes) -> DataContent:
        """Return it for content with CRLF line ends."""
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        octets = (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"
        return cls(octets, len(content), content.isascii())
