"""The figures' names and labels, and the watch over the event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import __version__, metrics
from xoauth2_proxy.metrics import Metrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# Each has few values, all of them the relay's own words or names in its configuration.
BOUNDED_LABELS = {"provider", "result", "mechanism", "reply", "reason", "state", "listener"}


def own(figures: Metrics) -> list[Metric]:
    return [one for one in figures.registry.collect() if one.name.startswith("xoauth2_proxy")]


def used() -> Metrics:
    """Return figures in which every series with labels has a sample."""
    figures = Metrics()
    for one in vars(figures).values():
        names = getattr(one, "_labelnames", ())
        if names:
            one.labels(*names)
    return figures


def test_names_are_prometheus_names_in_base_units() -> None:
    for series in own(used()):
        names = {sample.name for sample in series.samples if not sample.name.endswith("_created")}
        assert series.documentation
        match series.type:
            case "counter":
                assert all(name.endswith("_total") for name in names)
            case "histogram":
                assert series.name.endswith("_seconds")
            case "gauge":
                assert not series.name.endswith("_total")
        assert not series.name.endswith(("_ms", "_milliseconds", "_kb"))


def test_labels_are_bounded_and_never_a_mailbox() -> None:
    for series in own(used()):
        for sample in series.samples:
            assert sample.labels.keys() <= BOUNDED_LABELS | {"le", "version"}, sample.name


def test_version_is_a_label_of_info() -> None:
    assert (
        f'xoauth2_proxy_info{{version="{__version__}"}} 1.0'
        in generate_latest(Metrics().registry).decode()
    )


def test_two_relays_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.client_connections.labels("accepted").inc()
    name, labels = "xoauth2_proxy_client_connections_total", {"result": "accepted"}
    assert one.registry.get_sample_value(name, labels) == 1.0
    assert other.registry.get_sample_value(name, labels) is None


@pytest.mark.parametrize("name", ["relay_duration_seconds", "pool_wait_seconds"])
def test_buckets_reach_from_milliseconds_to_a_minute(name: str) -> None:
    figures = used()
    (series,) = [one for one in own(figures) if one.name == f"xoauth2_proxy_{name}"]
    bounds = sorted(float(one.labels["le"]) for one in series.samples if "le" in one.labels)
    assert bounds[0] <= 0.005
    assert bounds[-2] >= 60


async def test_a_blocked_event_loop_shows_as_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_LAG_PERIOD_SECONDS", 0.01)
    figures = Metrics()
    seen = asyncio.Event()
    observe = figures.event_loop_lag_seconds.observe

    def noticing(seconds: float) -> None:
        observe(seconds)
        seen.set()

    monkeypatch.setattr(figures.event_loop_lag_seconds, "observe", noticing)
    watch = asyncio.create_task(figures.watch_event_loop())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await seen.wait()
            time.sleep(0.15)  # noqa: ASYNC251 - blocking the loop is the point
            seen.clear()
            await seen.wait()
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    total = figures.registry.get_sample_value("xoauth2_proxy_event_loop_lag_seconds_sum")
    assert total is not None
    assert total >= 0.1
