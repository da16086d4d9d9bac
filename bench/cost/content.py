"""The one message a workload sends again and again, and the digest it must arrive with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bench.cost.plan import RECIPIENT

_HEAD = (
    b"From: <mailbox@example.com>\r\n"
    b"To: <%s>\r\n"
    b"Date: Thu, 20 Nov 2025 06:00:00 +0000\r\n"
    b"Message-ID: <cost@bench.invalid>\r\n"
    b"Subject: What does it cost?\r\n"
    b"\r\n"
) % RECIPIENT.encode()
_LINE = b"The quick brown fox jumps over the lazy dog while the relay carries this line.\r\n"
_DOTTED = b".This one begins with a dot, which is stuffed on its way.\r\n"
_DOTTED_EVERY = 20  # lines


@dataclass(frozen=True, slots=True)
class Content:
    """A message in the form DATA wants it, and its digest without."""

    wire: bytes  # dot-stuffed, with the end of data (RFC 5321 §4.5.2)
    sha256: str  # of the content itself, hexadecimal


def content(size_bytes: int) -> Content:
    """Return a message of about this size, not less than its header."""
    room = size_bytes - len(_HEAD)
    block = _LINE * (_DOTTED_EVERY - 1) + _DOTTED
    body = (block * (max(0, room) // len(block) + 1))[: max(0, room)]
    text = _HEAD + body[: body.rfind(b"\n") + 1]  # whole lines only
    return Content(text.replace(b"\r\n.", b"\r\n..") + b".\r\n", hashlib.sha256(text).hexdigest())
