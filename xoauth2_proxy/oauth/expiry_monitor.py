"""Looks after all mailboxes: counts how they stand, and says in time who needs a person.

A warning comes when a mailbox begins to need somebody, again every day, and once more when it is
well.
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
from xoauth2_proxy.oauth.mailbox_status import IS_WELL, Standing, standing, unreadable
from xoauth2_proxy.oauth.refresh import current_grant
from xoauth2_proxy.oauth.webhook import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.oauth.token_request import Clock
    from xoauth2_proxy.oauth.webhook import Webhook


LOOK_SECONDS = 60.0  # between two looks
_REMIND_SECONDS = 86_400.0
_AT_ONE_TIME = 50  # grants that are loaded together

_log = log.logger("watch")


async def standings(
    accounts: Iterable[Account], store: TokenStore, now: EpochSeconds, warn_days: int
) -> list[Standing]:
    """Return how each account stands, in the same order; a store that fails is told in each."""
    rest, found = list(accounts), list[Standing]()
    trouble = ""
    while rest:
        chunk, rest = rest[:_AT_ONE_TIME], rest[_AT_ONE_TIME:]
        if trouble:
            found += [unreadable(account, trouble) for account in chunk]
            continue
        looks = [_look_at(account, store, now, warn_days) for account in chunk]
        answers = await asyncio.gather(*looks)
        found += [answer for answer, _ in answers]
        # A store that failed for all of them would let the rest wait for nothing.
        if all(why for _, why in answers):
            trouble = answers[0][1]
    return found


async def _look_at(
    account: Account, store: TokenStore, now: EpochSeconds, warn_days: int
) -> tuple[Standing, str]:
    """Return the standing, and why the store could not be read ("": it could)."""
    kept = None
    if not account.oauth.is_empty:
        try:
            kept = await store.load(account.key)
        except TokenStoreUnavailable as error:
            return unreadable(account, str(error)), str(error) or "unavailable"
    grant = current_grant(account, kept, now)
    return standing(account, grant, now, warn_days), ""


@dataclass
class Watch:
    """Looks at all mailboxes again and again; one for each store and configuration is enough."""

    store: TokenStore
    metrics: Metrics
    accounts: Callable[[], Iterable[Account]]  # those there are now
    warn_days: int
    webhook: Webhook | None = None
    clock: Clock = time
    _warned_at: dict[str, float] = field(default_factory=dict)  # by mailbox that needs a person
    _pending: dict[str, Notice] = field(default_factory=dict)  # by mailbox, for the webhook
    _counted: set[tuple[str, str]] = field(default_factory=set)

    async def run(self) -> None:
        """Look once a minute, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("the look at the mailboxes failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> list[Standing]:
        """Look at all mailboxes once: count, warn, tell the webhook; return how they stand."""
        now = EpochSeconds(self.clock.time())
        found = await standings(self.accounts(), self.store, now, self.warn_days)
        self._count(found)
        self._warn(found, now)
        if self.webhook is not None and self._pending:
            waiting = list(self._pending.items())
            done = await self.webhook.deliver([notice for _, notice in waiting])
            for mailbox, notice in waiting[:done]:
                if self._pending.get(mailbox) is notice:
                    del self._pending[mailbox]
        return found

    def _count(self, found: list[Standing]) -> None:
        counts = Counter((one.provider, one.state.value) for one in found)
        for gone in self._counted - counts.keys():
            self.metrics.mailboxes.labels(*gone).set(0)
        for labels, count in counts.items():
            self.metrics.mailboxes.labels(*labels).set(count)
        self._counted |= counts.keys()

    def _warn(self, found: list[Standing], now: EpochSeconds) -> None:
        present = {one.mailbox for one in found}
        for mailbox in [one for one in self._warned_at if one not in present]:
            del self._warned_at[mailbox]
            self._pending.pop(mailbox, None)
        for one in found:
            warned_at = self._warned_at.get(one.mailbox)
            if one.needs_a_person and (warned_at is None or now - warned_at >= _REMIND_SECONDS):
                self._warned_at[one.mailbox] = now
                self._say(one, now, is_well=False)
            elif one.state in IS_WELL and warned_at is not None:
                del self._warned_at[one.mailbox]
                self._say(one, now, is_well=True)

    def _say(self, one: Standing, now: EpochSeconds, *, is_well: bool) -> None:
        fields: dict[str, object] = {"account": one.mailbox, "provider": one.provider}
        fields["state"] = one.state
        if not is_well:
            days_left = "" if one.days_left is None else round(one.days_left, 1)
            fields |= {"days_left": days_left, "reason": one.reason, "remedy": one.remedy}
        _log.event(
            logging.INFO if is_well else logging.WARNING,
            "mailbox is well again" if is_well else "mailbox needs a person",
            **fields,
        )
        if self.webhook is not None:
            self._pending[one.mailbox] = Notice(is_well, one, now)
