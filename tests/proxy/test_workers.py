"""The parts that make several processes one relay, and the parent with workers under its hand."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests.support.smtp_client import Client
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.workers import pids
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.cli import cli
from xoauth2_proxy.clients.forwarding import MAX_LINE
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.log import LogFormat, LogLevel
from xoauth2_proxy.metrics import MergedMetrics, Metrics
from xoauth2_proxy.service.runner import CannotStart, Run
from xoauth2_proxy.submission import acceptor
from xoauth2_proxy.submission.acceptor import listening_sockets
from xoauth2_proxy.workers import parent as parent_module
from xoauth2_proxy.workers.channel import Channel, Logging, Setup, receive_setup
from xoauth2_proxy.workers.number import number_of_processors
from xoauth2_proxy.workers.parent import Parent
from xoauth2_proxy.workers.run_directory import ClientCounts, RunDirectory
from xoauth2_proxy.workers.worker import SupervisionTiming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOGGING = Logging(LogLevel.INFO, LogFormat.TEXT)
QUICK = SupervisionTiming(
    ping_seconds=0.05, max_unanswered=40, min_delay_seconds=0.01, max_delay_seconds=0.04
)
ONE_LOOP = pytest.mark.one_loop


def run_of(directory: Path) -> Run:
    source = ConfigSource(None, Overrides(sandbox=True, port=0, admin_port=0), directory)
    return Run(
        config=source.load(BUILT_IN_REFRESHERS, {}), source=source, sandbox=True, is_quiet=True
    )


@asynccontextmanager
async def running(
    directory: Path, number: int = 1, timing: SupervisionTiming = QUICK
) -> AsyncIterator[Parent]:
    parent = Parent(run_of(directory), number, LOGGING, timing)
    await parent.start()
    try:
        yield parent
    finally:
        await parent.stop()


def state(parent: Parent) -> tuple[int, int]:
    assert parent.health.workers is not None
    return parent.health.workers.running, parent.health.workers.restarts


# The command line.


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", "65", ""])
def test_a_number_of_workers_that_makes_no_sense_is_refused(number: str) -> None:
    result = CliRunner().invoke(cli, ["--sandbox", "--workers", number])
    assert result.exit_code == 2
    assert "--workers" in result.stderr


def test_help_tells_of_workers() -> None:
    result = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "200"})
    assert "--workers" in result.stdout


def test_auto_is_the_number_of_processors() -> None:
    assert number_of_processors() == min(len(os.sched_getaffinity(0)), 64)


# ClientCounter.


def test_seats_are_summed_over_workers(tmp_path: Path) -> None:
    client_counts = ClientCounts.create(tmp_path / "client_counts", 3, 2)
    ours, of_another_listener = client_counts.for_worker(0)
    theirs, _ = ClientCounts(tmp_path / "client_counts", 2).for_worker(2)
    assert ours.count(5) == 5
    assert theirs.count(4) == 9
    assert of_another_listener.count(1) == 1
    assert ours.count(0) == 4


def test_a_worker_with_more_than_its_share_lets_the_others_go_first(tmp_path: Path) -> None:
    client_counts = ClientCounts.create(tmp_path / "client_counts", 2, 1)
    (ours,), (theirs,) = client_counts.for_worker(0), client_counts.for_worker(1)
    assert not ours.is_ahead(4)
    ours.count(10)
    assert ours.is_ahead(10)
    assert not theirs.is_ahead(0)
    theirs.count(8)
    assert not ours.is_ahead(10)


# The directory of a run.


def test_what_a_killed_run_left_is_removed_but_not_what_is_in_use(tmp_path: Path) -> None:
    left, in_use = RunDirectory(tmp_path), RunDirectory(tmp_path)
    left._lock.close()  # as the kernel does when a process ends
    ours = RunDirectory(tmp_path)
    assert set(tmp_path.glob("run-*")) == {in_use.path, ours.path}
    assert ours.path.stat().st_mode & 0o777 == 0o700
    ours.remove()
    in_use.remove()
    assert not list(tmp_path.glob("run-*"))


# The channel.


async def test_lines_and_setup_get_through_whole(tmp_path: Path) -> None:
    setup = Setup(
        run=run_of(tmp_path),
        logging=LOGGING,
        number=3,
        workers=4,
        sockets=((7, 8), (9,)),
        directory=tmp_path,
        sandbox=None,
    )
    one, other = socket.socketpair()
    here = await Channel.over(one)
    with other:
        receiving = asyncio.create_task(asyncio.to_thread(receive_setup, other))
        await here.send(setup)
        received = await receiving
        assert received == setup
        assert received.run.config == setup.run.config
        there = await Channel.over(other.dup())
    here.say("failed for\nmany\r\nreasons")
    here.say("x" * 100_000)
    assert await there.line() == "failed for many reasons"
    assert len(await there.line()) == MAX_LINE
    await here.close()
    assert await there.line() == ""
    await there.close()


async def test_a_process_that_reads_nothing_is_not_written_to_without_end() -> None:
    one, other = socket.socketpair()
    here = await Channel.over(one)
    with other:
        for _ in range(10_000):
            here.say("x" * 1000)
        assert here._writer.transport.get_write_buffer_size() < 100_000
    await here.close()


def test_a_parent_that_ends_in_the_middle_of_the_setup_is_noticed() -> None:
    one, other = socket.socketpair()
    with other:
        one.sendall(b"\0\0\1\0half")
        one.close()
        with pytest.raises(EOFError):
            receive_setup(other)


# Sockets.


def test_a_port_in_use_cannot_be_shared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(OSError, match=rf"{port}.*in use"):
            listening_sockets(["127.0.0.1"], port)


def test_localhost_is_both_addresses_on_one_port() -> None:
    sockets = listening_sockets(["localhost"], 0)
    assert {one.getsockname()[0] for one in sockets} == {"127.0.0.1", "::1"}
    assert len({one.getsockname()[1] for one in sockets}) == 1
    for one in sockets:
        one.close()


def test_localhost_is_the_one_address_of_a_machine_without_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptor, "LOCALHOST", ("127.0.0.1", "192.0.2.1"))  # not this machine's
    (listening,) = listening_sockets(["localhost"], 0)
    assert listening.getsockname()[0] == "127.0.0.1"
    listening.close()


# Figures.


COUNTING = """
import sys
from pathlib import Path
from xoauth2_proxy import metrics
metrics.record_in_files(Path(sys.argv[1]), int(sys.argv[2]))
figures = metrics.Metrics()
figures.client_connections.labels("accepted").inc(3)
figures.client_sessions.set(2)
figures.provider("mock").message(250, 100, 0.02)
"""


def count_in_a_process(directory: Path, worker: int) -> None:
    subprocess.run([sys.executable, "-c", COUNTING, str(directory), str(worker)], check=True)


def test_a_workers_next_process_goes_on_counting(tmp_path: Path) -> None:
    merged = MergedMetrics(tmp_path, list, Metrics())
    show = merged.registry.get_sample_value
    accepted = ("xoauth2_proxy_client_connections_total", {"result": "accepted"})
    for worker in (0, 1):
        count_in_a_process(tmp_path, worker)
    assert (show(*accepted), show("xoauth2_proxy_client_sessions")) == (6, 4)
    merged.drop_gauges(1)
    assert (show(*accepted), show("xoauth2_proxy_client_sessions")) == (6, 2)
    count_in_a_process(tmp_path, 1)
    assert (show(*accepted), show("xoauth2_proxy_client_sessions")) == (9, 4)
    bucket = {"provider": "mock", "le": "0.025"}
    assert show("xoauth2_proxy_relay_duration_seconds_bucket", bucket) == 3
    (tmp_path / "counter_2.db").touch()  # a worker's file in its first moment
    assert show(*accepted) == 9


def test_processor_time_of_processes_that_ended_is_kept(tmp_path: Path) -> None:
    busy = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as process:
        alive = [process.pid]
        merged = MergedMetrics(tmp_path, lambda: alive, Metrics())
        show = merged.registry.get_sample_value
        start = show("process_cpu_seconds_total") or 0.0
        while (before := show("process_cpu_seconds_total") or 0.0) < start + 0.1:
            pass
        assert (show("process_open_fds") or 0.0) > len(os.listdir("/proc/self/fd")) + 1
        process.kill()
        process.wait()
        alive.clear()
        assert (show("process_cpu_seconds_total") or 0.0) >= before


# Workers.


@ONE_LOOP
async def test_a_worker_whose_loop_is_stuck_is_killed_and_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as parent:
        stuck = parent.workers[0].pid
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        # On a busy machine the other one may seem stuck as well.
        await until(lambda: state(parent)[1] >= 1 and state(parent)[0] == 2)
        assert stuck not in pids(os.getpid())


@ONE_LOOP
async def test_a_worker_that_is_starting_is_not_taken_for_stuck(tmp_path: Path) -> None:
    impatient = replace(QUICK, ping_seconds=0.001, max_unanswered=1)  # imports take far longer
    async with running(tmp_path, timing=impatient) as parent:
        assert parent.workers[0].first_start.result() == ""


@ONE_LOOP
async def test_a_worker_that_does_not_get_ready_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = Parent(run_of(tmp_path), 1, LOGGING, replace(QUICK, start_seconds=0.001))
    with pytest.raises(CannotStart, match=r"it did not get ready in 0\.001 s"):
        await parent.start()
    assert "worker did not become ready; killed" in caplog.text
    assert not parent.workers[0].pid


@ONE_LOOP
async def test_restarts_come_later_and_later_until_one_gets_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as parent:
        shutil.rmtree(tmp_path / "slots")
        (tmp_path / "slots").touch()
        parent.kill_workers()

        def delays() -> list[float]:
            fields = [getattr(one, "fields", {}) for one in caplog.records]
            return [one["restart_seconds"] for one in fields if "restart_seconds" in one]

        await until(lambda: len(delays()) >= 4)
        assert delays()[:4] == [0.01, 0.02, 0.04, 0.04]
        assert state(parent)[0] == 0
        assert not parent.health.is_ready
        (tmp_path / "slots").unlink()
        await until(lambda: parent.health.is_ready)
    assert "worker cannot start" in caplog.text


@ONE_LOOP
async def test_when_no_worker_can_start_nothing_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "slots").touch()
    parent = Parent(run_of(tmp_path), 2, LOGGING, QUICK)
    with pytest.raises(CannotStart, match="File exists"):
        await parent.start()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("run-")]
    assert not any(worker.pid for worker in parent.workers)


@ONE_LOOP
async def test_a_worker_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parent_module, "_GRACE_SECONDS", 0.3)
    run = run_of(tmp_path)
    config = replace(run.config, relay=run.config.relay.model_copy(update={"drain_seconds": 0.0}))
    parent = Parent(replace(run, config=config), 1, LOGGING)
    await parent.start()
    stuck = parent.workers[0].pid
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await parent.stop()
    assert "did not end in time" in caplog.text
    assert stuck not in pids(os.getpid())


@ONE_LOOP
async def test_signals_are_the_parents_business(tmp_path: Path) -> None:
    async with running(tmp_path) as parent:
        process = parent.workers[0].pid
        assert process is not None
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(process, number)
        host, port = parent._sockets.by_listener[0][0].getsockname()
        async with await Client.connect(host, port) as client:
            assert client.greeting.code == 220
        assert parent.workers[0].pid == process
