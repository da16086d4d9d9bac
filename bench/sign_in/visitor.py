"""What a user needs to go through a provider's pages, by plain HTTP or in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bench.sign_in.callback_server import ExpectedAnswer

MAX_PAGES = 20
MAX_LOGINS = 2  # a login page that comes a third time does not accept the login


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One user's way: from the provider's page back to the callback."""

    url: str = field(repr=False)  # with the state
    callback_url: str
    expected: ExpectedAnswer
    mailbox: str
    password: str = field(repr=False)


class Visitor(Protocol):
    """Goes through pages for users."""

    async def go(self, visit: Visit) -> None:
        """Sign a user in and bring the answer to the callback. Raises `SignInFailed`."""
