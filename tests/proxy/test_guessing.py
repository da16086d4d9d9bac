"""How guessers are slowed: by address and by login, in bounded memory, and no device shut out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.submission.guessing import Debts, Guessing

LIMIT = 30
HOME, AWAY = "192.0.2.1", "198.51.100.7"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """Workers that hear each other at once, and a clock that a test puts forward."""

    def __init__(self, limit: int = LIMIT, workers: int = 1) -> None:
        self.clock = Clock()
        self.workers: list[Guessing] = []
        for number in range(workers):
            self.workers.append(Guessing(limit, self._teller(number), self.clock))
        self.guessing = self.workers[0]
        self._secret = 0

    def _teller(self, number: int):  # type: ignore[no-untyped-def]
        def tell(line: str) -> None:
            assert len(line) < 1000
            for other, worker in enumerate(self.workers):
                if other != number:
                    assert worker.heard(line)

        return tell

    def guesses(self, peer: str, login: str = "someone", count: int = 1) -> int:
        """Guess passwords; return how many were looked at."""
        looked_at = 0
        for _ in range(count):
            if not self.guessing.must_wait(peer, login):
                looked_at += 1
                self._secret += 1
                self.guessing.failed(peer, login, f"guess {self._secret}")
        return looked_at


def test_a_person_who_mistypes_waits_for_nothing() -> None:
    scene = Scene()
    for number in range(LIMIT // 3):
        assert scene.guessing.failed(HOME, "someone", str(number)) == 0.0
        assert not scene.guessing.must_wait(HOME, "someone")


def test_then_refusals_are_delayed_more_and_more() -> None:
    scene = Scene()
    delays = [scene.guessing.failed(HOME, "someone", str(number)) for number in range(LIMIT)]
    assert delays == sorted(delays)
    assert 0 < delays[LIMIT // 3] < 1
    assert delays[-1] == 8.0


def test_then_attempts_are_turned_away_unchecked_until_time_has_passed() -> None:
    scene = Scene()
    assert scene.guesses(HOME, count=1000) == LIMIT
    scene.clock.now += 9.9
    assert scene.guesses(HOME) == 0
    scene.clock.now += 0.2
    assert scene.guesses(HOME, count=1000) == 1
    scene.clock.now += 3600
    assert scene.guesses(HOME, count=1000) == LIMIT


@given(st.lists(st.floats(0, 100), max_size=200))
def test_an_address_gets_no_more_than_the_limit_and_one_in_ten_seconds(pauses: list[float]) -> None:
    scene, began, looked_at = Scene(), 1000.0, 0
    for number, pause in enumerate(pauses):
        scene.clock.now += pause
        looked_at += scene.guesses(HOME, f"login {number}")
        assert looked_at <= LIMIT + (scene.clock.now - began) / 10 + 1


def test_a_login_is_guarded_against_many_addresses() -> None:
    scene = Scene()
    looked_at = sum(scene.guesses(f"192.0.2.{number}", count=3) for number in range(50))
    assert looked_at == LIMIT
    assert scene.guesses("192.0.2.49", "another login") == 1


@pytest.mark.parametrize("attacker", [AWAY, HOME])
def test_a_device_at_its_usual_address_is_not_shut_out(attacker: str) -> None:
    scene = Scene()
    scene.guessing.succeeded(HOME, "copier")
    scene.guesses(attacker, "copier" if attacker == AWAY else "other", count=1000)
    assert scene.guessing.must_wait(attacker, "other" if attacker == HOME else "copier")
    assert not scene.guessing.must_wait(HOME, "copier")
    assert not scene.guessing.must_wait(HOME, "COPIER ")


def test_nor_does_the_usual_address_guess_without_limit() -> None:
    scene = Scene()
    scene.guessing.succeeded(HOME, "copier")
    assert scene.guesses(HOME, "copier", count=1000) == LIMIT
    assert scene.guesses(AWAY, "copier") == 1  # what happens there burdens nobody else


def test_a_success_forgives_no_other_guesses() -> None:
    scene = Scene()
    for _ in range(100):
        scene.guesses(HOME, "victim")
        scene.guessing.succeeded(HOME, "own login of the guesser")
    assert scene.guessing.must_wait(HOME, "victim")


def test_the_same_wrong_password_again_and_again_counts_once() -> None:
    scene = Scene()
    for _ in range(1000):
        scene.guessing.failed(HOME, "copier", "the old one")
    assert not scene.guessing.must_wait(HOME, "copier")
    # Two in turn are two guesses each time: that is not a device.
    for number in range(LIMIT):
        scene.guessing.failed(HOME, "copier", f"the old one {number % 2}")
    assert scene.guessing.must_wait(HOME, "copier")


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_an_ipv6_64_is_one_address(one: str, other: str, are_one: bool) -> None:
    scene = Scene()
    address_of = scene.guessing.address_of
    assert (address_of(one) == address_of(other)) is are_one
    scene.guesses(one, "first", count=LIMIT)
    assert scene.guessing.must_wait(other, "second") is are_one


def test_an_ipv6_48_is_slowed_at_last() -> None:
    scene = Scene()
    looked_at = sum(
        scene.guesses(f"2001:db8:1:{number:x}::1", f"login {number}", count=LIMIT)
        for number in range(100)
    )
    assert looked_at <= LIMIT * 17


def test_workers_know_what_the_others_know() -> None:
    scene = Scene(workers=3)
    scene.workers[2].succeeded(HOME, "copier")
    scene.guesses(AWAY, "copier", count=1000)
    for worker in scene.workers:
        assert worker.must_wait(AWAY, "copier")
        assert not worker.must_wait(HOME, "copier")
    assert not scene.workers[0].heard("wanted something 1")


def test_what_is_told_names_no_login_and_no_secret() -> None:
    told: list[str] = []
    guessing = Guessing(LIMIT, told.append)
    guessing.failed(HOME, "hunter2", "hunter2")
    guessing.succeeded(HOME, "hunter2")
    assert len(told) == 2
    assert "hunter2" not in "".join(told)


def test_without_a_limit_nothing_is_slowed_or_remembered() -> None:
    scene = Scene(limit=0)
    assert scene.guesses(HOME, count=1000) == 1000
    assert scene.guessing.failed(HOME, "someone") == 0.0


def test_memory_is_bounded_whatever_comes() -> None:
    scene = Scene()
    for number in range(30_000):
        peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        scene.guessing.failed(peer, f"login {number}", "x")
        scene.guessing.succeeded(peer, f"login {number}")
    kept = (scene.guessing._addresses, scene.guessing._logins, scene.guessing._usual)
    assert max(len(one) for one in (*kept, scene.guessing._wrong)) <= 20_000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.floats(0.1, 5))))
def test_debts_are_forgiven_with_time_and_never_negative(
    steps: list[tuple[str, float, float]],
) -> None:
    clock = Clock()
    debts = Debts(clock, most=2)
    for name, pause, failures in steps:
        before = debts.of(name)
        debts.add(name, failures, 20.0)
        assert debts.of(name) == pytest.approx(min(20.0, before + failures))
        clock.now += pause
        assert 0 <= debts.of(name) <= 20.0
        assert len(debts) <= 2
