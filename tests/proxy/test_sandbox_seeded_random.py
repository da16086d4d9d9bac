"""Chance that comes out the same every time."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.sandbox.faults import Action, Fault, FaultScript, Step
from xoauth2_proxy.sandbox.seeded_random import MAX_DELAY_SECONDS, Delays, share


def decisions(seed: int, rate: float, arrivals: int = 500) -> list[bool]:
    faults: FaultScript[Fault] = FaultScript(seed)
    faults.add(Fault(Step.END, Action.DROP, rate=rate))
    return [faults.next(Step.END, "a@b", "") is not None for _ in range(arrivals)]


def test_the_same_seed_decides_the_same() -> None:
    assert decisions(7, 0.2) == decisions(7, 0.2)
    assert decisions(7, 0.2) != decisions(8, 0.2)


def test_what_happens_elsewhere_changes_no_decision() -> None:
    faults: FaultScript[Fault] = FaultScript(7)
    faults.add(Fault(Step.END, Action.DROP, rate=0.2))
    faults.add(Fault(Step.MAIL, Action.DROP, rate=0.5))
    found = []
    for number in range(500):
        for _ in range(number % 3):
            faults.next(Step.MAIL, "a@b", "")
        found.append(faults.next(Step.END, "a@b", "") is not None)
    assert found == decisions(7, 0.2)


def test_two_faults_of_one_step_decide_independently() -> None:
    faults: FaultScript[Fault] = FaultScript(7)
    first, second = (Fault(Step.END, action, rate=0.5) for action in (Action.DROP, Action.STALL))
    faults.add(first)
    faults.add(second)
    met = [faults.next(Step.END, "", "") for _ in range(4000)]
    assert met.count(first) == pytest.approx(2000, abs=200)
    assert met.count(second) == pytest.approx(1000, abs=200)


def test_once_cleared_chance_begins_anew() -> None:
    faults: FaultScript[Fault] = FaultScript(7)
    runs = []
    for _ in range(2):
        faults.add(Fault(Step.END, Action.DROP, rate=0.2))
        runs.append([faults.next(Step.END, "", "") is not None for _ in range(100)])
        faults.clear()
    assert runs[0] == runs[1]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 1.0])
def test_a_rate_is_kept_in_the_long_run(rate: float) -> None:
    met = sum(decisions(1, rate, 20_000))
    assert met == pytest.approx(rate * 20_000, abs=4 * (20_000 * rate * (1 - rate)) ** 0.5)


@given(seed=st.integers(0, 2**63 - 1), name=st.text(max_size=20), number=st.integers(0, 10**9))
def test_a_share_lies_between_zero_and_one(seed: int, name: str, number: int) -> None:
    assert 0.0 < share(seed, name, number) < 1.0


def test_shares_are_evenly_spread() -> None:
    shares = sorted(share(3, "x", number) for number in range(10_000))
    assert max(later - one for one, later in pairwise(shares)) < 0.002
    assert statistics.fmean(shares) == pytest.approx(0.5, abs=0.01)


def test_equal_delays_are_equal() -> None:
    delays = Delays(1, 0.2)
    assert {delays.next() for _ in range(5)} == {0.2}


def test_spread_delays_have_their_median_and_percentile() -> None:
    delays = Delays(1, 0.05, 0.4)
    found = sorted(delays.next() for _ in range(20_000))
    assert found[10_000] == pytest.approx(0.05, rel=0.05)
    assert found[19_800] == pytest.approx(0.4, rel=0.1)
    again = Delays(1, 0.05, 0.4)
    assert sorted(again.next() for _ in range(20_000)) == found


def test_no_delay_is_endless() -> None:
    delays = Delays(1, 500.0, 600.0)
    assert max(delays.next() for _ in range(5000)) == MAX_DELAY_SECONDS
