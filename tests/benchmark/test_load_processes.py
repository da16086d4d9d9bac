"""A load of several processes: exact accounts, whole endings, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.client.endpoint import Endpoint, Tls
from bench.client.login import Mechanism
from bench.load.messages import Messages
from bench.measurement.recorder import Recorder
from bench.plan.arrivals import Pace, Rate
from bench.plan.workloads import Recipients, Sizes, Workload
from bench.runs import load_process
from bench.runs.load_processes import LOST, LoadProcesses, LoadProcessesError
from bench.runs.process_messages import Start
from bench.runs.run_request import RunRequest
from bench.targets.target import Target
from bench.targets.target_request import TargetRequest
from tests.benchmark.runs import command, invoked, only_file, plan, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.benchmark.trial import Trial, codes
from tests.support.beside import beside
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bench.measurement.result import Result
    from bench.plan.scenarios import RunPlan
    from tests.benchmark.runs import Command

# Each child takes a second or more to start, whatever the loop of its parent.
pytestmark = pytest.mark.one_loop

STOPPING = "Stopping after the messages in flight"


class Several:
    """A load of several processes against a scripted server."""

    def __init__(self, server: ScriptedServer, what: RunPlan, target: TargetRequest | None) -> None:
        state_dir = Path("/nonexistent")
        request = RunRequest(
            plan=what,
            target=target or TargetRequest(state_dir=state_dir),
            mechanism=Mechanism.PLAIN,
            secret=PASSWORD,
        )
        self.plan = what
        self.messages = Messages(what.to_email, what.workload)
        self.recorder = Recorder(what.pace.planned, what.pace.warmup_seconds)
        self.load = LoadProcesses(
            request,
            Target(
                endpoint=Endpoint("127.0.0.1", server.port),
                state_dir=state_dir,
                sandbox_url="",
                no_sandbox_reason="none",
            ),
            self.messages,
            self.recorder,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it to its end, which comes before the context is left."""
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            group.create_task(self.load.run())
            yield

    def result(self) -> Result:
        return self.recorder.snapshot(self.load.wall_seconds)

    def arrived(self, server: ScriptedServer) -> list[int]:
        """The numbers of the messages that the server kept, ascending."""
        found = (self.messages.number(one.message_id) for one in server.accepted)
        return sorted(-1 if number is None else number for number in found)


def several(server: ScriptedServer, target: TargetRequest | None = None, **changes: Any) -> Several:
    return Several(server, plan(**({"processes": 2} | changes)), target)


MAILBOXES = tuple(f"bench{index}@example.org" for index in range(4))


@pytest.fixture(scope="module")
def whole() -> tuple[Several, ScriptedServer]:
    """A run that went well, and the server that it was sent to."""

    async def run() -> tuple[Several, ScriptedServer]:
        workload = Workload(sizes=Sizes.parse("600:1,9k:1"), recipients=Recipients.parse("1-4"))
        load: dict[str, Any] = {
            "num_emails": 100,
            "concurrent": 8,
            "mailboxes": MAILBOXES,
            "workload": workload,
        }
        async with scripted_server() as server:
            trial = several(server, **load, processes=3)
            # As if the run had been prepared long before its processes were started.
            trial.messages._date = "Thu, 20 Nov 2025 05:45:00 +0000"
            async with trial.running():
                pass
        return trial, server

    return asyncio.run(run())


def test_each_message_is_sent_once_by_one_of_the_processes(
    whole: tuple[Several, ScriptedServer],
) -> None:
    trial, server = whole
    assert trial.arrived(server) == list(range(100))
    assert server.connections == 8
    result = trial.result()
    assert (result.planned, result.succeeded, result.not_attempted) == (100, 100, 0)
    assert trial.recorder.in_flight == 0
    assert result.phases.connect.count == 8
    assert 0 < (result.latency.max_seconds or 0) <= result.wall_seconds


def test_the_messages_are_those_that_the_parent_can_write_again(
    whole: tuple[Several, ScriptedServer],
) -> None:
    trial, server = whole
    for one in server.accepted:
        number = trial.messages.number(one.message_id)
        assert number is not None
        assert one.sha256 == trial.messages.sha256(number, one.mailbox)
        assert one.forward_paths == trial.messages.forward_paths(number)


def test_mailboxes_are_dealt_to_the_connections_as_without_processes(
    whole: tuple[Several, ScriptedServer],
) -> None:
    logins = [line for line in whole[1].commands if line.startswith(b"AUTH")]
    assert sorted(logins.count(line) for line in set(logins)) == [2, 2, 2, 2]


def test_what_the_processes_used_is_added_up(whole: tuple[Several, ScriptedServer]) -> None:
    load = whole[0].load
    figures = load.figures(100, 0)
    assert figures.processes == 3
    # What this process needed to keep the account is the load's as well.
    assert figures.cpu_seconds > load.usage.cpu_seconds > 0
    assert 0 < figures.cpu_share <= 1
    assert figures.loop_lag.max_seconds is not None


async def test_arrivals_of_all_processes_together_keep_the_rate() -> None:
    pace = Pace(duration_seconds=1.5, rate=Rate(per_second=60))
    async with scripted_server() as server:
        trial = several(server, pace=pace, concurrent=6)
        async with trial.running():
            pass
        assert trial.arrived(server) == list(range(90))
    result = trial.result()
    assert (result.planned, result.succeeded, result.dropped) == (90, 90, 0)
    # The last is due a sixtieth of a second before the end, whichever process has it.
    assert result.wall_seconds >= 1.5 - 2 / 60


async def test_warm_up_is_left_out_and_acknowledged_all_the_same() -> None:
    pace = Pace(num_emails=30, warmup_seconds=0.3)
    async with scripted_server() as server:
        trial = several(server, pace=pace, concurrent=3)
        async with trial.running():
            pass
        arrived = trial.arrived(server)
    result = trial.result()
    assert result.succeeded == 30
    assert result.warmup.requests > 0
    assert len(arrived) == len(set(arrived)) == 30 + result.warmup.requests
    assert all(trial.recorder.is_acknowledged(number) for number in arrived)


async def test_stop_reaches_every_process_and_lets_sends_in_flight_finish() -> None:
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        trial = several(server, num_emails=20_000, concurrent=6)
        async with trial.running():
            await server.held(6)
            trial.load.stop()
            server.released.set()  # the word to stop is under way meanwhile
        accepted = len(server.accepted)
    result = trial.result()
    assert 6 <= accepted < 20_000
    assert (result.succeeded, result.failed) == (accepted, 0)
    assert result.not_attempted == 20_000 - accepted
    assert server.commands.count(b"QUIT") == 6  # no connection was left hanging


async def test_sends_that_do_not_finish_are_cut_short_in_every_process() -> None:
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        trial = several(server, num_emails=100, concurrent=6, drain_seconds=0.1)
        async with trial.running():
            await server.held(6)
            trial.load.stop()
    result = trial.result()
    assert (result.succeeded, result.not_attempted) == (0, 94)
    assert codes(result) == {"cut short": 6}


async def test_the_end_of_a_duration_bounds_every_process() -> None:
    async with scripted_server() as server:
        server.stall()
        trial = several(server, pace=Pace(duration_seconds=1), concurrent=6, drain_seconds=0.1)
        async with trial.running():
            pass
    result = trial.result()
    assert codes(result) == {"cut short": 6}
    assert not trial.load.was_cut_short


async def test_a_process_that_is_late_keeps_to_the_moment_that_was_agreed() -> None:
    async with scripted_server() as server:
        trial = Trial(server, plan(5, 1))
        await load_process._send(trial.load, Start(time.perf_counter() - 30.0), 0.0)
    assert trial.load.wall_seconds >= 30.0


async def test_stop_before_the_start_sends_nothing() -> None:
    async with scripted_server() as server:
        trial = several(server, num_emails=10, concurrent=3)
        async with trial.running():
            trial.load.stop()
        assert server.connections == 0
    assert trial.result().not_attempted == 10
    assert trial.load.losses == []
    assert not trial.load.was_cut_short


async def test_a_process_that_dies_is_reported_and_its_messages_are_counted() -> None:
    told: list[str] = []
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        trial = several(server, num_emails=90, concurrent=6, processes=3)
        trial.load.on_loss = told.append
        async with trial.running():
            await server.held(6)
            # What the child had begun, its parent knows by now or soon.
            await until(lambda: trial.recorder.in_flight == 6)
            os.kill(trial.load.pids[1], signal.SIGKILL)
            await until(lambda: bool(told))
            server.released.set()
        arrived = trial.arrived(server)
    result = trial.result()
    assert told == trial.load.losses == ["Process 2 of 3 of the load is lost: killed by SIGKILL"]
    assert codes(result) == {LOST: 2}
    assert (result.succeeded, result.failed, result.not_attempted) == (60, 2, 28)
    assert {number for number in arrived if (number) % 3 != 1} == {
        number for number in range(90) if number % 3 != 1
    }
    assert trial.load.was_cut_short
    figures = trial.load.figures(result.attempted, 0)
    assert (figures.processes, figures.was_bottleneck) == (3, True)
    assert "Process 2 of 3" in figures.reason


async def test_a_process_that_cannot_start_ends_the_run_before_the_first_message(
    tmp_path: Path,
) -> None:
    async with scripted_server() as server:
        missing = TargetRequest(
            state_dir=tmp_path, tls=Tls.STARTTLS, ca_file=tmp_path / "missing.pem"
        )
        trial = several(server, missing, num_emails=10, concurrent=3)
        with pytest.raises(
            LoadProcessesError, match=r"process . of 2 did not start: exit code 1, "
        ):
            await trial.load.run()
        assert server.connections == 0
    assert trial.load.pids == []


async def test_the_secret_is_in_no_argument_and_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XOAUTH2_BENCH_PASSWORD", PASSWORD)
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        trial = several(server, num_emails=6, concurrent=3)
        async with trial.running():
            await server.held(3)
            pids = trial.load.pids
            seen = b"".join(map(shown, pids))
            server.released.set()
    assert len(pids) == 2
    assert b"bench.runs.load_process" in seen
    assert PASSWORD.encode() not in seen


def shown(pid: int) -> bytes:
    """What others can see of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def arguments(server: ScriptedServer) -> tuple[str, ...]:
    return (
        *("--port", str(server.port), "--from", "someone@example.org", "--password", PASSWORD),
        *("--num-emails", "20000", "--concurrent", "4", "--processes", "2"),
    )


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def all_gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(_is_running(pid) for pid in pids)


def _is_running(pid: int) -> bool:
    try:
        # One that nobody waits for has ended all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@asynccontextmanager
async def holding(folder: Path) -> AsyncIterator[tuple[ScriptedServer, Command, list[int]]]:
    """Run the command with two processes, until four replies are held back."""
    async with (
        scripted_server(ScriptedServer(hold_after=10)) as server,
        command(folder, *arguments(server)) as running,
    ):
        await server.held(4)
        pids = children(running.process.pid)
        assert len(pids) == 2
        yield server, running, pids
        await until(all_gone(pids))


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
async def test_first_signal_finishes_the_sends_in_flight_of_all_processes(
    tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    async with holding(tmp_path) as (server, running, _):
        running.process.send_signal(number)
        await running.error_text(STOPPING)
        server.released.set()
        code, _, _ = await running.end()
    accepted = len(server.accepted)
    assert code == expected
    assert 14 <= accepted < 20_000
    document = strict_json(only_file(tmp_path).read_text())
    validate(document)
    results = document["results"]
    assert (results["successful"], results["failed"]) == (accepted, 0)
    assert results["not_attempted"] == 20_000 - accepted
    assert (document["interrupted_by"], document["config"]["processes"]) == (number.name, 2)
    assert document["generator"]["processes"] == 2


async def test_second_signal_ends_all_processes_at_once(tmp_path: Path) -> None:
    async with holding(tmp_path) as (_, running, _):
        running.process.send_signal(signal.SIGINT)
        await running.error_text(STOPPING)
        running.process.send_signal(signal.SIGINT)
        code, out, _ = await running.end()
    assert (code, out) == (130, "")


async def test_a_run_that_lost_a_process_is_not_taken_for_whole(tmp_path: Path) -> None:
    async with holding(tmp_path) as (server, running, pids):
        os.kill(pids[1], signal.SIGKILL)
        await running.error_text("is lost: killed by SIGKILL")
        running.process.send_signal(signal.SIGINT)
        server.released.set()
        await running.end()
    document = strict_json(only_file(tmp_path).read_text())
    assert document["partial"] is True


async def test_a_lost_process_alone_makes_the_exit_code_1(tmp_path: Path) -> None:
    async with scripted_server(ScriptedServer(hold_after=10)) as server:
        few = (*arguments(server), "--num-emails", "40", "--assert", "success>=10%")
        async with command(tmp_path, *few) as running:
            await server.held(4)
            os.kill(children(running.process.pid)[1], signal.SIGKILL)
            await running.error_text("is lost: killed by SIGKILL")
            server.released.set()
            code, out, _ = await running.end()
    document = strict_json(only_file(tmp_path).read_text())
    validate(document)
    assert (code, document["partial"], document["interrupted_by"]) == (1, True, "process lost")
    results = document["results"]
    assert results["not_attempted"] > 0
    assert results["success_rate"] == results["successful"] / 40
    assert "(PARTIAL)" in out


async def test_no_process_outlives_one_that_was_killed(tmp_path: Path) -> None:
    async with holding(tmp_path) as (_, running, _):
        running.process.kill()
        await running.process.wait()


def test_more_processes_than_connections_are_refused(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        code, _, errors = invoked(tmp_path, *arguments(server), "--concurrent", "1")
    assert (code, server.connections) == (2, 0)
    assert "--processes" in errors
