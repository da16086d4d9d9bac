"""Stopped at any moment where it runs a proxy of its own: right counts, and nothing stays.

`BENCH_INTERRUPTIONS=20` stops each mode twenty times instead of once.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from tests.benchmark.runs import command, only_file, strict_json, validate
from tests.benchmark.test_cli_private_proxy import assert_clean, is_default_target_taken, place

__all__ = ["place"]

pytestmark = pytest.mark.one_loop

REPEATS = int(os.environ.get("BENCH_INTERRUPTIONS", "1"))
LATEST_SECONDS = 0.5
CASE = Path(__file__).parents[2] / "docs" / "scenarios" / "outlook-three-connections.toml"
# Each goes on for longer than that.
MODES = {
    "mock tokens": ("--use-mock-tokens", "--duration", "60"),
    "mailboxes of its own": ("--accounts", "20", "--duration", "60", "--concurrent", "20"),
    "a storm": ("--scenario", "storm", "--accounts", "10"),
    "a case from a file": ("--scenario-file", str(CASE), "--num-emails", "100000"),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.skipif(is_default_target_taken(), reason="something listens at 127.0.0.1:2525 already")
@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("mode", list(MODES))
async def test_nothing_is_lost_nor_left_at_whatever_moment_it_is_stopped(
    tmp_path: Path, place: dict[str, str], mode: str, repeat: int
) -> None:
    chance = random.Random(f"{mode} {repeat}")
    number = SIGNALS[(repeat + list(MODES).index(mode)) % 2]
    async with command(tmp_path, *MODES[mode], "--yes", environment=place) as running:
        await running.error_text("Sending ")
        await asyncio.sleep(chance.uniform(0, LATEST_SECONDS))
        running.process.send_signal(number)
        code, out, errors = await running.end()
    assert code == 128 + number, out + errors
    document = strict_json(only_file(tmp_path).read_text())
    validate(document)
    results = document["results"]
    assert (document["partial"], document["interrupted_by"]) == (True, number.name)
    assert f"Stopped after {results['successful']} successful messages ({number.name})" in out
    if mode != "a case from a file":  # whose provider refuses
        assert results["failed"] == 0
        assert_clean(document, results["successful"])
    assert document["reconciliation"]["lost"] == 0
