"""The sitting: starts what a workload needs, lets the relays take turns, and ends everything.

A relay's process serves all repeats of one workload and no other, or a single repeat where its
memory is the question; the sandboxes serve the whole sitting.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cost import lag
from bench.cost.client import LoadFailed
from bench.cost.figures import Measured, Outcome, Row
from bench.cost.measure import CheckFailed, measure
from bench.cost.meter import MeterError, available_memory_bytes
from bench.cost.plan import RelayName
from bench.cost.provider import Flavour, Provider, ProviderUnavailable, provider
from bench.cost.relays import Relay, flavour_for, relay
from bench.process.child_process import ChildError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.cost.plan import Plan, Workload
    from bench.process.interruption import Interruption

_MEASURE_SECONDS = 180.0  # one repeat; the longest takes half a minute
_NAIVE_FACTOR = 6  # the naive relay holds each message some four times; and the client is there


class Sitting:
    """Carries out a plan."""

    def __init__(
        self, plan: Plan, interruption: Interruption, announce: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._interruption = interruption
        self._announce = announce
        self._outcome = Outcome()
        self._providers: dict[Flavour, Provider] = {}
        self._starting = asyncio.Lock()  # sandboxes share their keys: one after the other
        self._stack = AsyncExitStack()
        self._folder = Path()

    async def run(self) -> Outcome:
        """Measure every workload; what goes wrong with one relay is in its row.

        Raises:
            ChildError: a sandbox did not start.
        """
        with tempfile.TemporaryDirectory(prefix="xoauth2-bench-cost-") as folder:
            self._folder = Path(folder)
            self._interruption.on_abort.add(self._remove_folder)
            async with self._stack:
                for workload in self._plan.workloads:
                    self._outcome.measured.append(await self._workload(workload))
            self._interruption.on_abort.discard(self._remove_folder)
        return self._outcome

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _workload(self, workload: Workload) -> Measured:
        rows = [Row(relay=name) for name in workload.relays if name in self._plan.relays]
        for row in rows:
            row.skipped = _reason_to_skip(workload, row.relay)
        waiting = [row for row in rows if not row.skipped]
        repeats = self._plan.repeat or workload.repeats
        if workload.needs_fresh_relay:
            await self._fresh(workload, waiting, repeats)
        else:
            await self._kept(workload, waiting, repeats)
        return Measured(workload=workload, rows=rows)

    async def _fresh(self, workload: Workload, rows: list[Row], repeats: int) -> None:
        for number in range(1, repeats + 1):
            for row in rows:
                async with AsyncExitStack() as stack:
                    running = await self._start(workload, row, stack)
                    await self._measure(workload, row, running, f"{number} of {repeats}")

    async def _kept(self, workload: Workload, rows: list[Row], repeats: int) -> None:
        async with AsyncExitStack() as stack:
            running = await asyncio.gather(*(self._start(workload, row, stack) for row in rows))
            for number in range(1, repeats + 1):
                for row, one in zip(rows, running, strict=True):
                    await self._measure(workload, row, one, f"{number} of {repeats}")

    async def _start(self, workload: Workload, row: Row, stack: AsyncExitStack) -> Relay | None:
        rtt_seconds = self._plan.rtt_seconds if workload.needs_rtt else 0.0
        try:
            upstream = await self._provider(flavour_for(row.relay, rtt_seconds))
            folder = self._folder / f"{workload.name}-{row.relay}"
            return await stack.enter_async_context(
                relay(row.relay, upstream, folder, self._interruption)
            )
        except ChildError as error:
            row.error = str(error)
            return None

    async def _provider(self, flavour: Flavour) -> Provider:
        async with self._starting:
            if flavour not in self._providers:
                self._providers[flavour] = await self._stack.enter_async_context(
                    provider(flavour, self._folder, self._interruption)
                )
            return self._providers[flavour]

    async def _measure(self, workload: Workload, row: Row, one: Relay | None, turn: str) -> None:
        if one is None or row.error:
            return
        self._announce(f"{workload.name}: {row.relay}, {turn}")
        try:
            async with asyncio.timeout(_MEASURE_SECONDS):
                figures, late = await measure(workload, one, is_pipelined=self._plan.is_pipelined)
        except TimeoutError:
            row.error = f"was not done within {_MEASURE_SECONDS:.0f} s"
        except (LoadFailed, CheckFailed, ProviderUnavailable, MeterError) as error:
            row.error = str(error)
        else:
            row.repeats.append(figures)
            lag.add(row.lag, late)


def _reason_to_skip(workload: Workload, name: RelayName) -> str:
    needed = workload.clients * workload.size_bytes * _NAIVE_FACTOR
    available = available_memory_bytes()
    if name is RelayName.NAIVE and available and needed > available:
        return f"it would need {needed >> 20} MiB of memory; {available >> 20} MiB are available"
    return ""
