"""Counts what the relay does, for Prometheus, and adds up the metrics of all workers.

Labels are bounded: never a mailbox, a host or a free text.
Names follow prometheus.io/docs/practices/naming: base units, `_total` on counters.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    values,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from prometheus_client.samples import Sample


_PREFIX = "xoauth2_proxy_"
_RELAY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_WAIT_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1)
_LAG_PERIOD_SECONDS = 0.5


class ProviderSeries:
    """One provider's series that every message updates, looked up once."""

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self.pool_wait_seconds = metrics.pool_wait_seconds.labels(provider)
        self.upstream_reused = metrics.upstream_reused.labels(provider)
        self._bytes = metrics.message_bytes.labels(provider)
        self._relay_seconds = metrics.relay_seconds.labels(provider)
        self._cut = metrics.messages.labels(provider, "cut")
        self._messages = {
            digit: metrics.messages.labels(provider, f"{digit}xx") for digit in (2, 4, 5)
        }

    def cut(self) -> None:
        """Count a message that was cut off at the shutdown deadline."""
        self._cut.inc()

    def message(self, code: int, size_bytes: int, duration_seconds: float) -> None:
        """Count a message that got its final reply."""
        self._messages[code // 100].inc()
        self._bytes.inc(size_bytes)
        self._relay_seconds.observe(duration_seconds)


class Metrics:
    """All series of one process, in a registry of their own: one process can hold two relays."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        _show_version(self.registry)
        self.client_connections = self._counter(
            "client_connections", "Client connections, by result", "result"
        )
        self.client_sessions = self._gauge("client_sessions", "Client sessions open now")
        self.clients_turned_away = self._counter(
            "clients_turned_away",
            "Clients that were turned away, by reason and listener",
            "reason",
            "listener",
        )
        self.content_bytes = self._gauge(
            "content_bytes", "Content octets held now, of relay.buffer_total_bytes"
        )
        self.auth = self._counter(
            "auth_attempts", "AUTH exchanges, by mechanism and result", "mechanism", "result"
        )
        self.messages = self._counter(
            "messages",
            "Transactions that got a final reply, by provider and its first digit",
            "provider",
            "reply",
        )
        self.message_bytes = self._counter(
            "message_bytes", "Content octets of relayed messages", "provider"
        )
        self.relay_seconds = self._histogram(
            "relay_duration_seconds",
            "From the last octet of the content to the final reply",
            _RELAY_SECONDS,
            "provider",
        )
        self.upstream_opened = self._counter(
            "upstream_connections_opened", "Upstream connections opened", "provider"
        )
        self.upstream_reused = self._counter(
            "upstream_connections_reused", "Leases served by a kept connection", "provider"
        )
        self.upstream_closed = self._counter(
            "upstream_connections_closed", "Upstream connections closed", "provider", "reason"
        )
        self.upstream_open = self._gauge(
            "upstream_connections", "Upstream connections open now", "provider"
        )
        self.pool_wait_seconds = self._histogram(
            "pool_wait_seconds",
            "How long a message waited for an upstream connection",
            _WAIT_SECONDS,
            "provider",
        )
        self.token_refreshes = self._counter(
            "token_refreshes", "Token refreshes, by provider and result", "provider", "result"
        )
        self.token_refresh_seconds = self._histogram(
            "token_refresh_duration_seconds", "Token refreshes", _WAIT_SECONDS, "provider"
        )
        self.mailboxes = self._gauge(
            # Every process sees all accounts, so their values are not added up.
            "mailboxes",
            "Mailboxes, by provider and state",
            "provider",
            "state",
            merged="livemax",
        )
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When the listener's certificate expires, in seconds since 1970",
            "listener",
            merged="livemax",
        )
        self.event_loop_lag_seconds = self._histogram(
            "event_loop_lag_seconds",
            f"How late a timer fires, sampled every {_LAG_PERIOD_SECONDS} s",
            _LAG_SECONDS,
        )

        self._providers: dict[str, ProviderSeries] = {}

    def provider(self, name: str) -> ProviderSeries:
        """Return the series of a provider, by its name in the configuration."""
        series = self._providers.get(name)
        if series is None:
            series = self._providers[name] = ProviderSeries(self, name)
        return series

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}{name}", documentation, labels, registry=self.registry)

    def _gauge(
        self,
        name: str,
        documentation: str,
        *labels: str,
        merged: Literal["livesum", "livemax"] = "livesum",
    ) -> Gauge:
        return Gauge(
            f"{_PREFIX}{name}",
            documentation,
            labels,
            registry=self.registry,
            multiprocess_mode=merged,
        )

    def _histogram(
        self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"{_PREFIX}{name}", documentation, labels, registry=self.registry, buckets=buckets
        )

    async def watch_event_loop(self) -> None:
        """Sample the event loop's lag until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PERIOD_SECONDS
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self.event_loop_lag_seconds.observe(max(0.0, loop.time() - due))


def _show_version(registry: CollectorRegistry) -> None:
    Info("xoauth2_proxy", "The running version", registry=registry).info({"version": __version__})


def record_in_files(directory: Path, worker: int) -> None:
    """Keep metrics created from now on in files, which `MergedMetrics` reads in the parent.

    The files belong to the worker, not to the process: after a restart it continues counting from
    the same values, and counters never go backwards.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


class MergedMetrics:
    """The metrics of the parent and all workers, merged as if of one process."""

    def __init__(
        self, directory: Path, processes: Callable[[], Iterable[int]], own: Metrics
    ) -> None:
        """`processes` returns the process ids of the running workers."""
        self._directory = directory
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_WorkersCollector(directory, own))
        self.registry.register(_ProcessesCollector(processes))
        PlatformCollector(registry=self.registry)
        _show_version(self.registry)

    def drop_gauges(self, worker: int) -> None:
        """Drop the gauges of a worker whose process has ended."""
        mark_process_dead(worker, str(self._directory))  # type: ignore[no-untyped-call]


class _WorkersCollector(Collector):
    """Adds up the files of all workers, including those whose process has ended."""

    def __init__(self, directory: Path, own: Metrics) -> None:
        self._directory = directory
        self._own = own

    def collect(self) -> Iterable[Metric]:
        # A new file is empty until its first octets are written.
        files = [str(file) for file in self._directory.glob("*.db") if file.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        families = {one.name: one for one in merged}
        for own in self._own.registry.collect():
            if own.name.startswith(_PREFIX) and own.samples and own.type != "info":
                _join(families.setdefault(own.name, Metric(own.name, "", own.type)), own)
        return families.values()


class _ProcessesCollector(Collector):
    """Adds up the process statistics of the parent and the workers, under the usual names."""

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self._processes = processes
        self._cpu_seconds = 0.0  # as last reported

    def collect(self) -> Iterator[Metric]:
        # Ended processes first: one that ends in between must not be counted twice.
        ended = os.times()
        families = {one.name: one for one in ProcessCollector(registry=None).collect()}
        for process in self._processes():
            for one in ProcessCollector(pid=_constant(process), registry=None).collect():
                if one.name in families and one.name != "process_start_time_seconds":
                    _add(families[one.name], one.samples[0].value)
        if (cpu := families.get("process_cpu_seconds")) is not None:
            _add(cpu, ended.children_user + ended.children_system)
            self._cpu_seconds = max(self._cpu_seconds, cpu.samples[0].value)
            cpu.samples[0] = cpu.samples[0]._replace(value=self._cpu_seconds)
        yield from families.values()


def _constant(process: int) -> Callable[[], int]:
    return lambda: process


def _add(family: Metric, value: float) -> None:
    sample = family.samples[0]
    family.samples[0] = sample._replace(value=sample.value + value)


def _join(family: Metric, other: Metric) -> None:
    """Add the samples of another process's family of the same name."""
    family.documentation = other.documentation
    known = {_series(sample): place for place, sample in enumerate(family.samples)}
    for sample in other.samples:
        if sample.name.endswith("_created"):
            continue  # workers' files have none
        place = known.get(_series(sample))
        if place is None:
            family.samples.append(sample)
        else:
            present = family.samples[place]
            family.samples[place] = present._replace(value=present.value + sample.value)


def _series(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())
