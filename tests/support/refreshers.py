"""A refresher that does what a test says, when it says so."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.grant import AccessToken, Monotonic

if TYPE_CHECKING:
    from xoauth2_proxy.accounts import Account


class ScriptedRefresher:
    """Gives out token-1, token-2 and so on, unless `fails_with` says otherwise."""

    def __init__(self, lifetime_seconds: float = 3600.0) -> None:
        self.lifetime_seconds = lifetime_seconds
        self.fails_with: BaseException | None = None
        self.asked: list[str] = []  # e-mail addresses
        self.cancelled = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_asked = asyncio.Event()

    async def refresh(self, account: Account) -> AccessToken:
        self.asked.append(account.email)
        number = len(self.asked)
        self.is_asked.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails_with is not None:
            raise self.fails_with
        now = Monotonic(time.monotonic())
        return AccessToken.issued(f"token-{number}", now, self.lifetime_seconds)
