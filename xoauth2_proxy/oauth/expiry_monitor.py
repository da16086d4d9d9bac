"""Monitors all mailboxes: counts their states, and warns before a person must act.

A warning is logged and sent when a mailbox begins to need a person, every day after that, and once
when it works again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import IS_WELL, MailboxStatus, status_of, unreadable_status
from xoauth2_proxy.oauth.refresh import current_grant
from xoauth2_proxy.oauth.webhook import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.oauth.token_request import Clock
    from xoauth2_proxy.oauth.webhook import Webhook


CHECK_SECONDS = 60.0  # between two checks
_REMIND_SECONDS = 86_400.0
_CONCURRENT_LOADS = 50  # grants loaded at the same time

_log = log.logger("watch")


async def mailbox_statuses(
    accounts: Iterable[Account], store: TokenStore, now: EpochSeconds, warn_days: int
) -> list[MailboxStatus]:
    """Return each account's status, in the same order; a failing store is named in each."""
    rest, found = list(accounts), list[MailboxStatus]()
    while rest:
        chunk, rest = rest[:_CONCURRENT_LOADS], rest[_CONCURRENT_LOADS:]
        checks = [_status_of(account, store, now, warn_days) for account in chunk]
        answers = await asyncio.gather(*checks)
        found += [answer for answer, _ in answers]
        if all(why for _, why in answers):
            # The store failed for all of them; the others would only wait for the same failure.
            return found + [unreadable_status(account, answers[0][1]) for account in rest]
    return found


async def _status_of(
    account: Account, store: TokenStore, now: EpochSeconds, warn_days: int
) -> tuple[MailboxStatus, str]:
    """Return the status, and why the store could not be read ("": it could)."""
    stored = None
    if account.keeps_tokens:
        try:
            stored = await store.load(account.key)
        except TokenStoreUnavailable as error:
            return unreadable_status(account, str(error)), str(error) or "unavailable"
    grant = current_grant(account, stored, now)
    return status_of(account, grant, now, warn_days), ""


@dataclass
class ExpiryMonitor:
    """Checks all mailboxes once a minute; a relay has one."""

    store: TokenStore
    metrics: Metrics
    accounts: Callable[[], Iterable[Account]]  # those in force
    warn_days: int
    webhook: Webhook | None = None
    clock: Clock = time
    _warned_at: dict[str, float] = field(default_factory=dict)  # by mailbox that needs a person
    _pending: dict[str, Notice] = field(default_factory=dict)  # by mailbox, for the webhook
    _counted: set[tuple[str, str]] = field(default_factory=set)

    async def run(self) -> None:
        """Check once a minute, until cancelled."""
        while True:
            try:
                await self.check_all()
            except Exception:
                _log.exception("the check of the mailboxes failed")
            await asyncio.sleep(CHECK_SECONDS)

    async def check_all(self) -> list[MailboxStatus]:
        """Check all mailboxes once: count, warn, notify the webhook; return their statuses."""
        now = EpochSeconds(self.clock.time())
        found = await mailbox_statuses(self.accounts(), self.store, now, self.warn_days)
        self._count(found)
        self._warn(found, now)
        if self.webhook is not None and self._pending:
            waiting = list(self._pending.items())
            done = await self.webhook.deliver([notice for _, notice in waiting])
            for mailbox, notice in waiting[:done]:
                if self._pending.get(mailbox) is notice:
                    del self._pending[mailbox]
        return found

    def _count(self, found: list[MailboxStatus]) -> None:
        counts = Counter((one.provider, one.state.value) for one in found)
        for gone in self._counted - counts.keys():
            self.metrics.mailboxes.labels(*gone).set(0)
        for labels, count in counts.items():
            self.metrics.mailboxes.labels(*labels).set(count)
        self._counted |= counts.keys()

    def _warn(self, found: list[MailboxStatus], now: EpochSeconds) -> None:
        present = {one.mailbox for one in found}
        for mailbox in [one for one in self._warned_at if one not in present]:
            del self._warned_at[mailbox]
            self._pending.pop(mailbox, None)
        for one in found:
            warned_at = self._warned_at.get(one.mailbox)
            if one.needs_a_person and (warned_at is None or now - warned_at >= _REMIND_SECONDS):
                self._warned_at[one.mailbox] = now
                self._announce(one, now, is_well=False)
            elif one.state in IS_WELL and warned_at is not None:
                del self._warned_at[one.mailbox]
                self._announce(one, now, is_well=True)

    def _announce(self, one: MailboxStatus, now: EpochSeconds, *, is_well: bool) -> None:
        shown = {"account": one.mailbox, "provider": one.provider, "state": one.state}
        if is_well:
            _log.event(logging.INFO, "mailbox is well again", **shown)
        else:
            days_left = "" if one.days_left is None else round(one.days_left, 1)
            reasons = {"days_left": days_left, "reason": one.reason, "remedy": one.remedy}
            _log.event(logging.WARNING, "mailbox needs a person", **shown, **reasons)
        if self.webhook is not None:
            self._pending[one.mailbox] = Notice(is_well, one, now)
