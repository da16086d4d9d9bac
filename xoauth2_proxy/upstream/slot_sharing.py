"""What the workers of one proxy bargain about: which of them may use a mailbox's connections.

A worker that needs a slot which others hold asks them for it, and goes on asking. A worker that is
asked gives up an idle connection at once, and a busy one after a while, to a worker that has none
or many fewer. `worker_slots` holds the slots; this module decides.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.upstream.connection import Connection
    from xoauth2_proxy.upstream.worker_slots import MailboxSlots, WorkerSlots

_ASK_SECONDS = 0.05  # how often a slot that others hold is asked for, while it is waited for
_WANTED_SECONDS = 4 * _ASK_SECONDS  # how long such a request counts
_BETWEEN_MESSAGES_SECONDS = 0.05  # a connection idle for longer is not just between two messages
# What a connection may do before it is given up although it is needed here as well: five times what
# its opening took, so that a sixth of the time at most goes into opening.
_TENURE_OPENINGS = 5
_MIN_TENURE_SECONDS = 0.25
_MAX_TENURE_SECONDS = 5.0


class Holder(Protocol):
    """The pool of one mailbox in this worker (`account_pool.AccountPool`)."""

    @property
    def idle(self) -> Sequence[Connection]:
        """The idle connections; the first was used longest ago."""
        ...

    @property
    def occupied(self) -> int:
        """How many slots this worker uses."""
        ...

    @property
    def needs_slot(self) -> bool:
        """Whether messages wait here although the cap would allow another connection."""
        ...

    def offer_free_slots(self) -> None:
        """Let those who wait take the slots that are free."""
        ...

    def close_idle(self, connection: Connection, reason: str) -> None:
        """Close an idle connection and give its slot back."""
        ...


class SlotSharing:
    """One worker's part in sharing a mailbox's slots."""

    def __init__(self, holder: Holder, workers: WorkerSlots, mailbox: object) -> None:
        """`mailbox` is known to all workers by its `repr`."""
        self._holder = holder
        self._workers = workers
        self.slots: MailboxSlots = workers.of(mailbox, self._give_way, self._try_again)
        self._is_short = False  # the last time a slot was needed, other workers held them all
        self._asking: asyncio.TimerHandle | None = None
        self._wanted_until = 0.0  # until then another worker wants a slot that is in use here

    @property
    def is_asking(self) -> bool:
        """Whether this worker has asked for a slot and will ask again."""
        return self._asking is not None

    def take(self, number: int) -> bool:
        """Take one of the mailbox's first `number` slots; False if other workers hold them all."""
        self._is_short = not self.slots.take(number)
        return not self._is_short

    def give_back(self) -> None:
        """Give a slot back."""
        self.slots.give_back()

    def opening_failed(self) -> None:
        """Stop asking for slots: the provider cannot be reached anyway."""
        self._is_short = False

    def ask(self) -> None:
        """Ask the other workers for a slot if one is needed, and go on until none is."""
        if self._asking is None and self._is_short and self._holder.needs_slot:
            self.slots.want()
            self._ask_later()

    def yields_at(self, opening_seconds: float) -> float:
        """Return when a connection that took so long to open may be given up while it is needed."""
        tenure = _TENURE_OPENINGS * opening_seconds
        return time.monotonic() + min(max(tenure, _MIN_TENURE_SECONDS), _MAX_TENURE_SECONDS)

    def must_give_way(self, connection: Connection, *, has_ended: bool) -> bool:
        """Whether a connection that comes back makes room for another worker's.

        One that `has_ended` does so at once: where each ends after a message or two, none would
        ever be old enough, and the other worker would get nothing.
        """
        now = time.monotonic()
        return now < self._wanted_until and (has_ended or now >= connection.yields_at)

    def gave_way(self) -> None:
        """Note that a slot was given back for the worker that wants one, and tell it."""
        self._wanted_until = 0.0
        self.slots.tell_freed()
        # Those who wait here ask for it back, but not before the other worker could take it.
        self._is_short = True
        if self._asking is None and self._holder.needs_slot:
            self._ask_later()

    def close(self) -> None:
        """Take no further part."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        self._workers.forget(self.slots)

    def _ask_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._asking = loop.call_later(_ASK_SECONDS, self._try_again)

    def _try_again(self) -> None:
        """Try for the slots that other workers held: one was freed, or it is time to ask again."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._is_short and self._holder.needs_slot:
            self._holder.offer_free_slots()
        self.ask()

    def _give_way(self, held_there: int) -> None:
        """Make room for another worker, which wants a slot and holds `held_there`."""
        if held_there == 0 or self._holder.occupied > held_there + 1:
            self._wanted_until = time.monotonic() + _WANTED_SECONDS
        if not self._holder.idle:
            return
        oldest = self._holder.idle[0]
        is_unused = oldest.idle_seconds > _BETWEEN_MESSAGES_SECONDS
        if is_unused or self.must_give_way(oldest, has_ended=False):
            self._holder.close_idle(oldest, "wanted")
            self._wanted_until = 0.0
            self.slots.tell_freed()
