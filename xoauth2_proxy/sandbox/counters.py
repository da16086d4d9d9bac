"""Counters of what has happened at the sandbox."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_MAILBOXES = 10_000
_NO_CODE = b"garbage"


@dataclass(slots=True)
class Counters:
    """Counts since the start; `*_open` and `open_by_*` are present values."""

    connections_opened: int = 0
    connections_open: int = 0
    connections_peak: int = 0
    auth_accepted: int = 0
    auth_refused: int = 0
    transactions_accepted: int = 0
    transactions_refused: int = 0  # at or after the content
    turns: int = 0  # flights of replies written while the client had nothing under way
    token_requests: int = 0  # at the token endpoint
    open_by_mailbox: Counter[str] = field(default_factory=Counter)  # authenticated, now
    peak_by_mailbox: dict[str, int] = field(default_factory=dict)
    refused_by_limit: Counter[str] = field(default_factory=Counter)
    delayed_by_limit: int = 0  # messages that were accepted later than they came
    faults_met: Counter[str] = field(default_factory=Counter)  # by step and action
    _replies: Counter[bytes] = field(default_factory=Counter)

    @property
    def replies_by_code(self) -> dict[str, int]:
        """How often each reply code was sent; `garbage`: without a code."""
        return {code.decode(): count for code, count in sorted(self._replies.items())}

    def as_document(self) -> dict[str, object]:
        """Return all counters as they are shown in JSON."""
        shown: dict[str, object] = {
            name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")
        }
        shown["peak_connections_per_mailbox"] = max(self.peak_by_mailbox.values(), default=0)
        return shown | {"replies_by_code": self.replies_by_code}

    def count_replies(self, replies: Iterable[bytes]) -> None:
        """Count replies as they are written."""
        counts = self._replies
        for octets in replies:
            code = octets[:3]
            if code not in counts and not (code.isdigit() and len(code) == 3):
                code = _NO_CODE
            counts[code] += 1

    def mailbox_opened(self, mailbox: str) -> None:
        """Count one more authenticated connection of a mailbox."""
        self.open_by_mailbox[mailbox] += 1
        peak = max(self.peak_by_mailbox.get(mailbox, 0), self.open_by_mailbox[mailbox])
        if mailbox in self.peak_by_mailbox or len(self.peak_by_mailbox) < _MAX_MAILBOXES:
            self.peak_by_mailbox[mailbox] = peak

    def mailbox_closed(self, mailbox: str) -> None:
        """Count one authenticated connection less."""
        self.open_by_mailbox[mailbox] -= 1
        if not self.open_by_mailbox[mailbox]:
            del self.open_by_mailbox[mailbox]

    def reset_peaks(self) -> None:
        """Reset the peaks to what is open now."""
        self.connections_peak = self.connections_open
        self.peak_by_mailbox = dict(self.open_by_mailbox)
