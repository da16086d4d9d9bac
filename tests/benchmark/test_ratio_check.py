"""`make bench-check`: what is compared, and what it says."""

from __future__ import annotations

import pytest

from tests.support.ratio_check import Measured, measured_in, table, verdict


def document(
    splice: list[float], proxy: list[float], error: str | None = None
) -> dict[str, object]:
    rows = [
        {
            "relay": relay,
            "error": error if relay == "proxy" else None,
            "repeats": [{"cpu_us_per_message": one} for one in costs],
        }
        for relay, costs in (("splice", splice), ("proxy", proxy))
    ]
    return {
        "timestamp": "2026-11-29T00:07:20+00:00",
        "environment": {"cpu": "a processor"},
        "workloads": [{"name": "kept", "results": rows}],
    }


def test_each_repeat_of_the_proxy_is_divided_by_splices_of_the_same_turn() -> None:
    found = measured_in(document([50.0, 100.0], [100.0, 150.0]), "abc")
    assert found == Measured("abc", "2026-11-29", "a processor", {"kept": [2.0, 1.5]})


def test_a_relay_that_failed_is_not_compared() -> None:
    with pytest.raises(ValueError, match="kept, proxy: 3 lost"):
        measured_in(document([50.0], [], "3 lost"), "abc")


@pytest.mark.parametrize(
    ("now", "stored", "told"),
    [
        ([2.0, 2.2], [1.8, 1.9], "higher"),
        ([1.9, 2.2], [1.8, 1.9], "same"),
        ([1.7, 1.9], [1.8, 2.0], "same"),
        ([1.5, 1.7], [1.8, 2.0], "lower"),
    ],
)
def test_only_spreads_that_do_not_touch_differ(
    now: list[float], stored: list[float], told: str
) -> None:
    assert verdict(now, stored) == told


def test_the_table_names_both_commits_and_spreads() -> None:
    stored = Measured("old", "2026-11-01", "a processor", {"kept": [1.8, 1.9, 2.0]})
    now = Measured("new+", "2026-11-29", "a processor", {"kept": [2.1, 2.2], "reconnect": [1.0]})
    assert table(now, stored) == [
        "stored: commit old, 2026-11-01, a processor",
        "now:    commit new+, 2026-11-29, a processor",
        "kept       now 2.15 (2.10–2.20)   stored 1.90 (1.80–2.00)   higher",
        "reconnect  now 1.00 (1.00–1.00)   stored not stored",
    ]
