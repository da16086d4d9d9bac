"""What a provider allows a mailbox: connections, logins, messages and recipients in a while.

Decides and remembers; the words are the dialect's, the waiting is the session's. Time is handed
in, and no more is kept than of the latest 10,000 mailboxes and those that are logged in.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.behaviour import RefusalPoint

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.behaviour import Behaviour
    from xoauth2_proxy.sandbox.counters import Counters
    from xoauth2_proxy.sandbox.dialects import Dialect

_MAX_MAILBOXES = 10_000
_EVICTION_TRIES = 8
MAX_WAIT_SECONDS = 600.0  # RFC 5321 §4.5.3.2.6: no client waits longer for the final reply


class Window:
    """So much within so long, in a window that slides; a limit of zero is none."""

    __slots__ = ("_entries", "_limit", "_seconds", "_total")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._entries: deque[tuple[float, int]] = deque()  # when, how much; oldest first
        self._total = 0

    def has_room(self, now: float, amount: int = 1) -> bool:
        """Return whether so much more is allowed now."""
        self._expire(now)
        return not self._limit or self._total + amount <= self._limit

    def take(self, now: float, amount: int = 1) -> None:
        """Count so much more."""
        if self._limit:
            self._entries.append((now, amount))
            self._total += amount

    def wait_seconds(self, now: float) -> float:
        """Count one more at the first moment that has room; return how far away that is."""
        self._expire(now)
        if not self._limit:
            return 0.0
        at = now
        if self._total >= self._limit:  # those beyond were given times to come
            at = self._entries[-self._limit][0] + self._seconds
        self.take(at)
        return at - now

    def _expire(self, now: float) -> None:
        oldest = now - self._seconds
        while self._entries and self._entries[0][0] <= oldest:
            self._total -= self._entries.popleft()[1]


@dataclass(slots=True)
class _Mailbox:
    logins: Window
    messages: Window  # of a minute
    messages_today: Window
    recipients_today: Window
    sessions: dict[object, None] = field(default_factory=dict)  # logged in, oldest first


class ProviderLimits:
    """The limits of all mailboxes. What is refused is told as a text of the dialect, or ""."""

    def __init__(self, behaviour: Behaviour, dialect: Dialect, counters: Counters) -> None:
        self._behaviour = behaviour
        self._dialect = dialect
        self._counters = counters
        self._mailboxes: OrderedDict[str, _Mailbox] = OrderedDict()  # least recently seen first
        self.met = ""  # which limit the latest refusal was for, for people

    @staticmethod
    def are_needed(behaviour: Behaviour) -> bool:
        """Return whether there is any limit to watch."""
        return any(
            (
                behaviour.max_connections_per_mailbox,
                behaviour.logins_per_minute,
                behaviour.messages_per_minute,
                behaviour.messages_per_day,
                behaviour.recipients_per_day,
            )
        )

    def refuse_login(self, mailbox: str) -> str:
        """Count an attempt to log in, good or not; return the refusal."""
        logins, now = self._of(mailbox).logins, time.monotonic()
        if not logins.has_room(now):
            return self._refused("logins_per_minute", self._dialect.login_too_often)
        logins.take(now)
        return ""

    def enter(self, mailbox: str, session: object) -> str:
        """Count a session that has logged in; return the refusal, after which it has left."""
        sessions = self._of(mailbox).sessions
        sessions[session] = None
        if self._refuses_at(RefusalPoint.AUTH) and self._is_beyond(mailbox, session):
            del sessions[session]
            return self._refused_connection()
        return ""

    def leave(self, mailbox: str, session: object) -> None:
        """Forget a session that is gone."""
        found = self._mailboxes.get(mailbox)
        if found is not None:
            found.sessions.pop(session, None)

    def refuse_content(self, mailbox: str, session: object, recipients: int) -> str:
        """Return the refusal of DATA, or of the first BDAT."""
        if self._refuses_at(RefusalPoint.DATA) and self._is_beyond(mailbox, session):
            return self._refused_connection()
        found, now = self._of(mailbox), time.monotonic()
        if self._dialect.is_quota_told_early and (
            refusal := self._refuse_today(found, now, recipients)
        ):
            return refusal
        if not self._behaviour.is_excess_delayed:
            if not found.messages.has_room(now):
                return self._refused("messages_per_minute", self._dialect.too_often)
            found.messages.take(now)  # now, for others may be under way
        return ""

    def refuse_message(self, mailbox: str, session: object, recipients: int) -> str:
        """Return the refusal of a message that is whole."""
        if self._refuses_at(RefusalPoint.END) and self._is_beyond(mailbox, session):
            return self._refused_connection()
        return self._refuse_today(self._of(mailbox), time.monotonic(), recipients)

    def accept_message(self, mailbox: str, recipients: int) -> float:
        """Count an accepted message; return for how many seconds its reply must wait."""
        found, now = self._of(mailbox), time.monotonic()
        found.messages_today.take(now)
        found.recipients_today.take(now, recipients)
        if not self._behaviour.is_excess_delayed:
            return 0.0
        wait_seconds = found.messages.wait_seconds(now)
        if wait_seconds > 0.0:
            self._counters.delayed_by_limit += 1
        return min(wait_seconds, MAX_WAIT_SECONDS)

    def _of(self, mailbox: str) -> _Mailbox:
        found = self._mailboxes.get(mailbox)
        if found is None:
            behaviour = self._behaviour
            minute, day = behaviour.minute_seconds, behaviour.day_seconds
            found = self._mailboxes[mailbox] = _Mailbox(
                Window(behaviour.logins_per_minute, minute),
                Window(behaviour.messages_per_minute, minute),
                Window(behaviour.messages_per_day, day),
                Window(behaviour.recipients_per_day, day),
            )
            self._make_room()
        else:
            self._mailboxes.move_to_end(mailbox)
        return found

    def _make_room(self) -> None:
        tries = _EVICTION_TRIES if len(self._mailboxes) > _MAX_MAILBOXES else 0
        for _ in range(tries):
            name = next(iter(self._mailboxes))
            if not self._mailboxes[name].sessions:
                del self._mailboxes[name]
                return
            self._mailboxes.move_to_end(name)  # there are only so many sessions

    def _refuses_at(self, point: RefusalPoint) -> bool:
        behaviour = self._behaviour
        return bool(
            behaviour.max_connections_per_mailbox and behaviour.connections_refused_at is point
        )

    def _is_beyond(self, mailbox: str, session: object) -> bool:
        # The first ones may go on; who came later may when one of those has left.
        most = self._behaviour.max_connections_per_mailbox
        return session not in islice(self._of(mailbox).sessions, most)

    def _refuse_today(self, found: _Mailbox, now: float, recipients: int) -> str:
        if not found.messages_today.has_room(now):
            return self._refused("messages_per_day", self._dialect.too_many_today)
        if not found.recipients_today.has_room(now, recipients):
            return self._refused("recipients_per_day", self._dialect.too_many_today)
        return ""

    def _refused_connection(self) -> str:
        return self._refused("max_connections_per_mailbox", self._dialect.too_many_connections)

    def _refused(self, limit: str, text: str) -> str:
        self._counters.limit_met(limit)
        self.met = self._behaviour.describe_limit(limit)
        return text
