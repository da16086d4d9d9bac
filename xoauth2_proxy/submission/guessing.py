"""Slows clients that guess passwords, by address and by login, in bounded memory. No I/O.

A failed login adds to the debts of its address (an IPv6 /64, and less to its /48) and of its login;
a debt is forgiven with time. From a third of the limit on, a refusal is delayed; beyond the limit,
logins are turned away unchecked until some of the debt is forgiven.

I1: an address that logged in with this login before has a debt of its own for it: nobody elsewhere,
and no other login at that address, can keep the device out.
I2: a success forgives nothing but that: a guesser with one password of its own gains nothing.
I3: known and unknown logins are treated alike.
I4: at most `_MAX_REMEMBERED` addresses, logins and pairs are remembered; the least recent go first.

Workers tell each other of failures, and of pairs of login and address that are new, in lines.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.submission.address_table import client_block

if TYPE_CHECKING:
    from collections.abc import Callable

_FORGIVEN_SECONDS = 10.0  # the time in which one failure is forgiven
_MAX_DELAY_SECONDS = 8.0
_PREFIX_SHARE = 1 / 16  # what a failure adds to the debt of an IPv6 /48
_PREFIX_BYTES = 6
_MAX_REMEMBERED = 20_000
_TOLERANCE = 1e-6  # of the arithmetic
_GUESSED, _USUAL = "guessed", "usual"


class Debts:
    """The debts of many debtors, in failures; the least recent of too many are forgotten."""

    def __init__(self, clock: Callable[[], float], most: int = _MAX_REMEMBERED) -> None:
        self._clock = clock
        self._most = most
        self._paid_at: OrderedDict[str, float] = OrderedDict()  # when a debt will be forgiven

    def __len__(self) -> int:
        return len(self._paid_at)

    def of(self, debtor: str) -> float:
        """Return how many failures are not forgiven yet."""
        return max(0.0, self._paid_at.get(debtor, 0.0) - self._clock()) / _FORGIVEN_SECONDS

    def add(self, debtor: str, failures: float, most: float) -> None:
        """Add failures; the debt does not exceed `most`."""
        debt = min(self.of(debtor) + failures, most)
        self._paid_at[debtor] = self._clock() + debt * _FORGIVEN_SECONDS
        self._paid_at.move_to_end(debtor)
        while len(self._paid_at) > self._most:
            self._paid_at.popitem(last=False)

    def forgive(self, debtor: str) -> None:
        """Forget all of a debt."""
        self._paid_at.pop(debtor, None)


class Guessing:
    """Who has failed to log in, and what comes of it."""

    def __init__(
        self,
        max_failures: int,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_failures` is the limit, 0: none; `tell` says a line to the other workers."""
        self._limit = max_failures
        self._tell = tell
        self._addresses = Debts(clock)
        self._logins = Debts(clock)
        self._pairs = Debts(clock)
        self._key = secrets.token_bytes(16)
        self._wrong: OrderedDict[str, bytes] = OrderedDict()  # digest of what a pair tried last
        self._usual: OrderedDict[str, None] = OrderedDict()  # pairs that have logged in

    def address_of(self, peer: str) -> str:
        """Return what the address is known by: itself, or its IPv6 /64; "" without a limit."""
        return _places(peer)[0] if self._limit else ""

    def is_suspect(self, peer: str) -> bool:
        """Whether the address has failed lately."""
        return any(self._addresses.of(one) > 0 for one in _places(peer))

    def must_wait(self, peer: str, login: str) -> bool:
        """Whether this attempt is to be turned away unchecked."""
        if not self._limit:
            return False
        return self._debt(_places(peer), _digest(login)) + 1 > self._limit + _TOLERANCE

    def failed(self, peer: str, login: str, secret: str = "", weight: float = 1.0) -> float:
        """Count a failed attempt; return the seconds to wait before it is answered.

        The same secret again tells a guesser nothing, and does not count: so a device with an old
        password, which tries it forever, does not burden its address.
        """
        if not self._limit:
            return 0.0
        places, digest = _places(peer), _digest(login)
        if not self._is_repeated(_pair(places, digest), secret):
            self._count(places, digest, weight)
            self._tell(f"{_GUESSED} {','.join(places)} {digest} {weight!r}")
        free = self._limit / 3
        over = (self._debt(places, digest) - free) / max(1.0, self._limit - free)
        return min(1.0, max(0.0, over)) * _MAX_DELAY_SECONDS

    def succeeded(self, peer: str, login: str) -> None:
        """Note that this address logs in with this login: it is a usual one."""
        if not self._limit:
            return
        pair = _pair(_places(peer), _digest(login))
        if pair not in self._usual:
            self._tell(f"{_USUAL} {pair}")
        self._note_usual(pair)

    def heard(self, line: str) -> bool:
        """Count what another worker has told; return whether the line was about that."""
        word, *rest = line.split(" ")
        if word == _GUESSED:
            places, digest, weight = rest
            self._count(tuple(places.split(",")), digest, float(weight))
        elif word == _USUAL:
            self._note_usual(rest[0])
        else:
            return False
        return True

    def _is_repeated(self, pair: str, secret: str) -> bool:
        octets = secret.encode("utf-8", "surrogatepass")
        wrong = hashlib.blake2b(octets, digest_size=16, key=self._key).digest()
        is_repeated = bool(secret) and self._wrong.get(pair) == wrong
        self._wrong[pair] = wrong
        self._wrong.move_to_end(pair)
        while len(self._wrong) > _MAX_REMEMBERED:
            self._wrong.popitem(last=False)
        return is_repeated

    def _count(self, places: tuple[str, ...], digest: str, weight: float) -> None:
        most = 2.0 * self._limit  # so that a debt is forgiven in a foreseeable time
        pair = _pair(places, digest)
        if pair in self._usual:
            self._pairs.add(pair, weight, most)
            return
        address, *prefix = places
        self._addresses.add(address, weight, most)
        for one in prefix:
            self._addresses.add(one, weight * _PREFIX_SHARE, most)
        self._logins.add(digest, weight, most)

    def _debt(self, places: tuple[str, ...], digest: str) -> float:
        pair = _pair(places, digest)
        if pair in self._usual:
            return self._pairs.of(pair)
        return max(self._logins.of(digest), *(self._addresses.of(one) for one in places))

    def _note_usual(self, pair: str) -> None:
        self._pairs.forgive(pair)
        self._usual[pair] = None
        self._usual.move_to_end(pair)
        while len(self._usual) > _MAX_REMEMBERED:
            self._usual.popitem(last=False)


@lru_cache(maxsize=4096)  # several times for each login
def _places(peer: str) -> tuple[str, ...]:
    """Return what an address is known by: itself or its IPv6 /64, then the /48."""
    block = client_block(peer)
    places = (block.hex() or "-",)
    return (*places, block[:_PREFIX_BYTES].hex()) if len(block) > _PREFIX_BYTES else places


def _digest(login: str) -> str:
    """Return what a login is known by: it may be a password that was typed in the wrong field."""
    octets = login_key(login).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(octets, digest_size=12).hexdigest()


def _pair(places: tuple[str, ...], digest: str) -> str:
    return f"{places[0]}/{digest}"
