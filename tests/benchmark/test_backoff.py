from __future__ import annotations

from bench.load.backoff import BackOff


def test_pauses_double_up_to_a_fifth_of_a_second_and_begin_anew_after_success() -> None:
    back_off = BackOff(is_endless=True)
    assert [back_off.pause_seconds() for _ in range(6)] == [0.02, 0.04, 0.08, 0.16, 0.2, 0.2]
    back_off.reset()
    assert back_off.pause_seconds() == 0.02


def test_a_run_by_count_pauses_ten_seconds_at_most_for_a_server_that_is_gone() -> None:
    back_off = BackOff(is_endless=False)
    pauses = [back_off.pause_seconds() for _ in range(1000)]
    assert 10 <= sum(pauses) < 10.3
    assert pauses[-1] == 0
    back_off.reset()
    assert back_off.pause_seconds() == 0.02


def test_a_run_for_a_time_pauses_as_long_as_it_lasts() -> None:
    back_off = BackOff(is_endless=True)
    assert [back_off.pause_seconds() for _ in range(1000)][-1] == 0.2
