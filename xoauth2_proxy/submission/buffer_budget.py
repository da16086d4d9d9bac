"""Bounds the octets that all sessions of a process hold, and says who waits and who must go.

What counts is content: gathered from clients, or waiting for the provider. The fuller the memory,
the less of it one mailbox may fill before reading pauses (Choudhury and Hahne, "Dynamic queue
length thresholds", 1998): as much as is free, so that no mailbox takes more than half. When it is
nearly full all reading pauses, and if messages that wait for their provider fill even the rest, new
content is refused.

Pausing alone would end in a deadlock, each client waiting for the others' memory. Therefore, while
someone waits:

- Clients that are silent or drip are cut off: first those of the mailbox that holds most, and of
  these the ones that have spent most of their credit (`pace`).
- Some get a turn to send the rest of their message: first clients that have sent messages lately,
  then others, the last to be paused first, since where memory is short for long, most of those that
  came before are stalled. Who stalls with a turn is cut off.
- Who has been paused for long is cut off as well, and will try again.

Messages received whole are never given up. They leave when the provider has answered, or the time
to wait for a connection is over.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy.submission import pace

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Schedule = Callable[[float, Callable[[], None]], object]

# Parts of the whole:
_KEPT = 8  # what is free when all reading pauses
_TURNS = 16  # what those with a turn may take of that
_LEAST = 16  # what must be free for new content
_TICK_SECONDS = 0.5  # while someone waits
_PATIENCE_SECONDS = 3.0  # of its credit a client may have spent then: a lost packet, or two
_MAX_PAUSE_SECONDS = 20.0  # clients that wait longer give up, or their people do


class Holder(Protocol):
    """A session in whose transaction the client has the word."""

    @property
    def owner(self) -> Hashable:
        """The mailbox; it stays the same from `enter` on."""
        ...

    @property
    def held_bytes(self) -> int:
        """The octets it holds, as last told by `BufferBudget.change`."""
        ...

    @property
    def due(self) -> float:
        """When the client's credit is spent (`pace`).

        While the session is paused, octets that wait in its socket count as received.
        """
        ...

    @property
    def is_trusted(self) -> bool:
        """Whether this client has sent messages lately, so that it is likely to end this one."""
        ...

    @property
    def is_streaming(self) -> bool:
        """Whether its content goes upstream as it arrives; reading it frees memory."""
        ...

    def pause_content(self) -> None:
        """Read no more until `resume_content`."""
        ...

    def resume_content(self) -> None:
        """Read on, with the whole credit."""
        ...

    def give_up_content(self) -> None:
        """End the session: its memory is needed for others. Must call `change` and `leave`."""
        ...


class BufferBudget:
    """The memory for content of one process."""

    def __init__(
        self,
        total_bytes: int,
        turn_bytes: int,
        clock: Callable[[], float],
        call_later: Schedule,
    ) -> None:
        """`turn_bytes` is what one session needs at most to end its message or begin to stream."""
        self.used_bytes = 0
        self.total_bytes = total_bytes
        self._turn_bytes = turn_bytes
        self._max_turns = max(1, total_bytes // (_TURNS * turn_bytes))
        self._clock = clock
        self._call_later = call_later
        self._held_by: defaultdict[Hashable, int] = defaultdict(int)
        self._receiving: dict[Holder, None] = {}
        self._paused: dict[Holder, float] = {}  # since when; the longest first
        self._trusted: dict[Holder, None] = {}  # of those
        self._turns: set[Holder] = set()
        self._is_ticking = False

    def has_room(self) -> bool:
        """Whether new content may come; else the client is to try again later."""
        return self._free_bytes * _LEAST >= self.total_bytes

    @property
    def is_roomy(self) -> bool:
        """Whether more than half of the memory is free."""
        return 2 * self.used_bytes < self.total_bytes

    @property
    def is_short(self) -> bool:
        """Whether clients wait for others to leave."""
        return bool(self._paused) or not self.has_room()

    def enter(self, holder: Holder) -> None:
        """The client may send content now."""
        self._receiving[holder] = None
        if not self.is_roomy and not self._may_read(holder):
            self._pause(holder)
            self._give_turns()
            self._tick_later()

    def leave(self, holder: Holder) -> None:
        """The client has sent its message, or given it up; what is held of it still counts."""
        self._receiving.pop(holder, None)
        if holder in self._paused:
            self._let_go_on(holder)
        if holder in self._turns:
            self._turns.discard(holder)
            self._give_turns()

    def change(self, holder: Holder, change_bytes: int) -> None:
        """A session holds so much more, or less. It may be paused at once."""
        used = self.used_bytes = self.used_bytes + change_bytes
        self._held_by[holder.owner] += change_bytes
        if change_bytes > 0 and 2 * used > self.total_bytes:
            self._squeeze(holder)

    def relieve(self) -> None:
        """Cut slow clients off until the others fit in; let those go on."""
        now = self._clock()
        for holder, since in list(self._paused.items()):
            if now - since >= _MAX_PAUSE_SECONDS:
                holder.give_up_content()
        if self._paused:
            self._cut_slow_clients(now)
        self._give_turns()
        if not self._paused:
            self._turns.clear()
            for owner in [owner for owner, held in self._held_by.items() if not held]:
                del self._held_by[owner]

    @property
    def _free_bytes(self) -> int:
        return max(0, self.total_bytes - self.used_bytes)

    @property
    def _is_nearly_full(self) -> bool:
        return self._free_bytes * _KEPT < self.total_bytes

    def _may_read(self, holder: Holder) -> bool:
        return not (self._is_nearly_full or self._has_too_much(holder.owner))

    def _has_too_much(self, owner: Hashable) -> bool:
        return self._held_by.get(owner, 0) > self._free_bytes

    def _squeeze(self, holder: Holder) -> None:
        if holder in self._turns or self._may_read(holder):
            return
        # Before the next octets of the others arrive.
        for each in list(self._receiving):
            if not self._may_read(each):
                self._pause(each)
        self._tick_later()

    def _pause(self, holder: Holder) -> None:
        if not (holder in self._paused or holder in self._turns or holder.is_streaming):
            self._paused[holder] = self._clock()
            if holder.is_trusted:
                self._trusted[holder] = None
            holder.pause_content()

    def _let_go_on(self, holder: Holder) -> None:
        del self._paused[holder]
        self._trusted.pop(holder, None)
        holder.resume_content()

    def _tick_later(self) -> None:
        if (self._paused or self._turns) and not self._is_ticking:
            self._is_ticking = True
            self._call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        self.relieve()
        self._tick_later()

    def _cut_slow_clients(self, now: float) -> None:
        """Cut slow clients that have a turn, or whose mailbox holds too much.

        If memory is nearly full, those of all mailboxes.
        """
        slow = [
            (-self._held_by[holder.owner], holder.due, number, holder)
            for number, holder in enumerate(self._receiving)
            if (holder.held_bytes or holder in self._turns)
            and pace.spent_seconds(holder.due, now) >= _PATIENCE_SECONDS
        ]
        for _, _, _, holder in sorted(slow):
            is_pressed = self._is_nearly_full or self._has_too_much(holder.owner)
            if is_pressed or holder in self._turns:
                holder.give_up_content()

    def _give_turns(self) -> None:
        """Let the last that were paused read on: a few always, more as far as memory allows.

        Half of the turns are kept for clients that are trusted.
        """
        for waiting, turns in (
            (self._trusted, self._max_turns),
            (self._paused, self._max_turns // 2),
        ):
            for holder in list(reversed(waiting)):
                if len(self._turns) >= max(1, turns) and not self._has_room_for(holder.owner):
                    break
                self._turns.add(holder)
                self._let_go_on(holder)

    def _has_room_for(self, owner: Hashable) -> bool:
        """Whether one more of this mailbox can end its message, beside those with a turn."""
        free = self._free_bytes - (len(self._turns) + 1) * self._turn_bytes
        return free * _KEPT >= self.total_bytes and self._held_by.get(owner, 0) <= free
