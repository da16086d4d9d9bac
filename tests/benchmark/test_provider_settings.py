from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.provider_summary import flat, settings, summary
from bench.client.endpoint import Endpoint
from bench.reconciliation.provider_observer import ProviderObserver
from bench.reconciliation.provider_settings import read
from bench.targets.target import Target
from tests.benchmark.scripted_server import ScriptedServer
from tests.benchmark.stand_in import stand_in

if TYPE_CHECKING:
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
SETTINGS: dict[str, Any] = {
    "behaviour": {"dialect": "outlook", "messages_per_minute": 5, "rtt_seconds": 0.08},
    "faults": [{"step": "end", "action": "drop", "rate": 0.01}],
    "token_endpoint": {"ttl_seconds": 3600.0, "rotation": "none"},
    "seed": 7,
}


def target(folder: Path, sandbox_url: str) -> Target:
    return Target(
        endpoint=Endpoint("127.0.0.1", 1),
        state_dir=folder,
        sandbox_url=sandbox_url,
        no_sandbox_reason="" if sandbox_url else "there is none",
    )


async def test_a_witness_knows_the_provider_and_begins_its_peaks_anew(tmp_path: Path) -> None:
    server = ScriptedServer(connections=30)
    async with stand_in(server, settings=SETTINGS) as url:
        observer = await ProviderObserver.begin(target(tmp_path, url), ("someone@example.org",))
        server.connections += 4
        figures = await observer.provider()
    assert observer.settings == SETTINGS
    assert figures is not None
    assert figures.peak_connections_per_mailbox == 4


async def test_without_a_sandbox_there_are_no_settings(tmp_path: Path) -> None:
    observer = await ProviderObserver.begin(target(tmp_path, ""), ("someone@example.org",))
    assert observer.settings is None
    assert await read("http://127.0.0.1:1") is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        SETTINGS | {"behaviour": None},
        SETTINGS | {"faults": ["end:drop"]},
        SETTINGS | {"token_endpoint": 3600},
        SETTINGS | {"seed": "7"},
    ],
)
async def test_settings_of_another_form_are_not_taken(answer: object) -> None:
    async with stand_in(ScriptedServer(), settings=answer) as url:
        assert await read(url) is None


async def test_no_more_is_taken_than_is_meant_to_be_shown() -> None:
    endpoint = SETTINGS["token_endpoint"] | {"clients": {"me": "secret"}}
    async with stand_in(ScriptedServer(), settings=SETTINGS | {"token_endpoint": endpoint}) as url:
        assert await read(url) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "outlook, messages_per_minute=5, rtt 80 ms, faults: end:drop:rate=0.01, seed 7"),
        ({"faults": []}, "outlook, messages_per_minute=5, rtt 80 ms"),
        ({"behaviour": {"dialect": "outlook", "messages_per_minute": 30}, "faults": []}, "outlook"),
        ({"behaviour": {}, "faults": []}, "unlimited"),
        ({"behaviour": {"session_seconds": 2.0}, "faults": []}, "unlimited, session 2 s"),
        (
            {
                "behaviour": {"withhold": []},
                "faults": [],
                "token_endpoint": {"ttl_seconds": 60.0, "rotation": "once"},
            },
            "unlimited, token ttl 60 s, token rotation=once",
        ),
        (
            {
                "behaviour": {},
                "faults": [
                    {"step": "mail", "action": "421", "nth": 3, "seconds": 0.0, "text": ""},
                    {"step": "auth", "action": "delay", "nth": None, "seconds": 2.5},
                    {"step": "token", "action": "429", "nth": 1, "mailbox": None},
                ],
            },
            "unlimited, faults: mail:421:nth=3, auth:delay:every:seconds=2.5, token:429, seed 7",
        ),
        (
            {"behaviour": {}, "faults": [{"step": "end", "action": "stall"}] * 8},
            "unlimited, faults: " + ", ".join(["end:stall"] * 5) + " and 3 more, seed 7",
        ),
    ],
)
def test_a_provider_is_told_by_what_is_not_usual(changes: dict[str, Any], told: str) -> None:
    assert summary(SETTINGS | changes) == told


@given(st.dictionaries(st.sampled_from(tuple(SETTINGS)), JSON))
def test_settings_of_any_form_are_told(found: dict[str, Any]) -> None:
    assert isinstance(summary(found), str)
    assert settings({"provider_settings": found}) == found
    assert isinstance(flat(found), dict)
    dialect = {"behaviour": {"dialect": found.get("seed")}, "faults": [found.get("faults")]}
    assert isinstance(summary(dialect), str)
