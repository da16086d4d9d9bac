"""The figures of workers and of their parent, shown as if one process had counted them all."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from xoauth2_proxy.metrics import MergedMetrics, Metrics

if TYPE_CHECKING:
    from pathlib import Path

# A worker: its number, and how many token refreshes of each provider it counts.
_WORKER = """
import sys
from pathlib import Path
from xoauth2_proxy import metrics
directory, worker, *providers = sys.argv[1:]
metrics.record_in_files(Path(directory), int(worker))
figures = metrics.Metrics()
for provider in providers:
    figures.token_refreshes.labels(provider, "ok").inc()
    figures.token_refresh_seconds.labels(provider).observe(0.2)
figures.client_sessions.set(2)
"""
REFRESHES = "xoauth2_proxy_token_refreshes_total"
SECONDS = "xoauth2_proxy_token_refresh_duration_seconds"
MAILBOXES = "xoauth2_proxy_mailboxes"


def count_in_a_worker(directory: Path, worker: int, *providers: str) -> None:
    subprocess.run([sys.executable, "-c", _WORKER, directory, str(worker), *providers], check=True)


def refresh(figures: Metrics, provider: str, result: str = "ok", seconds: float = 0.2) -> None:
    figures.token_refreshes.labels(provider, result).inc()
    figures.token_refresh_seconds.labels(provider).observe(seconds)


class Shown:
    """What `/metrics` shows: one look."""

    def __init__(self, merged: MergedMetrics) -> None:
        self.text = generate_latest(merged.registry).decode()
        self.families = list(text_string_to_metric_families(self.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        found = [one.value for one in self.samples if (one.name, one.labels) == (name, labels)]
        assert len(found) <= 1, f"{name} is shown {len(found)} times"
        return found[0] if found else None


@pytest.fixture
def own() -> Metrics:
    return Metrics()


@pytest.fixture
def merged(tmp_path: Path, own: Metrics) -> MergedMetrics:
    return MergedMetrics(tmp_path, list, own)


def test_the_parents_counters_are_added_to_the_workers(
    tmp_path: Path, merged: MergedMetrics, own: Metrics
) -> None:
    count_in_a_worker(tmp_path, 0, "gmail", "gmail", "outlook")
    count_in_a_worker(tmp_path, 1, "gmail")
    refresh(own, "gmail")
    refresh(own, "gmail", "revoked")
    refresh(own, "oidc")
    shown = Shown(merged)
    assert shown.value(REFRESHES, provider="gmail", result="ok") == 4
    assert shown.value(REFRESHES, provider="gmail", result="revoked") == 1
    assert shown.value(REFRESHES, provider="outlook", result="ok") == 1
    assert shown.value(REFRESHES, provider="oidc", result="ok") == 1


def test_histograms_are_added_bucket_by_bucket(
    tmp_path: Path, merged: MergedMetrics, own: Metrics
) -> None:
    count_in_a_worker(tmp_path, 0, "gmail", "gmail")
    refresh(own, "gmail", seconds=0.04)
    refresh(own, "gmail", seconds=100.0)
    shown = Shown(merged)
    assert shown.value(f"{SECONDS}_count", provider="gmail") == 4
    assert shown.value(f"{SECONDS}_sum", provider="gmail") == pytest.approx(100.44)
    expected = {"0.025": 0, "0.1": 1, "0.25": 3, "60.0": 3, "+Inf": 4}
    found = {le: shown.value(f"{SECONDS}_bucket", provider="gmail", le=le) for le in expected}
    assert found == expected


def test_how_mailboxes_stand_is_shown_once_and_follows(
    tmp_path: Path, merged: MergedMetrics, own: Metrics
) -> None:
    for worker in (0, 1):
        count_in_a_worker(tmp_path, worker, "gmail")
    own.mailboxes.labels("gmail", "ok").set(3)
    shown = Shown(merged)
    assert [one.value for one in shown.samples if one.name == MAILBOXES] == [3]
    own.mailboxes.labels("gmail", "ok").set(1)
    own.mailboxes.labels("gmail", "sign_in_needed").set(2)
    shown = Shown(merged)
    assert shown.value(MAILBOXES, provider="gmail", state="ok") == 1
    assert shown.value(MAILBOXES, provider="gmail", state="sign_in_needed") == 2


def test_looking_changes_nothing(tmp_path: Path, merged: MergedMetrics, own: Metrics) -> None:
    count_in_a_worker(tmp_path, 0, "gmail")
    refresh(own, "gmail")
    looks = [Shown(merged).value(REFRESHES, provider="gmail", result="ok") for _ in range(3)]
    assert looks == [2, 2, 2]
    assert own.registry.get_sample_value(REFRESHES, {"provider": "gmail", "result": "ok"}) == 1


def test_a_workers_end_takes_its_gauges_and_nothing_of_the_parents(
    tmp_path: Path, merged: MergedMetrics, own: Metrics
) -> None:
    for worker in (0, 1):
        count_in_a_worker(tmp_path, worker, "gmail")
    own.mailboxes.labels("gmail", "ok").set(3)
    assert Shown(merged).value("xoauth2_proxy_client_sessions") == 4
    merged.drop_gauges(0)
    shown = Shown(merged)
    assert shown.value("xoauth2_proxy_client_sessions") == 2
    assert shown.value(MAILBOXES, provider="gmail", state="ok") == 3
    assert shown.value(REFRESHES, provider="gmail", result="ok") == 2


def test_without_workers_there_are_the_parents_figures(merged: MergedMetrics, own: Metrics) -> None:
    refresh(own, "gmail")
    shown = Shown(merged)
    assert shown.value(REFRESHES, provider="gmail", result="ok") == 1
    assert shown.value("xoauth2_proxy_client_sessions") == 0


def test_everything_is_shown_once_and_explained(
    tmp_path: Path, merged: MergedMetrics, own: Metrics
) -> None:
    count_in_a_worker(tmp_path, 0, "gmail")
    refresh(own, "gmail")
    own.mailboxes.labels("gmail", "ok").set(3)
    shown = Shown(merged)
    series = Counter((one.name, tuple(sorted(one.labels.items()))) for one in shown.samples)
    assert set(series.values()) == {1}
    assert set(Counter(one.name for one in shown.families).values()) == {1}
    assert shown.text.count("# TYPE xoauth2_proxy_info ") == 1
    assert all(one.documentation for one in shown.families)
    assert "Multiprocess metric" not in shown.text
    # Counters of one process have the date of their birth; files of workers have none.
    assert not [one.name for one in shown.samples if one.name.endswith("_created")]


def test_the_parents_process_is_counted_by_the_system_alone(merged: MergedMetrics) -> None:
    names = [one.name for one in Shown(merged).samples]
    assert names.count("process_open_fds") == 1
    assert names.count("python_info") == 1
