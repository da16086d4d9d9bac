"""Carries out the workloads: starts sandboxes and relays, measures the relays in turn, ends them.

A relay process serves all repeats of a single workload, or a single repeat if its memory is
measured; the sandboxes serve all workloads.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.client.connection import SubmissionFailed
from bench.cost.figures import CostResults, RelayRow, WorkloadResult
from bench.cost.measure import CheckFailed, Measurement
from bench.cost.relays import ProviderKind, RunningRelay, running_provider, running_relay
from bench.cost.workloads import RelayName
from bench.process.child_process import ChildError, remove_folder
from bench.process.process_meter import MeterError, available_memory_bytes
from bench.reconciliation.reconcile import SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.cost.workloads import CostPlan, CostWorkload
    from bench.process.interruption import Interruption
    from bench.targets.private_provider import PrivateProvider

_MEASURE_SECONDS = 180.0  # one repeat; the longest takes half a minute
_NAIVE_FACTOR = 6  # the naive relay holds about four copies of each message; the client holds more


class CostRun:
    """Carries out a plan."""

    def __init__(
        self, plan: CostPlan, interruption: Interruption, announce: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._interruption = interruption
        self._announce = announce
        self._providers: dict[ProviderKind, PrivateProvider] = {}
        self._starting = asyncio.Lock()  # sandboxes share their keys, so they start one at a time
        self._stack = AsyncExitStack()
        self._folder = Path()

    async def run(self) -> CostResults:
        """Measure every workload and return the results; a relay's error is in its row.

        Raises `StartInterrupted`: a signal came while something was starting.
        """
        results = CostResults()
        with tempfile.TemporaryDirectory(prefix="xoauth2-bench-cost-") as folder:
            self._folder = Path(folder)
            remove = partial(remove_folder, self._folder)
            self._interruption.on_abort.append(remove)
            async with self._stack:
                for workload in self._plan.workloads:
                    results.measured.append(await self._workload(workload))
            self._interruption.on_abort.remove(remove)
        return results

    async def _workload(self, workload: CostWorkload) -> WorkloadResult:
        rows = [RelayRow(relay=name) for name in workload.relays if name in self._plan.relays]
        for row in rows:
            row.skipped = _reason_to_skip(workload, row.relay)
        waiting = [row for row in rows if not row.skipped]
        repeats = self._plan.repeat or workload.repeats
        if workload.needs_fresh_relay:
            for number in range(1, repeats + 1):
                for row in waiting:
                    await self._in_turn(workload, [row], [number], repeats)
        else:
            await self._in_turn(workload, waiting, range(1, repeats + 1), repeats)
        return WorkloadResult(workload=workload, rows=rows)

    async def _in_turn(
        self, workload: CostWorkload, rows: list[RelayRow], numbers: Iterable[int], repeats: int
    ) -> None:
        async with AsyncExitStack() as stack:
            relays = await asyncio.gather(*(self._start(workload, row, stack) for row in rows))
            for number in numbers:
                for row, relay in zip(rows, relays, strict=True):
                    await self._measure(workload, row, relay, f"{number} of {repeats}")

    async def _start(
        self, workload: CostWorkload, row: RelayRow, stack: AsyncExitStack
    ) -> RunningRelay | None:
        kind = ProviderKind.of(row.relay, self._plan.rtt_seconds if workload.needs_rtt else 0.0)
        try:
            provider = await self._provider(kind)
            folder = self._folder / f"{workload.name}-{row.relay}"
            return await stack.enter_async_context(
                running_relay(row.relay, provider, folder, self._interruption)
            )
        except ChildError as error:
            row.error = str(error)
            return None

    async def _provider(self, kind: ProviderKind) -> PrivateProvider:
        async with self._starting:
            if kind not in self._providers:
                self._providers[kind] = await self._stack.enter_async_context(
                    running_provider(kind, self._folder, self._interruption)
                )
            return self._providers[kind]

    async def _measure(
        self, workload: CostWorkload, row: RelayRow, relay: RunningRelay | None, turn: str
    ) -> None:
        if relay is None or row.error:
            return
        self._announce(f"{workload.name}: {row.relay}, {turn}")
        measurement = Measurement(workload, relay, pipelined=self._plan.is_pipelined)
        try:
            async with asyncio.timeout(_MEASURE_SECONDS):
                figures = await measurement.figures()
        except TimeoutError:
            row.error = f"was not done within {_MEASURE_SECONDS:.0f} s"
        except (SubmissionFailed, CheckFailed, SandboxUnavailable, MeterError) as error:
            row.error = str(error)
        else:
            row.repeats.append(figures)
            row.lag.update(measurement.lag)


def _reason_to_skip(workload: CostWorkload, name: RelayName) -> str:
    needed = workload.clients * workload.size_bytes * _NAIVE_FACTOR
    available = available_memory_bytes()
    if name is RelayName.NAIVE and available and needed > available:
        return f"it would need {needed >> 20} MiB of memory; {available >> 20} MiB are available"
    return ""
