"""A refresher and a clock that do what a test says, when it says so, and mailboxes to refresh."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.oauth.grant import TokenResponse

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.grant import Grant

FIRST_REFRESH_TOKEN = "refresh-0"


class Clock:
    """Time as the code under test sees it, ahead of the real one by as much as a test says."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self.wrong_by_seconds = 0.0  # the date alone

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds

    def time(self) -> float:
        return time.time() + self.ahead_seconds + self.wrong_by_seconds


class ScriptedRefresher:
    """Gives out token-1, token-2 and so on, unless `fails_with` says otherwise."""

    def __init__(self, lifetime_seconds: float = 3600.0) -> None:
        self.lifetime_seconds = lifetime_seconds
        self.rotates = False  # with token-1 comes refresh-1, and so on
        self.fails_with: BaseException | None = None
        self.asked: list[str] = []  # e-mail addresses
        self.presented: list[str] = []  # refresh tokens
        self.cancelled = 0
        self.at_once = 0  # requests under way
        self.peak = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_asked = asyncio.Event()

    async def refresh(self, grant: Grant) -> TokenResponse:
        self.asked.append(grant.mailbox)
        self.presented.append(grant.refresh_token)
        number = len(self.asked)
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        self.is_asked.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        if self.fails_with is not None:
            raise self.fails_with
        return TokenResponse(
            access_token=f"token-{number}",
            lifetime_seconds=self.lifetime_seconds,
            refresh_token=f"refresh-{number}" if self.rotates else "",
        )


def signed_in(email: str = "someone@example.com", **oauth: Any) -> Account:
    """Return a mailbox with a refresh token; `oauth` changes its settings."""
    settings: dict[str, Any] = {"client_id": "relay", "refresh_token": FIRST_REFRESH_TOKEN}
    return replace(mailbox(email), oauth=OAuthClient(**(settings | oauth)))
