"""The mailboxes that a run creates: their names and passwords. Plain values."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ACCOUNTS = 1000
DOMAIN = "mock.test"  # RFC 6761 §6.2 reserves .test
_PASSWORD_BYTES = 18  # 24 characters
_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?", re.ASCII)


def is_prefix(text: str) -> bool:
    """Return whether this is a valid prefix for the names of a run's mailboxes."""
    return _PREFIX.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxesToAdd:
    """The mailboxes to create for a run."""

    count: int
    user_prefix: str = "bench"
    min_count: int | None = None  # with fewer the run is cancelled; None: all are needed
    is_kept: bool = False  # they are kept and listed
    mailboxes: tuple[BenchMailbox, ...] = field(init=False)  # each with a random password

    def __post_init__(self) -> None:
        if not is_prefix(self.user_prefix):
            raise ValueError(f"{self.user_prefix!r} cannot begin a mail address: a-z, 0-9, . _ -")
        if not 1 <= (self.min_count or 1) <= self.count <= MAX_ACCOUNTS:
            raise ValueError(f"no more than {MAX_ACCOUNTS} mailboxes, and as many as are needed.")
        names = (f"{self.user_prefix}_user{n:03d}@{DOMAIN}" for n in range(1, self.count + 1))
        made = tuple(BenchMailbox(name, secrets.token_urlsafe(_PASSWORD_BYTES)) for name in names)
        object.__setattr__(self, "mailboxes", made)


@dataclass(frozen=True, slots=True)
class BenchMailbox:
    """A mailbox and its password at the proxy."""

    address: str
    password: str = field(repr=False)
    # Its provider at the proxy and the keys of its grant; {}: the mock provider, without a grant.
    oauth: Mapping[str, object] = field(default_factory=dict, repr=False)

    def document(self, *, is_hashed: bool = False) -> dict[str, object]:
        """Return it as an account of a proxy's configuration."""
        password = _hashed(self.password) if is_hashed else self.password
        return {"email": self.address, "provider": "mock", "password": password, **self.oauth}


def _hashed(password: str) -> str:
    import argon2  # needed only by runs that create mailboxes

    # Random passwords of this length need no slow hash; at the usual cost, hashing a hundred would
    # take the proxy half a minute.
    return argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
