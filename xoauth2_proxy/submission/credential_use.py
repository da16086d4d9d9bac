"""Counts what each limited credential is used for, in all workers together. No I/O.

A worker tells the others of each message and session, in a line, and counts what they tell. So the
limits hold for all of them, but for what is under way in the same milliseconds. What a worker has
counted is lost when its process ends; the others' counts of messages stay.

Messages are counted as MAIL is accepted. The rate is that of the generic cell rate algorithm, of
which half a minute's share may come at once. The day is the last 24 hours, in steps of 5 minutes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import TYPE_CHECKING

from xoauth2_proxy import replies
from xoauth2_proxy.mailboxes.runtime_credentials import credential_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.smtp.protocol import Reply

_BURST_SECONDS = 30.0  # this much of the rate may come at once after a pause
_STEP_SECONDS = 300
_STEPS = 288  # in 24 hours
_SWEEP_AT = 1024  # uses; those of credentials that are not used any more are dropped

_MESSAGE, _SESSIONS, _RESTARTED = "message", "sessions", "restarted"


class CredentialBusy(Exception):
    """A limit of the client's credential is reached; it gets `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class _Use:
    """What one credential has been used for."""

    __slots__ = ("by_step", "in_24_hours", "sessions", "whole_at")

    def __init__(self) -> None:
        self.whole_at = 0.0  # when a whole burst is allowed again
        self.by_step: dict[int, int] = {}  # messages, by the number of the step
        self.in_24_hours = 0
        self.sessions: Counter[int] = Counter()  # by worker

    def advance(self, step: int) -> None:
        """Forget the messages that are more than 24 hours old."""
        for old in [one for one in self.by_step if one <= step - _STEPS]:
            self.in_24_hours -= self.by_step.pop(old)


class CredentialUse:
    """The uses of all limited credentials."""

    def __init__(
        self,
        worker: int = 0,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` sends a line to the other workers; it is called for the first time at once."""
        self._worker = worker
        self._tell = tell
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        tell(f"{_RESTARTED} {worker}")

    def begin_session(self, account: Account, credential: Credential) -> str:
        """Count a session; return the use's name, to end it. Raises `CredentialBusy`."""
        name = use_name(account, credential)
        use, limit = self._use(name), credential.max_connections
        if limit and use.sessions.total() >= limit:
            raise CredentialBusy(replies.too_many_sessions(credential.name, limit))
        use.sessions[self._worker] += 1
        self._tell_sessions(name, use)
        return name

    def end_session(self, name: str) -> None:
        """The session that `begin_session` named has ended."""
        use = self._use(name)
        use.sessions[self._worker] -= 1
        self._tell_sessions(name, use)

    def count_message(self, account: Account, credential: Credential) -> None:
        """Count a message. Raises `CredentialBusy`; then it does not count."""
        per_minute, per_day = credential.messages_per_minute, credential.messages_per_day
        if not (per_minute or per_day):
            return
        name, now = use_name(account, credential), self._clock()
        use = self._use(name)
        interval = 60.0 / per_minute if per_minute else 0.0
        whole_at = max(use.whole_at, now) + interval
        if whole_at - now > max(interval, _BURST_SECONDS):
            raise CredentialBusy(replies.too_many_a_minute(credential.name, per_minute))
        use.advance(int(now) // _STEP_SECONDS)
        if per_day and use.in_24_hours >= per_day:
            raise CredentialBusy(replies.too_many_a_day(credential.name, per_day))
        _count(use, now, interval)
        self._tell(f"{_MESSAGE} {name} {interval!r}")

    def heard(self, line: str) -> bool:
        """Count what another worker has told; return whether the line was about that."""
        word, *rest = line.split(" ")
        if word == _MESSAGE:
            name, interval = rest
            _count(self._use(name), self._clock(), float(interval))
        elif word == _SESSIONS:
            name, worker, count = rest
            self._use(name).sessions[int(worker)] = int(count)
        elif word == _RESTARTED:
            for use in self._uses.values():
                use.sessions.pop(int(rest[0]), None)
        else:
            return False
        return True

    def _tell_sessions(self, name: str, use: _Use) -> None:
        self._tell(f"{_SESSIONS} {name} {self._worker} {use.sessions[self._worker]}")

    def _use(self, name: str) -> _Use:
        use = self._uses.get(name)
        if use is None:
            if len(self._uses) >= _SWEEP_AT and len(self._uses).bit_count() == 1:
                self._sweep()
            use = self._uses[name] = _Use()
        return use

    def _sweep(self) -> None:
        step = int(self._clock()) // _STEP_SECONDS
        for name, use in list(self._uses.items()):
            use.advance(step)
            if not use.in_24_hours and not use.sessions.total():
                del self._uses[name]


def _count(use: _Use, now: float, interval: float) -> None:
    step = int(now) // _STEP_SECONDS
    use.advance(step)
    use.whole_at = max(use.whole_at, now) + interval
    use.by_step[step] = use.by_step.get(step, 0) + 1
    use.in_24_hours += 1


def use_name(account: Account, credential: Credential) -> str:
    """Return what a credential is called between workers: short, without blanks."""
    key = credential_key(account.key, credential.name).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=12).hexdigest()
