"""The limits of a mailbox: connections, and logins, messages and recipients within a period.

Refusals are in the dialect's wording; the session does the waiting. The latest 10,000 mailboxes are
remembered, and all that are logged in.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.behaviour import RefusalPoint

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.behaviour import Behaviour
    from xoauth2_proxy.sandbox.counters import Counters
    from xoauth2_proxy.sandbox.dialects import Dialect

_CONNECTIONS = "max_connections_per_mailbox"
_LOGINS = "logins_per_minute"
_MESSAGES = "messages_per_minute"
_MESSAGES_TODAY = "messages_per_day"
_RECIPIENTS_TODAY = "recipients_per_day"
_WINDOWS = {  # a limit, and the setting that says how long its period is
    _LOGINS: "minute_seconds",
    _MESSAGES: "minute_seconds",
    _MESSAGES_TODAY: "day_seconds",
    _RECIPIENTS_TODAY: "day_seconds",
}
_MAX_MAILBOXES = 10_000
_EVICTION_TRIES = 8
MAX_WAIT_SECONDS = 600.0  # RFC 5321 §4.5.3.2.6: no client waits longer for the final reply


class Window:
    """An amount that is allowed within a sliding period; a limit of zero is none."""

    __slots__ = ("_entries", "_limit", "_seconds", "_total")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._entries: deque[tuple[float, int]] = deque()  # when, how much; oldest first
        self._total = 0

    def has_room(self, now: float, amount: int = 1) -> bool:
        """Return whether this amount is allowed now."""
        self._expire(now)
        return not self._limit or self._total + amount <= self._limit

    def take(self, now: float, amount: int = 1) -> None:
        """Count this amount."""
        if self._limit:
            self._entries.append((now, amount))
            self._total += amount

    def wait_seconds(self, now: float) -> float:
        """Count one at the earliest time that has room; return the seconds until then."""
        self._expire(now)
        if not self._limit:
            return 0.0
        at = now
        if self._total >= self._limit:  # the entries beyond it are in the future
            at = self._entries[-self._limit][0] + self._seconds
        self.take(at)
        return at - now

    def _expire(self, now: float) -> None:
        oldest = now - self._seconds
        while self._entries and self._entries[0][0] <= oldest:
            self._total -= self._entries.popleft()[1]


class _Mailbox:
    """What is remembered of one mailbox."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.windows = {
            name: Window(getattr(behaviour, name), getattr(behaviour, length))
            for name, length in _WINDOWS.items()
        }
        self.sessions: dict[object, None] = {}  # logged in, oldest first


class ProviderLimits:
    """The limits of all mailboxes. A refusal is returned as a text of the dialect; "": none."""

    def __init__(self, behaviour: Behaviour, dialect: Dialect, counters: Counters) -> None:
        self._behaviour = behaviour
        self._dialect = dialect
        self._counters = counters
        self._mailboxes: OrderedDict[str, _Mailbox] = OrderedDict()  # least recently seen first
        self.met = ""  # the limit that the latest refusal was for, for people

    @staticmethod
    def are_needed(behaviour: Behaviour) -> bool:
        """Return whether there is any limit to enforce."""
        return any(getattr(behaviour, name) for name in (_CONNECTIONS, *_WINDOWS))

    def refuse_login(self, mailbox: str) -> str:
        """Count an attempt to log in, good or not; return the refusal."""
        window, now = self._of(mailbox).windows[_LOGINS], time.monotonic()
        if not window.has_room(now):
            return self._refused(_LOGINS, self._dialect.login_too_often)
        window.take(now)
        return ""

    def enter(self, mailbox: str, session: object) -> str:
        """Count a session that has logged in; a refused one is not counted."""
        sessions = self._of(mailbox).sessions
        sessions[session] = None
        refusal = self._refuse_connection(RefusalPoint.AUTH, mailbox, session)
        if refusal:
            del sessions[session]
        return refusal

    def leave(self, mailbox: str, session: object) -> None:
        """Forget a session that has ended."""
        found = self._mailboxes.get(mailbox)
        if found is not None:
            found.sessions.pop(session, None)

    def refuse_content(self, mailbox: str, session: object, recipients: int) -> str:
        """Return the refusal of DATA, or of the first BDAT."""
        if refusal := self._refuse_connection(RefusalPoint.DATA, mailbox, session):
            return refusal
        found, now = self._of(mailbox), time.monotonic()
        if self._dialect.is_quota_told_early and (
            refusal := self._refuse_today(found, now, recipients)
        ):
            return refusal
        if not self._behaviour.is_excess_delayed:
            window = found.windows[_MESSAGES]
            if not window.has_room(now):
                return self._refused(_MESSAGES, self._dialect.too_often)
            window.take(now)  # at once: other messages may be under way
        return ""

    def refuse_message(self, mailbox: str, session: object, recipients: int) -> str:
        """Return the refusal of a complete message."""
        return self._refuse_connection(RefusalPoint.END, mailbox, session) or self._refuse_today(
            self._of(mailbox), time.monotonic(), recipients
        )

    def accept_message(self, mailbox: str, recipients: int) -> float:
        """Count an accepted message; return for how many seconds its reply must wait."""
        windows, now = self._of(mailbox).windows, time.monotonic()
        windows[_MESSAGES_TODAY].take(now)
        windows[_RECIPIENTS_TODAY].take(now, recipients)
        if not self._behaviour.is_excess_delayed:
            return 0.0
        wait_seconds = windows[_MESSAGES].wait_seconds(now)
        if wait_seconds > 0.0:
            self._counters.delayed_by_limit += 1
        return min(wait_seconds, MAX_WAIT_SECONDS)

    def _of(self, mailbox: str) -> _Mailbox:
        found = self._mailboxes.get(mailbox)
        if found is None:
            found = self._mailboxes[mailbox] = _Mailbox(self._behaviour)
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
            self._mailboxes.move_to_end(name)  # it has a session, and sessions are limited

    def _refuse_connection(self, point: RefusalPoint, mailbox: str, session: object) -> str:
        """Return the refusal of a session beyond the limit, if it is refused at `point`."""
        most = self._behaviour.max_connections_per_mailbox
        if not most or self._behaviour.connections_refused_at is not point:
            return ""
        # The oldest sessions may go on; a later one may as soon as one of them has ended.
        if session in islice(self._of(mailbox).sessions, most):
            return ""
        return self._refused(_CONNECTIONS, self._dialect.too_many_connections)

    def _refuse_today(self, found: _Mailbox, now: float, recipients: int) -> str:
        for name, amount in ((_MESSAGES_TODAY, 1), (_RECIPIENTS_TODAY, recipients)):
            if not found.windows[name].has_room(now, amount):
                return self._refused(name, self._dialect.too_many_today)
        return ""

    def _refused(self, limit: str, text: str) -> str:
        self._counters.refused_by_limit[limit] += 1
        self.met = self._behaviour.describe_limit(limit)
        return text
