"""The memory for content: who waits, who must go, and that nobody waits in vain."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xoauth2_proxy.submission import pace
from xoauth2_proxy.submission.buffer_budget import BufferBudget

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
TOTAL = 16 * MIB
BUFFER = 256 * KIB
READ = 64 * KIB
TOO_LATE_SECONDS = 3600.0


@dataclass(order=True)
class Call:
    """What is due at a time."""

    at: float
    number: int
    what: Callable[[], None] = field(compare=False)


class Clock:
    """Simulated time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._calls: list[Call] = []
        self._number = 0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._calls, Call(self.now + seconds, self._number, what))

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._calls and self._calls[0].at <= until:
            call = heapq.heappop(self._calls)
            self.now = call.at
            call.what()
        self.now = until


@dataclass(eq=False)
class Client:
    """A client that sends a message, and its session's side of the bargain."""

    budget: BufferBudget
    clock: Clock
    size: int
    sends: int  # of its message before it stalls
    owner: str = "mailbox"
    held_bytes: int = 0
    is_streaming: bool = False
    is_trusted: bool = False
    is_paused: bool = False
    is_cut: bool = False
    is_done: bool = False
    _due: float = 0.0

    def begin(self) -> None:
        self._due = pace.due_at_first(self.clock.now)
        self.budget.enter(self)

    @property
    def due(self) -> float:
        if not self.is_paused:
            return self._due
        waiting = self.sends - self.held_bytes
        return pace.due_with_waiting(self._due, waiting, self.clock.now)

    def send(self) -> None:
        """Send a read's worth, unless it is paused or has stalled."""
        octets = min(READ, self.sends - self.held_bytes)
        if self.is_paused or self.is_cut or self.is_done or octets <= 0:
            return
        self._due = pace.due_after(self._due, octets, self.clock.now)
        self.held_bytes += octets
        self.budget.change(self, octets)
        if self.held_bytes >= self.size:
            self.is_done = True
            self.budget.leave(self)

    def deliver(self) -> None:
        held, self.held_bytes = self.held_bytes, 0
        self.budget.change(self, -held)

    def pause_content(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_content(self) -> None:
        assert self.is_paused
        self.is_paused = False
        self._due = pace.due_at_first(self.clock.now)

    def give_up_content(self) -> None:
        self.is_cut = True
        self.deliver()
        self.budget.leave(self)


def new_budget(total: int = TOTAL) -> tuple[BufferBudget, Clock]:
    clock = Clock()
    return BufferBudget(total, BUFFER, clock.time, clock.call_later), clock


def new_client(
    budget: BufferBudget,
    clock: Clock,
    size: int = BUFFER,
    sends: int | None = None,
    owner: str = "mailbox",
) -> Client:
    client = Client(budget, clock, size, size if sends is None else sends, owner)
    client.begin()
    return client


def stalled_clients(budget: BufferBudget, clock: Clock, number: int) -> list[Client]:
    """Return clients that have sent half of their message, as far as they were let."""
    clients = [
        new_client(budget, clock, sends=BUFFER // 2) for _ in range(number) if budget.has_room()
    ]
    for client in clients * 2:
        client.send()
    return clients


def deliver_all(clients: list[Client], clock: Clock, seconds: float) -> None:
    """Let clients send, and the provider take whole messages, for a while."""
    for _ in range(int(seconds * 10)):
        for client in clients:
            client.send()
            if client.is_done and client.held_bytes:
                client.deliver()
        clock.advance(0.1)


def test_nobody_is_paused_or_cut_while_half_of_the_memory_is_free() -> None:
    budget, clock = new_budget()
    clients = stalled_clients(budget, clock, 63)
    clock.advance(TOO_LATE_SECONDS)
    assert not any(client.is_paused or client.is_cut for client in clients)
    assert budget.has_room()


def test_one_mailbox_fills_half_of_the_memory_and_others_do_not_notice() -> None:
    budget, clock = new_budget()
    stalled_clients(budget, clock, 4000)
    assert budget.used_bytes <= TOTAL // 2 + READ
    others = [new_client(budget, clock, owner="other") for _ in range(12)]
    for client in others * 4:
        client.send()
    assert all(client.is_done for client in others)


def test_many_large_messages_of_many_mailboxes_are_paused_before_the_memory_is_full() -> None:
    budget, clock = new_budget()
    clients = [
        new_client(budget, clock, sends=BUFFER // 2, owner=f"mailbox {number}")
        for number in range(4000)
    ]
    for client in clients * 2:
        client.send()
    assert budget.used_bytes <= TOTAL + READ
    assert all(client.is_paused for client in clients if client not in budget._turns)
    good = new_client(budget, clock, owner="good")
    deliver_all([good], clock, 5.0)
    assert good.is_done


def test_a_small_message_need_not_wait_for_large_ones_that_stall() -> None:
    budget, clock = new_budget()
    for number in range(10):
        many = [new_client(budget, clock, owner=f"{number}") for _ in range(10)]
        for client in many * 3:
            client.send()
    assert budget._paused
    small = new_client(budget, clock, size=10 * KIB, owner="small")
    deliver_all([small], clock, 5.0)
    assert small.is_done


def test_a_client_of_the_same_mailbox_is_served_among_4000_that_stall() -> None:
    budget, clock = new_budget()
    stalled_clients(budget, clock, 4000)
    good = new_client(budget, clock)
    deliver_all([good], clock, 5.0)
    assert good.is_done


def test_a_trusted_client_is_served_while_more_come_and_stall() -> None:
    budget, clock = new_budget()
    stalled_clients(budget, clock, 1000)
    good = Client(budget, clock, BUFFER, BUFFER, is_trusted=True)
    good.begin()
    for _ in range(50):
        stalled_clients(budget, clock, 50)
        good.send()
        clock.advance(0.1)
    assert good.is_done


def test_the_longest_silent_are_cut_first_and_no_more_than_needed() -> None:
    budget, clock = new_budget()
    first = stalled_clients(budget, clock, 60)
    clock.advance(1.0)
    more = stalled_clients(budget, clock, 20)
    clock.advance(2.5)
    cut = [client.is_cut for client in first]
    assert 0 < sum(cut) < 60
    assert not any(client.is_cut for client in more)


def test_slow_clients_of_the_mailbox_that_holds_most_are_cut_first() -> None:
    budget, clock = new_budget()
    small = [new_client(budget, clock, sends=READ, owner="small") for _ in range(10)]
    for client in small:
        client.send()
    clock.advance(1.0)
    large = stalled_clients(budget, clock, 100)
    clock.advance(60.0)
    assert any(client.is_cut for client in large)
    assert not any(client.is_cut for client in small)


def test_a_burst_and_then_a_drip_is_no_way_to_stay() -> None:
    budget, clock = new_budget()
    clients = stalled_clients(budget, clock, 110)
    for _ in range(60):
        clock.advance(0.5)
        for client in clients:
            client.sends += 1
            client.send()
    assert any(client.is_cut for client in clients)
    good = new_client(budget, clock)
    deliver_all([good], clock, 5.0)
    assert good.is_done


def test_who_is_paused_for_long_is_cut_and_whole_messages_are_not() -> None:
    budget, clock = new_budget()
    clients = [new_client(budget, clock) for _ in range(100)]
    for _ in range(60):  # the provider takes none
        for client in clients:
            client.send()
        clock.advance(1.0)
    whole = [client for client in clients if client.is_done]
    assert 0 < len(whole) < 100
    assert not any(client.is_cut for client in whole)
    assert all(client.is_cut for client in clients if not client.is_done)
    for client in whole:
        client.deliver()
    assert budget.used_bytes == 0


def test_new_content_is_refused_while_whole_messages_fill_the_memory() -> None:
    budget, clock = new_budget()
    clients: list[Client] = []
    while budget.has_room() and len(clients) < 100:
        clients.append(new_client(budget, clock, owner=f"{len(clients)}"))
        for _ in range(40):
            clients[-1].send()  # and the provider takes nothing
            clock.advance(0.1)
    assert not budget.has_room()
    assert budget.used_bytes <= TOTAL
    clients[0].deliver()
    clients[1].deliver()
    assert budget.has_room()


def test_if_all_are_in_earnest_they_take_turns() -> None:
    budget, clock = new_budget()
    clients = [new_client(budget, clock) for _ in range(200)]
    deliver_all(clients, clock, 20.0)
    assert all(client.is_done for client in clients)
    assert budget.used_bytes == 0


def test_what_clients_held_is_free_when_they_leave() -> None:
    budget, clock = new_budget()
    for client in stalled_clients(budget, clock, 4000):
        if not client.is_cut:
            client.give_up_content()
    assert budget.used_bytes == 0
    assert budget.is_roomy
    assert not any([budget._paused, budget._receiving, budget._turns])
    assert not any(budget._held_by.values())


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(
        st.tuples(
            st.integers(1, 4),  # reads' worth of message
            st.integers(0, 4),  # of it sent; fewer: it stalls
            st.sampled_from(["a", "b", "c"]),
        ),
        min_size=1,
        max_size=60,
    ),
    total_mib=st.integers(8, 16),
)
def test_whoever_goes_on_sending_is_served(
    plan: list[tuple[int, int, str]], total_mib: int
) -> None:
    budget, clock = new_budget(total_mib * MIB)
    clients = [
        new_client(budget, clock, size * READ, min(size, sends) * READ, owner)
        for size, sends, owner in plan
        if budget.has_room()
    ]
    for _ in range(400):
        for client in clients:
            client.send()
            if client.is_done and client.held_bytes:
                client.deliver()
            assert budget.used_bytes == sum(each.held_bytes for each in clients)
            assert budget.used_bytes <= budget.total_bytes + BUFFER
        clock.advance(0.1)
    for client in clients:
        if client.sends >= client.size:
            assert client.is_done
            assert not client.is_cut
    assert not any(client.is_paused for client in clients)


# The pace.


@pytest.mark.parametrize(
    ("octets", "every_seconds", "is_slow"),
    [(4096, 1.0, False), (65_536, 15.0, False), (1, 4.0, True), (2048, 1.0, True), (1, 1.0, True)],
)
def test_a_pace_is_kept_or_not(octets: int, every_seconds: float, *, is_slow: bool) -> None:
    now = 0.0
    due = pace.due_at_first(now)
    while now < 120 and now <= due:
        now += every_seconds
        if now <= due:
            due = pace.due_after(due, octets, now)
    assert (now > due) is is_slow


def test_a_burst_earns_no_more_than_the_whole_credit() -> None:
    due = pace.due_after(pace.due_at_first(0.0), 1 << 30, 0.0)
    assert due == pace.CREDIT_SECONDS
