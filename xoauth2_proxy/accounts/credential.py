"""Defines the credentials of a mailbox: one for each device or program that sends as it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from xoauth2_proxy.network import plain_address

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.local_password import LocalPassword
    from xoauth2_proxy.accounts.sender_rules import FromRule
    from xoauth2_proxy.network import Address, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one device or program proves itself with, and what it may do.

    Without a password, the client's address is the proof: it must be in `networks`.
    """

    name: str  # unique in its account; that of the account's own password is the mailbox
    login: str = ""  # what the client types, unique over all accounts; "" without a password
    password: LocalPassword | None = None
    networks: tuple[Network, ...] = ()  # where clients may come from; (): anywhere, with a password
    senders: tuple[str, ...] = ()  # address, `*@domain` or `*`; (): as the account allows
    from_rule: FromRule | None = None  # None: the account's
    messages_per_minute: float = 0.0  # 0: no limit, as for the next two
    messages_per_day: int = 0
    max_connections: int = 0  # sessions logged in at one time
    expires: date | datetime | None = None  # a date: at its end, in UTC
    enabled: bool = True

    @property
    def key(self) -> str:
        """The login as it is compared."""
        return login_key(self.login)

    @property
    def is_limited(self) -> bool:
        """Whether its use must be counted."""
        return bool(self.messages_per_minute or self.messages_per_day or self.max_connections)

    def admits(self, address: Address | None) -> bool:
        """Whether a client of this address may use it. None: the address is not known."""
        if not self.networks:
            return self.password is not None
        return address is not None and any(address in one for one in self.networks)

    def is_expired(self, now: float) -> bool:
        """Whether it has ended by `now`, in seconds since the epoch."""
        return self.expires is not None and now >= end_of(self.expires)


def end_of(expires: date | datetime) -> float:
    """Return when that moment, or the end of that day in UTC, is; in seconds since the epoch."""
    if isinstance(expires, datetime):
        return expires.timestamp()
    return datetime.combine(expires + timedelta(days=1), time(), UTC).timestamp()


def login_key(login: str) -> str:
    """Return the normalized login, for comparison."""
    return login.strip().lower()


@lru_cache(maxsize=4096)  # asked for each message of a client that does not log in
def address_of(peer: str) -> Address | None:
    """Return a client's address without zone, IPv4 as IPv4; None if it is no IP address."""
    try:
        return plain_address(ipaddress.ip_address(peer.partition("%")[0]))
    except ValueError:
        return None
