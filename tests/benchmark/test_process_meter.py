from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bench.process import process_meter
from bench.process.process_meter import MeterError, ProcessMeter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not process_meter.is_available(), reason="needs Linux")

MIB = 1024 * 1024
BURN = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


@contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that prints a line after each of its steps and waits for one before."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def step(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline()


@pytest.mark.parametrize("reader", ["_cpu_ns_of_tasks", "_cpu_ns_in_ticks"])
def test_cpu_time_is_what_the_process_used(reader: str) -> None:
    with program(BURN + "input(); print(); input(); burn(0.3); print(); input()") as process:
        step(process)
        measured = ProcessMeter(process.pid)
        measured._read_cpu_ns = getattr(process_meter, reader)
        before = measured.cpu_ns()
        step(process)
        used_seconds = (measured.cpu_ns() - before) / 1e9
    assert 0.28 < used_seconds < 0.4


def test_threads_and_child_processes_count() -> None:
    text = (
        BURN
        + "import subprocess, sys, threading\n"
        + "input(); print(); input()\n"
        + "run = [sys.executable, '-c', 'for _ in range(3000000): pass\\nprint(flush=True)\\n"
        + "import time; time.sleep(60)']\n"
        + "child = subprocess.Popen(run, stdout=subprocess.PIPE)\n"
        + "child.stdout.readline()\n"
        + "thread = threading.Thread(target=lambda: (burn(0.2), print(), input()))\n"
        + "thread.start(); thread.join(); child.kill()"
    )
    with program(text) as process:
        step(process)
        measured = ProcessMeter(process.pid)
        before = measured.cpu_ns()
        step(process)
        used_seconds = (measured.cpu_ns() - before) / 1e9
        assert len(measured._pids()) == 2
        step_to_end(process)
    assert used_seconds > 0.2


def step_to_end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=20)


def test_the_peak_of_memory_and_its_reset() -> None:
    text = "input(); print(); input(); b = bytearray(64 << 20); del b; print(); input()"
    with program(text) as process:
        step(process)
        measured = ProcessMeter(process.pid)
        before = measured.memory()
        step(process)
        after = measured.memory()
        assert after.peak_bytes - before.now_bytes > 60 * MIB
        assert after.now_bytes - before.now_bytes < 16 * MIB
        if measured.reset_peak():
            assert measured.memory().peak_bytes - before.now_bytes < 16 * MIB


def test_a_process_that_is_gone() -> None:
    with program("input()") as process:
        measured = ProcessMeter(process.pid)
    with pytest.raises(MeterError, match="cannot be measured"):
        measured.cpu_ns()
    with pytest.raises(MeterError, match="cannot be measured"):
        measured.memory()
    assert not measured.reset_peak()


def test_the_systems_available_memory() -> None:
    assert process_meter.available_memory_bytes() > MIB
