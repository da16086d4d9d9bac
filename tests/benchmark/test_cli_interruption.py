"""SIGINT and SIGTERM at random moments of every mode.

Once for each by default; `BENCH_INTERRUPTIONS=20 pytest tests/benchmark/test_cli_interruption.py`
repeats each twenty times, at other moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.benchmark.runs import command, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

LOGIN = ("--from", "someone@example.org", "--password", PASSWORD, "--yes")
REPEATS = int(os.environ.get("BENCH_INTERRUPTIONS", "1"))
LATEST_SECONDS = 0.4
RAMP = ("--arrival-rate", "150", "--ramp-from", "10", "--ramp-seconds", "3")
OVERLOAD = ("--arrival-rate", "5000", "--concurrent", "2", "--max-lateness", "0.1")
THREE = ("--processes", "3")
# Each goes on for longer than that.
MODES = {
    "closed by count": ("--num-emails", "100000", "--concurrent", "4"),
    "closed for a time": ("--duration", "60", "--concurrent", "4"),
    "open by count": ("--num-emails", "9000", "--arrival-rate", "150", "--concurrent", "9"),
    "open for a time": ("--duration", "60", "--arrival-rate", "150"),
    "open with a ramp": ("--duration", "60", *RAMP),
    "open and overloaded": ("--num-emails", "100000", *OVERLOAD),
    "in the warm-up": ("--num-emails", "10", "--warmup", "60"),
    "at the end of the warm-up": ("--num-emails", "100000", "--warmup", "0.3"),
    "per message": ("--duration", "60", "--connection", "per-message"),
    "pipelined": ("--duration", "60", "--connection", "3", "--pipelined"),
    "slow clients": ("--duration", "60", "--slow", "3000", "--sizes", "1k:1,2k:1"),
    "with an idle crowd": ("--duration", "60", "--idle-clients", "300"),
    "in two processes": ("--duration", "60", "--concurrent", "4", "--processes", "2"),
    "in three processes, open": ("--num-emails", "9000", "--arrival-rate", "150", *THREE),
    "compare": ("--scenario", "compare", "--num-emails", "100000"),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("mode", list(MODES))
async def test_counts_are_right_at_whatever_moment_it_is_stopped(
    tmp_path: Path, mode: str, repeat: int
) -> None:
    chance = random.Random(f"{mode} {repeat}")
    number = SIGNALS[(repeat + list(MODES).index(mode)) % 2]
    script = ScriptedServer(
        reply_to_content=lambda count: "452 4.3.1 full" if count % 11 == 0 else "250 ok",
        delay_seconds=lambda count: 0.02 if count % 5 == 0 else 0.0,
    )
    async with scripted_server(script) as server:
        arguments = ("--port", str(server.port), *LOGIN, *MODES[mode], "--output", "run.json")
        async with command(tmp_path, *arguments) as running:
            await running.error_text("Sending")
            await asyncio.sleep(chance.uniform(0, LATEST_SECONDS))
            running.process.send_signal(number)
            code, out, errors = await running.end()
        await server.happened(lambda: server.open_now == 0)
    assert code == 128 + number, out + errors
    document = strict_json((tmp_path / "run.json").read_text())
    validate(document)
    assert (document["partial"], document["interrupted_by"]) == (True, number.name)
    results, warmup = document["results"], document["warmup"]
    assert "(PARTIAL)" in out
    assert f"Stopped after {results['successful']} successful messages ({number.name})" in out
    if results["planned"] is not None:
        assert results["planned"] == sum(
            results[name] for name in ("successful", "failed", "not_attempted", "dropped")
        )
    acknowledged = results["successful"] + warmup["requests"] - warmup["failed"]
    assert len(server.accepted) == acknowledged
    assert len({accepted.message_id for accepted in server.accepted}) == acknowledged
    # Nothing was cut short: all that failed was refused.
    refused = server.contents - len(server.accepted)
    assert results["failed"] + warmup["failed"] == refused
    assert {error["code"] for error in document["errors"]} <= {"452"}
