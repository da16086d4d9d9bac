"""Keeps what each client address did lately, in bounded memory, newest last.

I1: at most `MAX_CLIENTS` addresses, half of them for clients that never sent a message: addresses
that come and go cannot displace the devices.
I2: every text is short and on one line. None is a password, a token or content.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from xoauth2_proxy.clients.interface import Refused
from xoauth2_proxy.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xoauth2_proxy.clients.interface import ConnectedClient
    from xoauth2_proxy.smtp.protocol import Reply

MAX_CLIENTS = 2000
_MAX_TEXT = 128  # characters of an address, a name, or a detail
_MAX_REPLY = 200


class Outcome(StrEnum):
    """What became of a client's last attempt."""

    SENT = "sent"  # the provider has accepted its message
    REFUSED = "refused"  # its message was refused
    DELAYED = "delayed"  # its message got a 4yz, and it is to try again
    TURNED_AWAY = "turned_away"  # it could not even send one


@dataclass(slots=True)
class ClientSeen:
    """One client address, and the last that was seen of it."""

    address: str
    first_seen: float = 0.0  # seconds since the epoch
    last_seen: float = 0.0
    last_sent: float = 0.0  # when a message of it was accepted; 0: never
    messages: int = 0  # accepted
    refusals: int = 0  # messages refused, and times it was turned away
    outcome: Outcome = Outcome.TURNED_AWAY
    reason: str = ""  # a value of `Refused`; "": it was not turned away
    detail: str = ""
    reply: str = ""
    greeting: str = ""
    listener: str = ""
    tls: str = ""  # the version; "": in clear
    mechanism: str = ""
    login: str = ""  # known, or masked
    account: str = ""
    credential: str = ""
    sender: str = ""  # of its last message
    size_bytes: int = 0  # of its last message

    def to_json(self) -> dict[str, object]:
        """Return all fields, for the channel between processes."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, object]) -> ClientSeen:
        """Return what `to_json` made. Raises `TypeError`, `ValueError`, `KeyError`."""
        known = {one.name: document[one.name] for one in fields(cls)}
        return cls(**known | {"outcome": Outcome(str(known["outcome"]))})  # type: ignore[arg-type]


class ClientRecord:
    """What was seen of clients, by address."""

    def __init__(
        self, max_clients: int = MAX_CLIENTS, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._most = max(1, max_clients // 2)  # of each kind
        self._senders: OrderedDict[str, ClientSeen] = OrderedDict()  # in the order of `last_seen`
        self._strangers: OrderedDict[str, ClientSeen] = OrderedDict()  # never sent a message

    def turned_away(self, client: ConnectedClient) -> None:
        """Note that a client was turned away.

        If it only left, what it was refused for before is kept: that tells the administrator more.
        """
        before = self._find(_text(client.address))
        if client.reason is Refused.LEFT and before is not None and _is_explained(before):
            before.last_seen = self._clock()
            self._keep(before)
            return
        seen = self._seen(client)
        if client.reason is not Refused.LEFT:
            seen.refusals += client.attempts
        seen.outcome = Outcome.TURNED_AWAY
        seen.reply = one_line(str(client.reply or ""), _MAX_REPLY)
        if client.sender:
            seen.sender, seen.size_bytes = _text(client.sender), 0
        self._keep(seen)

    def finished(self, client: ConnectedClient, sender: str, size_bytes: int, reply: Reply) -> None:
        """Note that a transaction got its final reply."""
        seen = self._seen(client)
        seen.sender = _text(sender)
        seen.size_bytes = size_bytes
        if reply.is_positive:
            seen.messages += 1
            seen.last_sent = seen.last_seen
            seen.outcome = Outcome.SENT
            seen.reply = ""
        else:
            seen.refusals += 1
            seen.outcome = Outcome.DELAYED if reply.is_transient else Outcome.REFUSED
            seen.reply = one_line(str(reply), _MAX_REPLY)
            if client.reason is None:
                is_passing = reply.is_transient
                seen.reason = Refused.MESSAGE_DELAYED if is_passing else Refused.MESSAGE_REFUSED
                seen.detail = _text(str(reply))
        self._keep(seen)

    def merge(self, newer: Iterable[ClientSeen]) -> None:
        """Add what another process has seen since it last told."""
        for one in newer:
            kept = self._find(one.address)
            if kept is not None and _has_only_left(one) and _is_explained(kept):
                kept.last_seen = max(kept.last_seen, one.last_seen)
                self._keep(kept)
                continue
            if kept is not None:
                one.first_seen = min(one.first_seen, kept.first_seen)
                one.last_sent = max(one.last_sent, kept.last_sent)
                one.messages += kept.messages
                one.refusals += kept.refusals
            self._keep(one)

    def take(self) -> list[ClientSeen]:
        """Return and forget everything, the oldest first."""
        taken = self.newest_first()
        self._senders.clear()
        self._strangers.clear()
        return taken[::-1]

    def newest_first(self) -> list[ClientSeen]:
        """Return everything."""
        everything = [*self._senders.values(), *self._strangers.values()]
        return sorted(everything, key=lambda one: one.last_seen, reverse=True)

    def find(self, address: str) -> ClientSeen | None:
        """Return what was seen of this address, or None."""
        return self._find(address)

    def _find(self, address: str) -> ClientSeen | None:
        return self._senders.get(address) or self._strangers.get(address)

    def _seen(self, client: ConnectedClient) -> ClientSeen:
        """Return the client's entry with the facts of its session."""
        address = _text(client.address)
        seen = self._find(address) or ClientSeen(address)
        seen.last_seen = self._clock()
        seen.first_seen = seen.first_seen or seen.last_seen
        seen.reason = client.reason or ""
        seen.detail = _text(client.detail)
        seen.greeting = _text(client.greeting)
        seen.listener = _text(client.listener)
        seen.tls = client.tls
        seen.mechanism = _text(client.mechanism)
        seen.login = _text(client.login)
        seen.account = _text(client.account)
        seen.credential = _text(client.credential)
        return seen

    def _keep(self, seen: ClientSeen) -> None:
        """Put an entry at the end of its kind; drop the oldest where there are too many."""
        kind, other = self._strangers, self._senders
        if seen.messages:
            kind, other = other, kind
        if kind.get(seen.address) is seen:
            kind.move_to_end(seen.address)
            return
        other.pop(seen.address, None)
        kind.pop(seen.address, None)
        kind[seen.address] = seen
        if len(kind) > self._most:
            kind.popitem(last=False)


def _is_explained(seen: ClientSeen) -> bool:
    """Whether its last attempt failed, for a reason that is known."""
    return seen.reason not in ("", Refused.LEFT)


def _has_only_left(seen: ClientSeen) -> bool:
    return seen.reason == Refused.LEFT and not seen.messages and not seen.refusals


@lru_cache(maxsize=1024)  # a client says the same in each session
def _text(text: str) -> str:
    if len(text) <= _MAX_TEXT and text.isprintable():
        return text
    return one_line(text, _MAX_TEXT)
