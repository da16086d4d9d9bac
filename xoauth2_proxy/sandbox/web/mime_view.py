"""A message as a page shows it: header fields, text parts, attachments. Bounded, never raises.

The input may be hostile. HTML stays source text; `frame_document` makes a document of it that can
do nothing in a sandboxed frame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import Message as Parsed

MAX_READ_BYTES = 1024 * 1024  # of a message; parsing takes some 20 ms
_MAX_HEAD_BYTES = 16 * 1024  # looked through for the subject
_MAX_FIELDS = 200
_MAX_PARTS = 100
_MAX_VALUE_CHARACTERS = 2000
_MAX_TEXT_CHARACTERS = 200_000

# Nothing is loaded, not even from this machine, and no form or link works.
_FRAME_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
# No policy prevents browsers from resolving names and connecting ahead of a request for these: for
# preconnect and dns-prefetch, and before a navigation that is then forbidden.
_LEADING = re.compile(
    r"<(/?)(?=(?:link|meta|base|i?frame|frameset|fencedframe|portal|object|embed)[\s/>])",
    re.IGNORECASE,
)
_TARGET = re.compile(r"\btarget(?=\s*=)", re.IGNORECASE)  # links have to use the base's


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf part of a message."""

    kind: str  # as text/plain
    name: str  # of its file; "": none
    size_bytes: int  # decoded
    text: str | None = field(repr=False)  # None: not text

    @property
    def is_html(self) -> bool:
        """Whether it can be rendered."""
        return self.kind == "text/html" and bool(self.text)


@dataclass(frozen=True, slots=True)
class MimeView:
    """What a page shows of a message."""

    fields: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    is_cut: bool  # the message has more than this
    source: str  # the message itself if it could not be parsed; else ""


def subject_of(content: bytes) -> str:
    """Return the subject, decoded; "" if there is none near the top."""
    head = content[:_MAX_HEAD_BYTES].partition(b"\r\n\r\n")[0]
    try:
        fields = message_from_bytes(head).raw_items()
        return next((_decoded(value) for name, value in fields if name.lower() == "subject"), "")
    except Exception:
        return ""


def read(content: bytes) -> MimeView:
    """Return what a page shows of a message; if it cannot be parsed, its source."""
    is_cut = len(content) > MAX_READ_BYTES
    try:
        message = message_from_bytes(content[:MAX_READ_BYTES])
        fields = [(name[:100], _decoded(value)) for name, value in message.raw_items()]
        parts, is_cut_too = _parts(message)
    except Exception:
        source = content[:_MAX_TEXT_CHARACTERS].decode("utf-8", "replace")
        return MimeView((), (), len(content) > _MAX_TEXT_CHARACTERS, source)
    is_cut = is_cut or is_cut_too or len(fields) > _MAX_FIELDS
    return MimeView(tuple(fields[:_MAX_FIELDS]), tuple(parts), is_cut, "")


def frame_document(html: str) -> str:
    """Return the document for the `srcdoc` of a frame without any permission (`sandbox=""`).

    It begins with its own policy: the inherited one would allow loading from this server.
    """
    head = f'<meta http-equiv="Content-Security-Policy" content="{_FRAME_POLICY}">'
    head += '<base target="_blank">'  # a new window, which the frame may not open
    body = _TARGET.sub("x-target", _LEADING.sub(r"<\1x-", html))
    return f"<!DOCTYPE html>{head}{body}"


def _parts(message: Parsed) -> tuple[list[Part], bool]:
    parts: list[Part] = []
    room = _MAX_TEXT_CHARACTERS
    is_cut = False
    for one in message.walk():
        if one.is_multipart():
            continue
        if len(parts) >= _MAX_PARTS:
            return parts, True
        payload = one.get_payload(decode=True)
        octets = payload if isinstance(payload, bytes) else b""
        text: str | None = None
        if one.get_content_maintype() == "text":
            text = _text(octets, one.get_content_charset() or "utf-8")
            is_cut = is_cut or len(text) > room
            text = text[:room]
            room -= len(text)
        name = _decoded(one.get_filename() or "")
        parts.append(Part(one.get_content_type(), name, len(octets), text))
    return parts, is_cut


def _text(octets: bytes, charset: str) -> str:
    try:
        text = octets.decode(charset, "replace")
    except (LookupError, ValueError):  # an unknown character set, or one that is not for text
        text = octets.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _decoded(value: object) -> str:
    """Return a field's value in one line, with its encoded words decoded (RFC 2047)."""
    text = " ".join(str(value).split())[:_MAX_VALUE_CHARACTERS]
    try:
        decoded = str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        decoded = text
    if not decoded.strip():
        decoded = text
    # The parser keeps octets beyond ASCII as surrogates.
    return decoded.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
