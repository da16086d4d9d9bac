"""One run from start to end: find the target, send the plan, reconcile, and say what came of it."""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.load import Load
from bench.messages import Messages
from bench.reconcile import Sandbox, SandboxUnavailable, reconcile
from bench.recorder import Recorder
from bench.result import Environment, NotReconciled, Reconciliation, Run
from bench.submission import Login
from bench.target import TargetError, open_target
from xoauth2_proxy import __version__
from xoauth2_proxy.mock_tokens import MOCK_MAILBOXES, MockTokens, load_signing_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from bench.interruption import Interruption
    from bench.reports.progress import Progress
    from bench.scenarios import Plan
    from bench.submission import Mechanism
    from bench.target import Target, TargetRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asked for."""

    plan: Plan
    target: TargetRequest
    mechanism: Mechanism
    secret: str | None = field(repr=False)  # password or token; None: mock tokens


async def run_once(request: RunRequest, interruption: Interruption, progress: Progress) -> Run:
    """Carry out one run; a signal makes it partial.

    Raises:
        TargetError: there is nothing to measure, or it may not be measured.
        StartInterrupted: a signal came before there was a target.
    """
    async with open_target(request.target, interruption, progress.announce) as target:
        plan = request.plan
        progress.announce(
            f"Sending {plan.num_emails} messages over {plan.concurrent} connections "
            f"to {target.endpoint}."
        )
        return await _measure(request, target, interruption, progress)


async def run_twice(
    request: RunRequest,
    interruption: Interruption,
    progress: Progress,
    pause: Callable[[], Awaitable[None]],
) -> list[Run]:
    """Carry out two runs with a pause between them; one only when a signal came in between.

    Each finds its target anew, so the second may meet another version of the proxy.

    Raises:
        TargetError: there is nothing to measure, or it may not be measured.
        StartInterrupted: a signal came before there was a target.
    """
    runs = [await run_once(request, interruption, progress)]
    if not interruption.requested.is_set():
        await pause()
    if not interruption.requested.is_set():
        runs.append(await run_once(request, interruption, progress))
    return runs


async def _measure(
    request: RunRequest, target: Target, interruption: Interruption, progress: Progress
) -> Run:
    plan = request.plan
    messages = Messages(plan.to_email, plan.size_bytes)
    recorder = Recorder(plan.num_emails)
    load = Load(plan, target.endpoint, _logins(request, target.state_dir), messages, recorder)
    load.on_sample = progress.on_sample
    sandbox, position = await _sandbox_position(target)
    started_at = datetime.now(UTC)
    await _send_all(load, recorder, interruption, progress)
    if isinstance(sandbox, Sandbox):
        found = await reconcile(sandbox, position, messages, recorder, plan.mailboxes)
        reconciled = _believable(found, plan)
    else:
        reconciled = sandbox
    return Run(
        started_at=started_at,
        target=str(target.endpoint),
        tls=target.endpoint.tls.value,
        mechanism=request.mechanism.value,
        plan=plan,
        result=recorder.snapshot(load.wall_seconds, interruption.signal_name),
        reconciliation=reconciled,
        environment=_environment(),
    )


async def _send_all(
    load: Load, recorder: Recorder, interruption: Interruption, progress: Progress
) -> None:
    def stop() -> None:
        load.stop()
        progress.announce("Stopping after the sends in flight. Ctrl+C again ends at once.")

    interruption.on_request.add(stop)
    try:
        if interruption.requested.is_set():
            stop()
        async with progress.following(recorder):
            await load.run()
    finally:
        interruption.on_request.discard(stop)


def _logins(request: RunRequest, state_dir: Path) -> list[Login]:
    mailboxes, mechanism = request.plan.mailboxes, request.mechanism
    secret = request.secret
    if secret is not None:
        return [Login(mailbox, mechanism, lambda: secret) for mailbox in mailboxes]
    try:
        tokens = MockTokens(load_signing_key(state_dir))
    except (OSError, ValueError) as error:
        raise TargetError(f"The mock tokens' signing key cannot be used: {error}") from error
    return [_mock_login(mailbox, mechanism, tokens) for mailbox in mailboxes]


def _mock_login(mailbox: str, mechanism: Mechanism, tokens: MockTokens) -> Login:
    return Login(mailbox, mechanism, lambda: tokens.mint(mailbox))


async def _sandbox_position(target: Target) -> tuple[Sandbox | NotReconciled, int]:
    if not target.sandbox_url:
        return NotReconciled(target.no_sandbox_reason), 0
    sandbox = Sandbox(target.sandbox_url)
    try:
        return sandbox, await sandbox.position()
    except SandboxUnavailable as error:
        return NotReconciled(str(error)), 0


def _believable(
    found: Reconciliation | NotReconciled, plan: Plan
) -> Reconciliation | NotReconciled:
    """Return what was found, unless the mailboxes' mail may go to another provider altogether."""
    is_mock = all(mailbox.lower() in MOCK_MAILBOXES for mailbox in plan.mailboxes)
    if is_mock or isinstance(found, NotReconciled) or found.arrived or not found.acknowledged:
        return found
    return NotReconciled("no message reached this sandbox: the mailbox's provider may be another")


def _environment() -> Environment:
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count() or 1,
        bench_version=__version__,
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
    )
