"""Sessions of the admin pages, and the count of wrong tokens."""

from __future__ import annotations

from dataclasses import dataclass

from xoauth2_proxy.admin.sessions import (
    IDLE_SECONDS,
    LIFETIME_SECONDS,
    FailedLogins,
    Sessions,
    new_id,
)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_open_until_it_is_closed() -> None:
    sessions = Sessions()
    one, other = sessions.open(), sessions.open()
    assert one != other
    assert sessions.use(one)
    sessions.close(one)
    assert not sessions.use(one)
    assert sessions.use(other)
    assert not sessions.use("made up")
    assert not sessions.use("")


def test_a_session_ends_when_it_is_not_used_and_in_any_case() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    idle, busy = sessions.open(), sessions.open()
    clock.now += IDLE_SECONDS - 1
    assert sessions.use(busy)
    clock.now += 1
    assert not sessions.use(idle)
    assert sessions.use(busy)
    while clock.now < 1000.0 + LIFETIME_SECONDS - IDLE_SECONDS:
        clock.now += IDLE_SECONDS - 1
        assert sessions.use(busy)
    clock.now = 1000.0 + LIFETIME_SECONDS
    assert not sessions.use(busy)


def test_sessions_are_bounded_and_the_one_used_longest_ago_goes() -> None:
    sessions = Sessions()
    first, second = sessions.open(), sessions.open()
    assert sessions.use(first)
    others = [sessions.open() for _ in range(99)]
    assert not sessions.use(second)
    assert sessions.use(first)
    assert all(sessions.use(one) for one in others)


def test_a_mark_belongs_to_one_purpose_one_id_and_one_process() -> None:
    sessions, owner = Sessions(), new_id()
    sign = sessions.sign("form", owner)
    assert sessions.is_signature(sign, "form", owner)
    assert not sessions.is_signature(sign, "sign-in", owner)
    assert not sessions.is_signature(sign, "form", new_id())
    assert not Sessions().is_signature(sign, "form", owner)
    assert not sessions.is_signature("\udcff", "form", "\udcff")


def test_after_five_wrong_tokens_an_address_waits() -> None:
    clock = Clock()
    failures = FailedLogins(clock)
    for _ in range(5):
        assert failures.wait_seconds("192.0.2.1") == 0
        failures.add("192.0.2.1")
        clock.now += 1
    assert failures.wait_seconds("192.0.2.1") == 55.0
    assert failures.wait_seconds("192.0.2.2") == 0
    clock.now += 55.0
    assert failures.wait_seconds("192.0.2.1") == 0


def test_counted_addresses_are_bounded() -> None:
    failures = FailedLogins(Clock())
    for _ in range(5):
        failures.add("192.0.2.1")
    for number in range(1000):
        failures.add(f"2001:db8::{number:x}")
    assert failures.wait_seconds("192.0.2.1") == 0
