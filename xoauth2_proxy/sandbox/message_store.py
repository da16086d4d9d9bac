"""The accepted messages: a bounded number of records, with their content while there is room.

Records, stored content and content being received share one limit. The oldest content is evicted
first, then the oldest records; content evicts records only while they take more than half the room.
"""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_RECORDS = 200_000
MAX_BYTES = 192 * 1024 * 1024  # that many records of one short recipient are 172 MB
_RECORD_BYTES = 320  # a record without its texts: the object, its numbers, its place
_HEADER_BYTES = 8192  # how far the Message-ID is looked for


@dataclass(slots=True)
class Message:
    """One accepted message."""

    mailbox: str  # who was authenticated
    reverse_path: str
    forward_paths: tuple[str, ...]
    size_bytes: int
    sha256: str  # of the content: CRLF, not dot-stuffed
    via: Literal["DATA", "BDAT"]
    content: bytes | None = field(repr=False)  # None: no room for it, or no longer
    message_id: str = ""  # "": no Message-ID within the first 8 KiB
    seq: int = 0  # from 1, without gaps
    id: str = ""  # as told to the client in the 250
    received_at: float = 0.0  # seconds since the epoch
    record_bytes: int = 0  # the memory it takes without its content


class MessageStore:
    """The accepted messages, oldest first."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_records: int = MAX_RECORDS) -> None:
        self.total = 0  # messages ever accepted
        self.evicted = 0  # records dropped for want of room
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._records: dict[int, Message] = {}  # by seq, which has no gaps
        self._first = 1  # seq of the oldest record, or the next one's
        self._first_content = 1  # no record before this one has content
        self._held_bytes = 0  # records, content kept and content under way
        self._record_bytes = 0  # records alone
        self._run = secrets.token_hex(4)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Message]:
        return iter(tuple(self._records.values()))

    def add(self, message: Message) -> Message:
        """Store a message and give it its number; its content must have been reserved.

        Evicts older content, then older records, to make room for its record.
        """
        self.total = seq = self.total + 1
        message.seq, message.id = seq, f"{self._run}-{seq}"
        message.received_at = time.time()
        if message.content is not None:
            message.message_id = find_message_id(message.content)
        self._records[seq] = message
        message.record_bytes = _record_bytes(message)
        self._record_bytes += message.record_bytes
        self._held_bytes += message.record_bytes
        if len(self._records) > self._max_records:
            self._evict_oldest()
        while self._held_bytes > self._max_bytes and (
            self._drop_oldest_content() or self._evict_oldest()
        ):
            pass
        return message

    def find(self, seq: int) -> Message | None:
        """Return the message of that number, if its record is still held."""
        return self._records.get(seq)

    def after(self, seq: int, limit: int) -> list[Message]:
        """Return at most `limit` messages with a higher number, oldest first."""
        start = max(seq + 1, self._first)
        end = min(start + limit, self._first + len(self._records))
        return [self._records[number] for number in range(start, end)]

    def before(self, seq: int, limit: int) -> list[Message]:
        """Return at most `limit` messages with a lower number, newest first."""
        newest = min(seq, self._first + len(self._records)) - 1
        oldest = max(newest - limit + 1, self._first)
        return [self._records[number] for number in range(newest, oldest - 1, -1)]

    def clear(self) -> int:
        """Forget all messages and return how many there were; numbers go on."""
        count = len(self._records)
        while self._forget_oldest():
            pass
        self._first = self._first_content = self.total + 1
        return count

    def reserve(self, size_bytes: int) -> bool:
        """Reserve room, evicting older messages if needed; return whether there is enough."""
        self._held_bytes += size_bytes
        while self._held_bytes > self._max_bytes:
            if self._drop_oldest_content():
                continue
            if self._record_bytes <= self._max_bytes / 2 or not self._evict_oldest():
                self._held_bytes -= size_bytes
                return False
        return True

    def release(self, size_bytes: int) -> None:
        """Give back room that was reserved and not used."""
        self._held_bytes -= size_bytes

    def _drop_oldest_content(self) -> bool:
        """Return whether there was content to drop."""
        while self._first_content <= self.total:
            message = self._records.get(self._first_content)
            self._first_content += 1
            if message is not None and message.content is not None:
                self._held_bytes -= len(message.content)
                message.content = None
                return True
        return False

    def _evict_oldest(self) -> bool:
        """Return whether there was a record to evict."""
        was_there = self._forget_oldest()
        self.evicted += was_there
        return was_there

    def _forget_oldest(self) -> bool:
        message = self._records.pop(self._first, None)
        if message is None:
            return False
        self._record_bytes -= message.record_bytes
        self._held_bytes -= message.record_bytes + len(message.content or b"")
        self._first += 1
        return True


def _record_bytes(message: Message) -> int:
    paths = message.forward_paths
    texts = (message.mailbox, message.reverse_path, message.sha256, message.message_id, message.id)
    sizes = sum(map(sys.getsizeof, texts)) + sum(map(sys.getsizeof, paths))
    return _RECORD_BYTES + sys.getsizeof(paths) + sizes


def find_message_id(content: bytes) -> str:
    """Return the value of the Message-ID field (RFC 5322 §3.6.4), "" if none is near the top."""
    head = b"\r\n" + content[:_HEADER_BYTES].partition(b"\r\n\r\n")[0]
    start = head.lower().find(b"\r\nmessage-id:")
    if start < 0:
        return ""
    lines = head[start + 13 :].split(b"\r\n", 2)
    value = lines[0].strip()
    if not value and len(lines) > 1 and lines[1][:1] in (b" ", b"\t"):
        value = lines[1].strip()  # folded (RFC 5322 §2.2.3)
    return value.decode("utf-8", "replace")
