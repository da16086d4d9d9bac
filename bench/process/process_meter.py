"""Measures a process from /proc: CPU time, current and peak resident memory.

Linux only. A process is measured together with the processes it has started.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5), since Linux 4.0


class MeterError(Exception):
    """The process cannot be measured."""


@dataclass(frozen=True, slots=True)
class ResidentMemory:
    """Resident memory in octets."""

    now_bytes: int
    peak_bytes: int  # since the last reset, or since the start


class ProcessMeter:
    """Reads one process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # A kernel without CONFIG_SCHED_INFO has no schedstat.
        has_schedstat = (_PROC / str(pid) / "schedstat").exists()
        self._read_cpu_ns = _cpu_ns_of_tasks if has_schedstat else _cpu_ns_in_ticks

    def cpu_ns(self) -> int:
        """Return the nanoseconds of CPU time used so far, in user mode and in the kernel.

        Raises:
            MeterError: the process is gone.
        """
        return sum(self._read_cpu_ns(pid) for pid in self._pids())

    def memory(self) -> ResidentMemory:
        """Return the resident memory.

        Raises:
            MeterError: the process is gone.
        """
        found = [_memory(pid) for pid in self._pids()]
        return ResidentMemory(
            sum(one.now_bytes for one in found), sum(one.peak_bytes for one in found)
        )

    def reset_peak(self) -> bool:
        """Reset the peak to the memory now resident; return whether that was allowed."""
        try:
            for pid in self._pids():
                (_PROC / str(pid) / "clear_refs").write_text(_RESET_PEAK)
        except OSError:
            return False
        return True

    def _pids(self) -> list[int]:
        pids = [self._pid]
        for pid in pids:  # grows during the loop
            with suppress(OSError):
                for task in (_PROC / str(pid) / "task").iterdir():
                    with suppress(OSError):
                        pids += map(int, (task / "children").read_text().split())
        return pids


def is_available() -> bool:
    """Whether processes can be measured on this system."""
    return sys.platform == "linux" and (_PROC / "self" / "stat").exists()


def available_memory_bytes() -> int:
    """Return the available memory of the system; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError):
        for line in (_PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _cpu_ns_of_tasks(pid: int) -> int:
    used, found = 0, False
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):  # a thread that has just ended
                used += int((task / "schedstat").read_text().split()[0])
                found = True
    if not found:
        raise MeterError(f"process {pid} cannot be measured: it is gone")
    return used


def _cpu_ns_in_ticks(pid: int) -> int:
    """Return the CPU time from /proc/PID/stat, which counts in hundredths of a second."""
    try:
        # proc_pid_stat(5): utime and stime are fields 14 and 15; field 2 may hold blanks.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError) as error:
        raise MeterError(f"process {pid} cannot be measured: {error}") from None
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> ResidentMemory:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        now_kib, peak_kib = fields["VmRSS"].split()[0], fields["VmHWM"].split()[0]
        return ResidentMemory(int(now_kib) * 1024, int(peak_kib) * 1024)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise MeterError(f"process {pid} cannot be measured: {error}") from None
