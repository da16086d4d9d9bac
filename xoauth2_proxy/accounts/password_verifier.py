"""Verifies clients' passwords: argon2 once for each login, then a keyed digest in memory."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.local_password import LocalPassword, is_key, octets
from xoauth2_proxy.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

_HASHING_THREADS = 2  # a flood of logins with hashed passwords must not occupy every core
_SUSPECT_THREADS = 1  # for addresses that have failed: they wait for each other, nobody for them
_SUSPECT_NICENESS = 10  # lets the event loop go first where guessers keep every processor busy
# At 30 to 60 ms each, a wait of a few seconds at most; as many again of addresses that have failed,
# which would else fill all places.
_MAX_HASHING = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose password is to be verified: of each address, one hash is made at a time."""

    address: str = ""
    # Raise if the attempt must not be looked at by now: others of the address have failed since.
    check: Callable[[], None] = lambda: None
    is_suspect: bool = False


ANYBODY = Turn()


class PasswordVerifier:
    """Verifies passwords by login; what is in force is given to `replace`."""

    def __init__(self, passwords: Mapping[str, LocalPassword]) -> None:
        """`passwords`: by login, as all methods name it."""
        self._passwords = passwords
        self._secret = secrets.token_bytes(32)
        # Digests of passwords verified against a hash: only a login's first AUTH pays for argon2.
        # At most one entry per login.
        self._verified: dict[str, bytes] = {}
        self.decoy_hash = _decoy(passwords)
        self._threads = ThreadPoolExecutor(_HASHING_THREADS, "argon2")
        self._suspect_threads = ThreadPoolExecutor(_SUSPECT_THREADS, "argon2-suspect", _give_way)
        self._turns: dict[str, _Line] = {}  # by address; only while somebody waits or is hashed
        # Verifications running or waiting for a thread, by whether they are suspect.
        self._hashing = {False: 0, True: 0}

    async def replace(self, passwords: Mapping[str, LocalPassword]) -> None:
        """Replace all passwords; unchanged ones stay verified."""
        self.decoy_hash = await asyncio.to_thread(_decoy, passwords, self.decoy_hash)
        for login in list(self._verified):
            if passwords.get(login) != self._passwords.get(login):
                del self._verified[login]
        self._passwords = passwords

    async def change(self, changes: Mapping[str, LocalPassword | None]) -> None:
        """Replace the passwords of some logins; None: there is no such login any more."""
        passwords = {login: one for login, one in changes.items() if one is not None}
        costliest = {"": LocalPassword(argon2_hash=self.decoy_hash)} | passwords
        self.decoy_hash = await asyncio.to_thread(_decoy, costliest, self.decoy_hash)
        for login, new in changes.items():
            if new != self._passwords.get(login):
                self._verified.pop(login, None)
        gone = changes.keys() - passwords.keys()
        others = {login: one for login, one in self._passwords.items() if login not in gone}
        self._passwords = others | passwords

    async def is_right(
        self, login: str, password: str, turn: Turn = ANYBODY, *, has_decoy: bool = True
    ) -> bool:
        """Whether this is the login's password.

        With `has_decoy`, an unknown login costs the same work as a wrong password, so that the
        timing does not reveal which logins exist.

        Raises:
            Overloaded: too many passwords are waiting to be hashed.
            What `turn.check` raises.
        """
        expected = self._passwords.get(login)
        digest = self._digest(password)
        known = expected or LocalPassword()
        if hmac.compare_digest(digest, self._digest(known.clear_text)) and known.clear_text:
            return True
        if known.key_digest and is_key(password, known.key_digest):
            return True
        if not self.decoy_hash or not (known.argon2_hash or has_decoy):
            return False
        if self._is_remembered(login, digest):
            return True
        is_suspect = turn.is_suspect
        if self._hashing[is_suspect] >= _MAX_HASHING:
            raise Overloaded("too many passwords are waiting to be hashed")
        self._hashing[is_suspect] += 1
        try:
            async with self._turn(turn.address):
                if self._is_remembered(login, digest):  # it was verified meanwhile
                    return True
                turn.check()
                threads = self._suspect_threads if is_suspect else self._threads
                return await self._matches_hash(login, password, digest, threads)
        finally:
            self._hashing[is_suspect] -= 1

    def answers(self, login: str, challenge: bytes, digest: bytes) -> bool:
        """Whether this is the HMAC-MD5 of the challenge, keyed by the login's password (RFC 2195).

        Only a password known in clear can tell. An unknown login costs the same work.
        """
        expected = self._passwords.get(login)
        clear_text = expected.clear_text if expected is not None else ""
        key = octets(clear_text) or self._secret
        return hmac.compare_digest(hmac.digest(key, challenge, "md5"), digest)

    def close(self) -> None:
        """Release the hashing threads."""
        for threads in (self._threads, self._suspect_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _is_remembered(self, login: str, digest: bytes) -> bool:
        known = self._verified.get(login)
        return known is not None and hmac.compare_digest(known, digest)

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncIterator[None]:
        """Wait until no other password of this address is being hashed."""
        if not address:
            yield
            return
        line = self._turns.setdefault(address, _Line())
        line.length += 1
        try:
            async with line.lock:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._turns[address]

    async def _matches_hash(
        self, login: str, password: str, digest: bytes, threads: ThreadPoolExecutor
    ) -> bool:
        expected = self._passwords.get(login)
        stored = expected.argon2_hash if expected else ""
        # If the client leaves, this is cancelled, and so is the hash unless it has begun.
        matches = await asyncio.get_running_loop().run_in_executor(
            threads, _hash_matches, stored or self.decoy_hash, password
        )
        if not stored or not matches:
            return False
        if self._passwords.get(login) == expected:  # not replaced in the meantime
            self._verified[login] = digest
        return True

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._secret, octets(password), hashlib.sha256)


@dataclass(slots=True)
class _Line:
    """Those who wait for a hash at one address, and the one whose turn it is."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


def _give_way() -> None:
    """Lower the priority of this thread. Only Linux has one for each thread."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + _SUSPECT_NICENESS)


def _hash_matches(stored: str, password: str) -> bool:
    import argon2  # here, since only hashed passwords need it

    try:
        return argon2.PasswordHasher().verify(stored, octets(password))
    except argon2.exceptions.VerificationError:
        return False


def _decoy(passwords: Mapping[str, LocalPassword], former: str = "") -> str:
    """Return a dummy hash, as costly to verify as the costliest of `passwords`; "" for none.

    The former one is reused if possible, since making a hash is as costly.
    """
    hashes = [one.argon2_hash for one in passwords.values() if one.argon2_hash]
    if not hashes:
        return ""
    import argon2

    parameters = map(argon2.extract_parameters, hashes)
    costliest = max(parameters, key=lambda one: one.time_cost * one.memory_cost)
    if former and argon2.extract_parameters(former) == costliest:
        return former
    return argon2.PasswordHasher.from_parameters(costliest).hash(secrets.token_hex())
