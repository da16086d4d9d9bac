"""Decides which clients may connect, and which must go so that others can. No I/O.

A client that has not logged in is a stranger. When a listener is full, a newcomer may take the
place of the stranger that has waited longest:

- A newcomer whose address has logged in lately takes the place of any stranger from an address that
  has not, however new. So a flood from elsewhere cannot keep clients out that log in.
- Any newcomer takes the place of a stranger that had time enough to log in (`GRACE_SECONDS`).

A client that has logged in keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from xoauth2_proxy.submission.address_table import AddressTable

GRACE_SECONDS = 10.0  # enough for a greeting, a TLS handshake and AUTH of a slow device
LATELY_SECONDS = 7 * 86_400  # so that a scanner is known on Monday that was used on Friday
_UNNAMED_EXTRA = 64  # connections of load balancers whose PROXY header is yet to come

Client = TypeVar("Client", bound="Hashable")


class Verdict(Enum):
    """Whether a client may connect."""

    ADMITTED = auto()
    LISTENER_FULL = auto()
    ADDRESS_FULL = auto()


@dataclass(frozen=True, slots=True)
class Decision(Generic[Client]):
    """The verdict on a newcomer, and who must go for it."""

    verdict: Verdict
    displaced: Client | None = None


class Admission(Generic[Client]):
    """The clients of one listener in one process."""

    def __init__(
        self,
        max_clients: int,
        max_per_address: int,
        addresses: AddressTable,
        count_all: Callable[[int], int],
        max_here: int | None = None,
    ) -> None:
        """`count_all` takes the number of clients here and returns that of all processes.

        `max_here` limits this process, whose descriptors are limited.
        """
        self._max_clients = max_clients
        self._max_per_address = max_per_address
        self._max_here = max_clients if max_here is None else max_here
        self._addresses = addresses
        self._count_all = count_all
        self._blocks: dict[Client, bytes] = {}  # of all clients; b"": not yet known
        # Since when each has been here, the longest first.
        self._strangers: OrderedDict[Client, float] = OrderedDict()
        self._known_strangers: OrderedDict[Client, float] = OrderedDict()

    def __len__(self) -> int:
        """The number of clients here."""
        return len(self._blocks)

    def arrive(
        self, client: Client, block: bytes, now: float, *, is_limited: bool = True
    ) -> Decision[Client]:
        """Decide on a client from this address, and count it if it is admitted.

        `is_limited`: whether the limit for each address holds for it. `now` is by
        `time.monotonic`, which all processes share.
        """
        if block and self._addresses.count(block, 1) > self._max_per_address and is_limited:
            self._addresses.count(block, -1)
            return Decision(Verdict.ADDRESS_FULL)
        logged_in_at = self._addresses.last_login(block) if block else 0
        is_known = logged_in_at > 0 and now - logged_in_at < LATELY_SECONDS
        self._blocks[client] = block
        displaced = None
        if self._is_full():
            displaced = self._to_displace(now, is_known=is_known)
            if displaced is None:
                self.leave(client)
                return Decision(Verdict.LISTENER_FULL)
            self.leave(displaced)
        (self._known_strangers if is_known else self._strangers)[client] = now
        return Decision(Verdict.ADMITTED, displaced)

    def arrive_unnamed(self, client: Client) -> Verdict:
        """Count a load balancer's connection until its PROXY header names the client.

        Some are admitted beyond the limit, since only the header tells whose place it is.
        """
        self._blocks[client] = b""
        if self._is_full(_UNNAMED_EXTRA):
            self.leave(client)
            return Verdict.LISTENER_FULL
        return Verdict.ADMITTED

    def identify(
        self, client: Client, block: bytes, now: float, *, is_limited: bool = True
    ) -> Decision[Client]:
        """Decide on a client that `arrive_unnamed` has admitted, now that its address is known."""
        self.leave(client)
        return self.arrive(client, block, now, is_limited=is_limited)

    def log_in(self, client: Client, now: float) -> None:
        """The client has logged in: its place is its own, and its address is known."""
        block = self._blocks.get(client)
        if block:
            self._addresses.note_login(block, max(1, int(now)))
        self._strangers.pop(client, None)
        self._known_strangers.pop(client, None)

    def leave(self, client: Client) -> None:
        """The client has gone; nothing happens if it was not admitted, or has been displaced."""
        block = self._blocks.pop(client, None)
        if block is None:
            return
        if block:
            self._addresses.count(block, -1)
        self._strangers.pop(client, None)
        self._known_strangers.pop(client, None)
        self._count_all(len(self._blocks))

    def _is_full(self, extra: int = 0) -> bool:
        here = len(self._blocks)
        everywhere = self._count_all(here)
        return everywhere > self._max_clients + extra or here > self._max_here + extra

    def _to_displace(self, now: float, *, is_known: bool) -> Client | None:
        """Return the stranger whose place a newcomer may take, or None."""
        grace_seconds = 0.0 if is_known else GRACE_SECONDS
        oldest = _oldest(self._strangers, now - grace_seconds)
        if oldest is None and is_known:
            oldest = _oldest(self._known_strangers, now - GRACE_SECONDS)
        return oldest


def _oldest(strangers: OrderedDict[Client, float], arrived_by: float) -> Client | None:
    for client, arrived_at in strangers.items():
        return client if arrived_at <= arrived_by else None
    return None
