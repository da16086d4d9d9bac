from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bench.measurement.recorder import Recorder
from bench.plan.arrivals import Pace, Rate
from bench.runs.prometheus import PrometheusPortError, RunCollector, serving_metrics
from bench.targets.http_client import FetchFailed, fetch
from tests.benchmark.runs import command, sample, settle, strict_json
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.waiting import until
from xoauth2_proxy.admin.health import Health

if TYPE_CHECKING:
    from pathlib import Path

Figures = dict[tuple[str, str], float]  # by name and the value of the label, "" without one


def parsed(octets: bytes) -> Figures:
    return {
        (one.name, next(iter(one.labels.values()), "")): one.value
        for family in text_string_to_metric_families(octets.decode())
        for one in family.samples
    }


def shown(recorder: Recorder, pace: Pace | None = None, seconds: float = 1.0) -> Figures:
    registry = CollectorRegistry()
    registry.register(RunCollector(recorder, pace or Pace(num_emails=1), lambda: seconds))
    return parsed(generate_latest(registry))


def test_every_outcome_is_shown() -> None:
    recorder = Recorder(planned=20)
    for number in (0, 1, 2, 3, 4, 6, 7):
        recorder.begin(number, is_warmup=False)
    settle(recorder, [0.1, 0.2, "550", "550", "timeout"])
    recorder.drop(5, 0.5)
    found = shown(recorder)
    assert found["xoauth2_bench_messages_total", "succeeded"] == 2
    assert found["xoauth2_bench_messages_total", "failed"] == 3
    assert found["xoauth2_bench_messages_total", "dropped"] == 1
    assert found["xoauth2_bench_failures_total", "550"] == 2
    assert found["xoauth2_bench_failures_total", "timeout"] == 1
    assert found["xoauth2_bench_in_flight", ""] == 2
    assert found["xoauth2_bench_latency_seconds_count", ""] == 2
    assert found["xoauth2_bench_latency_seconds_sum", ""] == pytest.approx(0.3)


def test_what_is_settled_is_in_flight_no_more() -> None:
    recorder = Recorder(planned=2)
    recorder.begin(0, is_warmup=False)
    recorder.begin(1, is_warmup=False)
    settle(recorder, [0.1, "421"])
    assert shown(recorder)["xoauth2_bench_in_flight", ""] == 0


@given(st.lists(st.integers(min_value=0, max_value=200_000_000), max_size=60))
def test_each_bucket_holds_exactly_the_values_that_are_not_above_it(values: list[int]) -> None:
    recorder = Recorder(planned=None)
    for number, microseconds in enumerate(values):
        recorder.add(sample(number, microseconds / 1e6))
    found = {
        float(edge): count
        for (name, edge), count in shown(recorder).items()
        if name == "xoauth2_bench_latency_seconds_bucket"
    }
    assert len(found) == 21
    for edge, count in found.items():
        assert count == sum(value <= edge * 1e6 + 0.5 for value in values)


def test_the_target_rate_follows_the_ramp() -> None:
    rate = Rate(per_second=100, ramp_from_per_second=20, ramp_seconds=8)
    pace = Pace(duration_seconds=10, warmup_seconds=2, rate=rate)
    name = ("xoauth2_bench_target_rate_per_second", "")
    recorder = Recorder(planned=None)
    assert shown(recorder, pace, seconds=2.0)[name] == 60
    assert shown(recorder, pace, seconds=-2.0)[name] == 20
    assert shown(recorder, pace, seconds=9.0)[name] == 100
    assert name not in shown(recorder)  # the closed model has none


async def test_it_is_served_on_loopback_for_as_long_as_the_run_lasts() -> None:
    collector = RunCollector(Recorder(planned=1), Pace(num_emails=1), lambda: 0.0)
    async with serving_metrics(0, collector) as url:
        assert url.startswith("http://127.0.0.1:")
        assert parsed(await fetch(url))["xoauth2_bench_messages_total", "succeeded"] == 0
    with pytest.raises(FetchFailed):
        await fetch(url)


async def test_a_run_that_is_being_stopped_is_unhealthy() -> None:
    collector = RunCollector(Recorder(planned=1), Pace(num_emails=1), lambda: 0.0)
    status = "healthy"
    async with serving_metrics(0, collector, lambda: {"status": status}) as url:
        assert await fetch(url.replace("metrics", "health")) == b'{"status": "healthy"}'
        status = "draining"
        with pytest.raises(FetchFailed, match="503"):
            await fetch(url.replace("metrics", "health"))


async def test_without_a_port_nothing_is_served() -> None:
    collector = RunCollector(Recorder(planned=1), Pace(num_emails=1), lambda: 0.0)
    async with serving_metrics(None, collector) as url:
        assert url == ""


async def test_a_port_that_is_taken_is_said_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        collector = RunCollector(Recorder(planned=1), Pace(num_emails=1), lambda: 0.0)
        with pytest.raises(PrometheusPortError, match=f"Port {port} cannot be opened"):
            async with serving_metrics(port, collector):
                pass


# The loop under test is the command's own.
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("processes", [1, 2])
async def test_a_run_can_be_watched_whatever_the_number_of_processes(
    tmp_path: Path, processes: int
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/metrics"
    async with scripted_server(ScriptedServer(hold_after=10)) as server:
        arguments = (
            *("--port", str(server.port), "--from", "someone@example.org"),
            *("--password", PASSWORD, "--num-emails", "30", "--concurrent", "4"),
            *("--processes", str(processes), "--prometheus-port", str(port)),
        )
        async with command(tmp_path, *arguments) as running:
            await server.held(4)

            async def is_told() -> bool:
                found = parsed(await fetch(url))
                counts = ("succeeded", "failed", "dropped")
                told = [found["xoauth2_bench_messages_total", name] for name in counts]
                return (told, found["xoauth2_bench_in_flight", ""]) == ([10, 0, 0], 4)

            await until(is_told)
            health = strict_json((await fetch(url.replace("metrics", "health"))).decode())
            assert health.keys() == Health().report().keys()
            assert (health["status"], health["service"]) == ("healthy", "xoauth2-bench")
            assert health["accounts"] == {"enabled": 1, "disabled": 0}
            server.released.set()
            code, _, errors = await running.end()
        assert (code, len(server.accepted)) == (0, 30), errors
        assert url in errors
    with pytest.raises(FetchFailed):
        await fetch(url)
