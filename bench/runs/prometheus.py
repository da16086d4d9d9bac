"""Exposes a running run to Prometheus and health checks on loopback, from the run's recorder.

With several processes that is the parent's recorder. The warm-up is not included. A scrape reads
existing counters, so there is no cost between scrapes.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from aiohttp import web
    from prometheus_client import Metric

    from bench.measurement.recorder import Recorder
    from bench.plan.arrivals import Pace

HEALTHY, DRAINING = "healthy", "draining"  # as the proxy says
_HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 1.0  # for a scrape in progress
# The buckets' upper limits in microseconds: 0.26 ms to 134 s, doubled each time. Our histogram has
# an edge right below each power of two, so no value is counted on the wrong side.
_EDGES = tuple((1 << bits) - 1 for bits in range(8, 28))


class PrometheusPortError(Exception):
    """The port cannot be opened; the text says why."""


class RunCollector(Collector):
    """The current figures of a run, in the form that Prometheus reads."""

    def __init__(
        self, recorder: Recorder, pace: Pace, measured_seconds: Callable[[], float]
    ) -> None:
        self._recorder = recorder
        self._pace = pace
        self._measured_seconds = measured_seconds

    def collect(self) -> Iterable[Metric]:
        """Yield the current value of each figure."""
        recorder = self._recorder
        messages = CounterMetricFamily(
            "xoauth2_bench_messages", "Finished messages.", labels=["outcome"]
        )
        for outcome in ("succeeded", "failed", "dropped"):
            messages.add_metric([outcome], getattr(recorder, outcome))
        yield messages
        failures = CounterMetricFamily(
            "xoauth2_bench_failures",
            "Messages that failed, by reply code or kind of error.",
            labels=["code"],
        )
        for code, count in recorder.failed_by_code.items():
            failures.add_metric([code], count)
        yield failures
        yield self._latency()
        yield _gauge("in_flight", "Messages in flight.", recorder.in_flight)
        seconds = self._measured_seconds()
        yield _gauge("measured_seconds", "Time measured so far; negative: warm-up.", seconds)
        if self._pace.rate is not None:
            due = self._pace.rate.at(max(0.0, seconds + self._pace.warmup_seconds))
            yield _gauge("target_rate_per_second", "Current arrival rate per second.", due)

    def _latency(self) -> HistogramMetricFamily:
        histogram = self._recorder.latency
        family = HistogramMetricFamily(
            "xoauth2_bench_latency_seconds",
            "Latency of the messages that succeeded; in the open model from their intended start.",
        )
        found = histogram.coarse()
        buckets = [
            (str(edge / 1e6), sum(one.count for one in found if one.up_to_seconds <= edge / 1e6))
            for edge in _EDGES
        ]
        family.add_metric([], [*buckets, ("+Inf", histogram.count)], histogram.sum / 1e6)
        return family


@asynccontextmanager
async def serving_metrics(
    port: int | None,
    collector: Collector,
    health: Callable[[], Mapping[str, object]] = lambda: {"status": HEALTHY},
) -> AsyncIterator[str]:
    """Serve /metrics and /health while the context is entered; yield the first URL, or "".

    Without a port nothing is served.

    Raises:
        PrometheusPortError: the port cannot be opened.
    """
    if port is None:
        yield ""
        return
    from aiohttp import web  # when a run is watched

    registry = CollectorRegistry()
    registry.register(collector)

    async def answer(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(registry), headers=headers)

    async def answer_health(_: web.Request) -> web.Response:
        body = health()
        return web.json_response(body, status=200 if body["status"] == HEALTHY else 503)

    app = web.Application()
    app.router.add_get("/metrics", answer)
    app.router.add_get("/health", answer_health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, _HOST, port).start()
        except OSError as error:
            reason = f"Port {port} cannot be opened for Prometheus: {error}"
            raise PrometheusPortError(reason) from error
        yield f"http://{_HOST}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"xoauth2_bench_{name}", what, value=value)
