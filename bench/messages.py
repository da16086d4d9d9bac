"""Writes the messages a run sends, and can write each one again from its number.

A message is its own head and a tail shared by the run, so that writing one costs next to nothing.
Nothing about a message depends on when it is sent: its digest can be had after the run.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from email.utils import format_datetime

_HEADERS = (
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n"
    b"Content-Transfer-Encoding: 7bit\r\n"
    b"\r\n"
)
# Lines that begin with dots, and one that is only a dot: each must be stuffed (RFC 5321 §4.5.2).
_BODY = b"\r\n".join(
    (
        b"The quick brown fox jumps over the lazy dog while the relay carries this on.",
        b".This line begins with a dot and must arrive with exactly that one dot.",
        b"Numbers 0123456789 and signs !#$%&*+-/=?^_`{|}~ are part of the content, too.",
        b"..Two dots begin this line.",
        b"",
        b".",
        b"The line above held nothing but a dot. This is not the end of the message.",
        b"",
    )
)


class Messages:
    """The messages of one run, to one recipient, by number from 0."""

    def __init__(self, to_email: str, size_bytes: int) -> None:
        self.run_id = secrets.token_hex(8)
        self._to_email = to_email
        self._size_bytes = size_bytes
        self._date = format_datetime(datetime.now(UTC))
        self._tails: dict[int, bytes] = {}  # by size: one for each length a head can have

    def content(self, number: int, mailbox: str) -> bytes:
        """Return message `number` from `mailbox`: RFC 5322, CRLF, not dot-stuffed."""
        head = (
            f"From: <{mailbox}>\r\n"
            f"To: <{self._to_email}>\r\n"
            f"Date: {self._date}\r\n"
            f"Message-ID: <{self.run_id}.{number}@bench.invalid>\r\n"
            f"Subject: Benchmark message {number}\r\n"
            f"X-Bench-Id: {self.run_id}.{number}\r\n"
        ).encode("ascii")
        size_bytes = max(0, self._size_bytes - len(head))
        tail = self._tails.get(size_bytes)
        if tail is None:
            tail = self._tails[size_bytes] = _tail(size_bytes)
        return head + tail

    def sha256(self, number: int, mailbox: str) -> str:
        """Return the digest of message `number` from `mailbox`, in hexadecimal."""
        return hashlib.sha256(self.content(number, mailbox)).hexdigest()

    def number(self, message_id: str) -> int | None:
        """Return the number of the message with this Message-ID; None when it is not this run's."""
        run_id, _, rest = message_id.strip().strip("<>").partition(".")
        number, _, domain = rest.partition("@")
        if run_id != self.run_id or domain != "bench.invalid" or not number.isdecimal():
            return None
        return int(number)


def _tail(size_bytes: int) -> bytes:
    missing = size_bytes - len(_HEADERS) - len(b"\r\n")
    if missing < 0:
        return _HEADERS if size_bytes <= len(_HEADERS) else _HEADERS + b"\r\n"
    body = (_BODY * (missing // len(_BODY) + 1))[:missing]
    if body.endswith(b"\r"):  # cut in the middle of a CRLF: no bare CR may remain
        body = body[:-1] + b"x"
    return _HEADERS + body + b"\r\n"
