"""Carries out a run: finds the target, sends the plan, reconciles and returns the result."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.client.submission import ClientBehaviour
from bench.load.generator import LoadGenerator
from bench.load.generator_usage import GeneratorUsage, measuring_usage
from bench.load.idle_clients import IdleClients
from bench.load.messages import Messages
from bench.measurement.recorder import Recorder
from bench.measurement.result import PROCESS_LOST, Environment, Run
from bench.process.child_process import StartInterrupted
from bench.process.environment import load_averages
from bench.reconciliation.provider_observer import ProviderObserver
from bench.runs.load_processes import LoadProcesses, LoadProcessesError
from bench.runs.logins import logins_of
from bench.runs.prometheus import (
    DRAINING,
    HEALTHY,
    PrometheusPortError,
    RunCollector,
    serving_metrics,
)
from bench.targets.provisioning import provisioned
from bench.targets.target import open_target
from bench.targets.target_request import DEFAULT_ADMIN_URL, TargetError
from xoauth2_proxy import __version__
from xoauth2_proxy.health_document import health_document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bench.process.interruption import Interruption
    from bench.reports.progress import Progress
    from bench.runs.run_request import RunRequest
    from bench.targets.target import Target


async def run_once(request: RunRequest, interruption: Interruption, progress: Progress) -> Run:
    """Carry out a run and return it; a signal makes it partial.

    Raises:
        TargetError: there is nothing to measure, or it may not be measured.
        StartInterrupted: a signal came before there was a target.
    """
    async with (
        open_target(request.target, interruption, progress.announce) as target,
        with_mailboxes(request, target, interruption, progress) as wanted,
    ):
        plan = wanted.plan
        progress.announce(
            f"Sending {plan.pace.about} over {plan.concurrent} connections to {target.endpoint}."
        )
        return await measure(wanted, target, interruption, progress)


@asynccontextmanager
async def with_mailboxes(
    request: RunRequest, target: Target, interruption: Interruption, progress: Progress
) -> AsyncIterator[RunRequest]:
    """Yield the request with its final mailboxes; create the run's own ones first."""
    accounts, sign_in = request.accounts, request.sign_in
    if accounts is None or (target.is_private and sign_in is None):
        yield request
        return
    announce = progress.announce
    async with AsyncExitStack() as stack:
        users = None
        if sign_in is not None:
            from bench.sign_in.users import signing_in  # with aiohttp

            # A private proxy's sandbox ends with it, and its grants with that.
            outlives = not target.is_private or sign_in.provider is not None
            is_kept = accounts.is_kept and outlives
            users = await stack.enter_async_context(
                signing_in(sign_in, target, interruption, announce, is_kept=is_kept)
            )
        mailboxes = await stack.enter_async_context(
            provisioned(
                accounts,
                target.own_admin_url or request.target.admin_url or DEFAULT_ADMIN_URL,
                interruption,
                announce,
                allow_remote=request.target.allow_remote,
                prepare=users.prepare if users else None,
            )
        )
        plan = replace(request.plan, mailboxes=tuple(one.address for one in mailboxes))
        yield replace(request, plan=plan, signed_in=users.figures if users else None)


async def run_sides(
    request: RunRequest,
    count: int,
    interruption: Interruption,
    progress: Progress,
    pause: Callable[[], Awaitable[bool]],
) -> tuple[list[Run], list[Run]]:
    """Carry out `count` runs, a pause and another `count` runs, and return both sides.

    The rest is skipped after a signal, or if `pause` returns False.

    Each run finds its target again, so those after the pause may use another version of the proxy.

    Raises:
        TargetError: there is nothing to measure, or it may not be measured; nothing was.
        StartInterrupted: a signal came before there was a target for the first.
    """
    before = await _side("before", request, count, interruption, progress)
    if interruption.requested.is_set() or not await pause():
        return before, []
    try:
        return before, await _side("after", request, count, interruption, progress)
    except (TargetError, StartInterrupted) as error:
        # An error after the pause must not lose the runs measured before it.
        progress.announce(str(error) or "Stopped before the second side's first message.")
        return before, []


async def _side(
    side: str, request: RunRequest, count: int, interruption: Interruption, progress: Progress
) -> list[Run]:
    runs: list[Run] = []
    for number in range(1, count + 1):
        if interruption.requested.is_set():
            break
        if count > 1:
            progress.announce(f"Run {number} of {count} {side} the pause:")
        try:
            runs.append(await run_once(request, interruption, progress))
        except (TargetError, StartInterrupted) as error:
            if not runs:
                raise
            progress.announce(f"No further run {side} the pause: {error}")
            break
    return runs


async def measure(
    request: RunRequest, target: Target, interruption: Interruption, progress: Progress
) -> Run:
    """Carry out a run at an open target and return it; a signal makes it partial.

    Raises:
        TargetError: the key that signs mock tokens cannot be used, a process of the load did not
            start, or the port for Prometheus cannot be opened.
    """
    plan = request.plan
    messages = Messages(plan.to_email, plan.workload, request.files)
    recorder = Recorder(plan.pace.planned, plan.pace.warmup_seconds)
    logins = logins_of(request, target.state_dir)
    load: LoadGenerator | LoadProcesses
    if plan.processes > 1:
        load = LoadProcesses(request, target, messages, recorder)
        load.on_loss = progress.announce
    else:
        load = LoadGenerator(plan, target.endpoint, logins, messages, recorder)
    load.on_sample = progress.on_sample
    environment, usage = _environment(), GeneratorUsage()
    observer = await ProviderObserver.begin(target, plan.mailboxes)
    behaviour = ClientBehaviour(reply_seconds=plan.reply_seconds)
    idle_clients = IdleClients(target.endpoint, logins, plan.workload.idle_clients, behaviour)
    async with idle_clients:
        await idle_clients.open(interruption.requested)
        started_at = datetime.now(UTC)
        async with measuring_usage(usage, plan.pace.warmup_seconds):
            await _send_all(request, load, recorder, interruption, progress)
        idle_figures = await idle_clients.close()
    target_log = target.log_tail() if recorder.failed else ()
    return Run(
        target_log=target_log,
        started_at=started_at,
        target=str(target.endpoint),
        tls=target.endpoint.tls.value,
        mechanism=request.mechanism.value,
        plan=plan,
        result=recorder.snapshot(load.wall_seconds, _ended_by(load, interruption)),
        reconciliation=await observer.reconciled(messages, recorder),
        provider=await observer.provider(),
        generator=(load if isinstance(load, LoadProcesses) else usage).figures(
            recorder.succeeded + recorder.failed, recorder.own_late_starts
        ),
        provider_settings=observer.settings,
        idle_clients=idle_figures if plan.workload.idle_clients else None,
        sign_in=request.signed_in,
        environment=environment,
    )


async def _send_all(
    request: RunRequest,
    load: LoadGenerator | LoadProcesses,
    recorder: Recorder,
    interruption: Interruption,
    progress: Progress,
) -> None:
    pace = request.plan.pace
    collector = RunCollector(recorder, pace, lambda: load.measured_seconds)
    started_at = time.monotonic()

    def health() -> dict[str, object]:
        status = DRAINING if interruption.requested.is_set() else HEALTHY
        accounts = {"enabled": len(request.plan.mailboxes), "disabled": 0}
        return health_document("xoauth2-bench", status, started_at) | {"accounts": accounts}

    def stop() -> None:
        load.stop()
        progress.announce(
            "Stopping after the messages in flight. Press Ctrl+C again to stop at once."
        )

    interruption.on_request.add(stop)
    try:
        if interruption.requested.is_set():
            stop()
        async with (
            serving_metrics(request.prometheus_port, collector, health) as url,
            progress.following(pace, recorder, lambda: load.measured_seconds),
        ):
            if url:
                progress.announce(f"Prometheus can read the run at {url} while it lasts.")
            await load.run()
    except (LoadProcessesError, PrometheusPortError) as error:
        raise TargetError(str(error)) from error
    finally:
        interruption.on_request.discard(stop)


def _ended_by(load: LoadGenerator | LoadProcesses, interruption: Interruption) -> str:
    was_cut_short = isinstance(load, LoadProcesses) and load.was_cut_short
    return interruption.signal_name or (PROCESS_LOST if was_cut_short else "")


def _environment() -> Environment:
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count() or 1,
        bench_version=__version__,
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
        load_average=next(iter(load_averages()), None),
    )
