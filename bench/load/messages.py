"""Generates the messages of a run; each can be regenerated from its number.

A message has its own head and a tail shared by many, so generating one costs very little. A message
does not depend on when it is sent, so its digest can be computed after the run.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Protocol

from bench.client.data_content import DataContent
from bench.plan.workloads import Workload

if TYPE_CHECKING:
    from pathlib import Path

_MAX_FOLDER_BYTES = 256 << 20
_MAX_TAILS_BYTES = 32 << 20  # cached for reuse
_HEADERS = (
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n"
    b"Content-Transfer-Encoding: 7bit\r\n"
    b"\r\n"
)
# Lines that begin with a dot, one of them a single dot: each must be stuffed (RFC 5321 §4.5.2).
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
_SAME_HEAD = (
    b"From: <mailbox@example.com>\r\nTo: <%s>\r\n"
    b"Date: Thu, 20 Nov 2025 06:00:00 +0000\r\nMessage-ID: <same@bench.invalid>\r\n"
    b"Subject: The same message again\r\n\r\n"
)
_SAME_BODY = (
    b"The quick brown fox jumps over the lazy dog while the relay carries this line.\r\n" * 19
    + b".This one begins with a dot, which is stuffed on its way.\r\n"
)
_LINE_END = re.compile(rb"\r\n|\r|\n")
# One of our header fields with its continuation lines (RFC 5322 §2.2.3).
_OUR_FIELDS = re.compile(
    rb"^(?:Message-ID|X-Bench-Id|X-Bench-From)[ \t]*:.*\r\n(?:[ \t].*\r\n)*",
    re.IGNORECASE | re.MULTILINE,
)


class MessagesUnusable(Exception):
    """The folder has no messages, or too many, or one is unreadable; the text says which."""


class MessageSource(Protocol):
    """A source of messages; `Messages` in a run."""

    def content(self, number: int, mailbox: str) -> bytes | DataContent:
        """Return message `number` from `mailbox`."""

    def forward_paths(self, number: int) -> list[str]:
        """Return its recipients."""


class Messages:
    """The messages of one run, by number from 0."""

    def __init__(
        self,
        to_email: str,
        workload: Workload | None = None,
        files: tuple[bytes, ...] = (),
        run_id: str = "",
    ) -> None:
        self.run_id = run_id or secrets.token_hex(8)
        self._to_email = to_email
        self._workload = workload or Workload()
        self._files = files  # in the form of `read_folder`; empty: messages are generated
        self._date = format_datetime(datetime.now(UTC))
        self._tails: dict[int, bytes] = {}  # by size
        self._tails_bytes = 0

    def content(self, number: int, mailbox: str) -> bytes:
        """Return message `number` from `mailbox`: RFC 5322, CRLF, not dot-stuffed."""
        trace = (
            f"Message-ID: <{self.run_id}.{number}@bench.invalid>\r\n"
            f"X-Bench-Id: {self.run_id}.{number}\r\n"
        )
        if self._files:
            head = f"{trace}X-Bench-From: {mailbox}\r\n".encode("ascii")
            return head + self._files[number % len(self._files)]
        recipients = ",\r\n ".join(f"<{path}>" for path in self.forward_paths(number))
        head = (
            f"From: <{mailbox}>\r\n"
            f"To: {recipients}\r\n"
            f"Date: {self._date}\r\n"
            f"{trace}"
            f"Subject: Benchmark message {number}\r\n"
        ).encode("ascii")
        return head + self._tail(max(0, self._workload.sizes.pick(number) - len(head)))

    def forward_paths(self, number: int) -> list[str]:
        """Return the recipients of message `number`: the plan's recipient and its subaddresses."""
        local, _, domain = self._to_email.rpartition("@")
        count = self._workload.recipients.pick(number)
        return [self._to_email, *(f"{local}+{extra}@{domain}" for extra in range(2, count + 1))]

    def sha256(self, number: int, mailbox: str) -> str:
        """Return the hexadecimal digest of message `number` from `mailbox`."""
        return hashlib.sha256(self.content(number, mailbox)).hexdigest()

    def number(self, message_id: str) -> int | None:
        """Return the number of the message with this Message-ID; None if it is not of this run."""
        run_id, _, rest = message_id.strip().strip("<>").partition(".")
        number, _, domain = rest.partition("@")
        if run_id != self.run_id or domain != "bench.invalid" or not number.isdecimal():
            return None
        return int(number)

    def _tail(self, size_bytes: int) -> bytes:
        tail = self._tails.get(size_bytes)
        if tail is None:
            tail = _tail(size_bytes)
            if self._tails_bytes + len(tail) <= _MAX_TAILS_BYTES:
                self._tails[size_bytes] = tail
                self._tails_bytes += len(tail)
        return tail


class SameMessage:
    """A source of identical messages, which are encoded only once.

    One line in twenty begins with a dot, which DATA stuffs.
    """

    def __init__(self, size_bytes: int, recipient: str = "recipient@example.org") -> None:
        """Make a message of about this size, in whole lines and no shorter than its header."""
        self.recipient = recipient
        head = _SAME_HEAD % recipient.encode("ascii")
        room = max(0, size_bytes - len(head))
        body = (_SAME_BODY * (room // len(_SAME_BODY) + 1))[:room]
        octets = head + body[: body.rfind(b"\n") + 1]
        self.sha256 = hashlib.sha256(octets).hexdigest()
        self._content = DataContent.of(octets)

    def content(self, _number: int, _mailbox: str) -> DataContent:
        """Return the message."""
        return self._content

    def forward_paths(self, _number: int) -> list[str]:
        """Return its recipient."""
        return [self.recipient]


def read_folder(folder: Path) -> tuple[bytes, ...]:
    """Return the folder's .eml files in order of name, with CRLF and without our header fields.

    Raises:
        MessagesUnusable: there is none, one cannot be read, or they exceed 256 MB.
    """
    contents, octets = [], 0
    try:
        for path in sorted(folder.glob("*.eml")):
            octets += path.stat().st_size
            if octets > _MAX_FOLDER_BYTES:
                raise MessagesUnusable(f"{folder} holds more than {_MAX_FOLDER_BYTES >> 20} MB.")
            contents.append(_normalised(path.read_bytes()))
    except OSError as error:
        raise MessagesUnusable(f"{folder} cannot be read: {error}") from error
    if not contents:
        raise MessagesUnusable(f"{folder} contains no .eml file.")
    return tuple(contents)


def _normalised(content: bytes) -> bytes:
    lines = _LINE_END.sub(b"\r\n", content)
    if not lines.endswith(b"\r\n"):
        lines += b"\r\n"
    if lines.startswith((b" ", b"\t")):  # a header field cannot begin like this: all of it is body
        lines = b"\r\n" + lines
    if lines.startswith(b"\r\n"):
        return lines
    head, separator, body = lines.partition(b"\r\n\r\n")
    if not separator:
        head = head.removesuffix(b"\r\n")
    return _OUR_FIELDS.sub(b"", head + b"\r\n") + b"\r\n" + body


def _tail(size_bytes: int) -> bytes:
    missing = size_bytes - len(_HEADERS) - len(b"\r\n")
    if missing < 0:
        return _HEADERS if size_bytes <= len(_HEADERS) else _HEADERS + b"\r\n"
    body = (_BODY * (missing // len(_BODY) + 1))[:missing]
    if body.endswith(b"\r"):  # cut in the middle of a CRLF: a bare CR must not remain
        body = body[:-1] + b"x"
    return _HEADERS + body + b"\r\n"
