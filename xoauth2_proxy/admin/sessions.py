"""Login sessions of the admin pages, and the count of failed logins. In memory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS = 3600.0
LIFETIME_SECONDS = 12 * 3600.0  # a working day
_MAX_SESSIONS = 100  # the least recently used one makes room
_WINDOW_SECONDS = 60.0
_MAX_FAILURES = 5  # of one address within that window
_MAX_ADDRESSES = 1000


@dataclass(slots=True)
class _Session:
    begun_at: float
    used_at: float


class Sessions:
    """Sessions by the random id in a browser's cookie; only its digest is stored."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_digest: dict[bytes, _Session] = {}  # least recently used first
        self._secret = secrets.token_bytes(32)

    def open(self) -> str:
        """Return the id of a new session."""
        session_id = new_id()
        while len(self._by_digest) >= _MAX_SESSIONS:
            del self._by_digest[next(iter(self._by_digest))]
        now = self._clock()
        self._by_digest[_digest(session_id)] = _Session(now, now)
        return session_id

    def use(self, session_id: str) -> bool:
        """Return whether the session is open; if so, extend it."""
        digest = _digest(session_id)
        session = self._by_digest.pop(digest, None)
        now = self._clock()
        if (
            session is None
            or now - session.begun_at >= LIFETIME_SECONDS
            or now - session.used_at >= IDLE_SECONDS
        ):
            return False
        session.used_at = now
        self._by_digest[digest] = session
        return True

    def close(self, session_id: str) -> None:
        """End the session, if it is open."""
        self._by_digest.pop(_digest(session_id), None)

    def sign(self, purpose: str, session_id: str) -> str:
        """Return a signature of the id and purpose that only this process can make."""
        named = f"{purpose} {session_id}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret, named, "sha256").hex()

    def is_signature(self, signature: str, purpose: str, session_id: str) -> bool:
        """Whether `signature` is the one that `sign` returns."""
        right = self.sign(purpose, session_id)
        return hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), right.encode())


class FailedLogins:
    """Counts wrong tokens by client address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_address: dict[str, list[float]] = {}

    def wait_seconds(self, address: str) -> float:
        """Return the seconds until the address may try again; 0: now."""
        now = self._clock()
        recent = [one for one in self._by_address.get(address, ()) if now - one < _WINDOW_SECONDS]
        if len(recent) < _MAX_FAILURES:
            return 0.0
        return recent[-_MAX_FAILURES] + _WINDOW_SECONDS - now

    def add(self, address: str) -> None:
        """Count a failure."""
        recent = self._by_address.pop(address, [])[-_MAX_FAILURES + 1 :]
        while len(self._by_address) >= _MAX_ADDRESSES:
            del self._by_address[next(iter(self._by_address))]
        self._by_address[address] = [*recent, self._clock()]


def new_id() -> str:
    """Return a random id that cannot be guessed."""
    return secrets.token_urlsafe(32)


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "surrogateescape")).digest()
