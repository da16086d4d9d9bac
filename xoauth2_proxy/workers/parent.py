"""Runs the parent process: owns the port, sandbox and admin server, and supervises workers.

Start: port, sandbox, admin, workers; stop: port, workers (drained), admin, sandbox. The port stays
open while workers come and go, so clients wait for the next worker instead of being refused.
"""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from xoauth2_proxy import log
from xoauth2_proxy.admin.health import Health, WorkersHealth
from xoauth2_proxy.metrics import MergedMetrics, Metrics
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.service import runner
from xoauth2_proxy.service.addresses import listening
from xoauth2_proxy.service.admin_backend import AdminBackend, AdminDependencies
from xoauth2_proxy.service.app import (
    ADMIN_OPTIONS,
    LISTENER_OPTIONS,
    Addresses,
    account_states,
    in_force,
    own_hostname,
    sandbox_addresses,
    sandbox_upstream,
    start_sandbox,
    warn_of_changes,
    with_sandbox_upstream,
)
from xoauth2_proxy.submission.acceptor import listening_sockets
from xoauth2_proxy.upstream.connector import Connector
from xoauth2_proxy.workers import run_directory
from xoauth2_proxy.workers.channel import Setup
from xoauth2_proxy.workers.client_counts import ClientCounts
from xoauth2_proxy.workers.worker import SupervisionTiming, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from xoauth2_proxy.config import Config
    from xoauth2_proxy.service.runner import Run
    from xoauth2_proxy.workers.channel import Logging

# Beyond the time to drain: for running token requests (`oauth.token_source`), last replies, exit.
_GRACE_SECONDS = 20.0
_APPLY_SECONDS = 5.0  # how long to wait for a worker to apply a configuration

_log = log.logger("workers")


def run(what: Run, workers: int, logging: Logging) -> int:
    """Serve with this many worker processes; otherwise as `runner.run`."""
    parent = Parent(what, workers, logging)
    return runner.run(what, lambda _: parent, parent.kill)


class Parent:
    """A relay that consists of several processes."""

    def __init__(
        self, what: Run, workers: int, logging: Logging, timing: SupervisionTiming | None = None
    ) -> None:
        self.health = Health(account_states(what.config))
        self.workers: list[Worker] = []
        self._what = what
        self._number = workers
        self._logging = logging
        self._timing = timing or SupervisionTiming()
        self._sandbox = runner.embedded_sandbox(what)
        self._components = runner.components(what)
        self._reloading = asyncio.Lock()
        self._sockets: list[socket.socket] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._directory: run_directory.RunDirectory | None = None
        self._client_counts: ClientCounts | None = None
        self._metrics: MergedMetrics | None = None
        self._own_metrics = Metrics()
        self._tokens = TokenSource(
            self._components.refreshers(what.config), self._own_metrics, self._components.store
        )
        self._connector = Connector(self._tokens)
        self._administration: AdminBackend | None = None

    async def start(self) -> Addresses:
        """Start everything; return once each worker started or failed, and at least one is ready.

        Whatever was started is stopped again before an error is raised.

        Raises:
            OSError: an address cannot be listened on.
            CannotStart: no worker became ready.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> Addresses:
        config = self._what.config
        self._directory = run_directory.RunDirectory(self._what.state_dir)
        directory = self._directory.path
        self._client_counts = ClientCounts.create(
            run_directory.client_counts(directory), self._number
        )
        self._metrics = MergedMetrics(
            run_directory.figures(directory), self._processes, self._own_metrics
        )
        at, of = config.listener, config.admin
        with listening("mail clients", at.host, at.port, LISTENER_OPTIONS):
            self._sockets = await asyncio.to_thread(listening_sockets, at.host, at.port)
        if self._sandbox is not None:
            await start_sandbox(self._sandbox)
            self.health.sandbox = sandbox_addresses(self._sandbox)
        self._connector.hostname = await asyncio.to_thread(own_hostname)
        self._administration = self._with_administration(self._metrics)
        await self._use(config)
        with listening("the admin server", of.host, of.port, ADMIN_OPTIONS):
            admin = await self._administration.start()
        await self._start_workers()
        return Addresses(self._sockets[0].getsockname()[:2], admin)

    async def reload(self) -> None:
        """Read the configuration again; return once the workers use it too.

        A worker that is stuck is not waited for. Raises as `App.reload`.
        """
        async with self._reloading:
            old, config = self._what.config, await asyncio.to_thread(self._components.load)
            mixed = in_force(old, config)
            # One process reads for all, since the file may change in between.
            pickled = await asyncio.to_thread(pickle.dumps, mixed)
            await self._use(mixed)
            warn_of_changes(old, config)
            self._what = replace(self._what, config=mixed)
            await self._hand_on(pickled)

    async def _hand_on(self, config: bytes) -> None:
        in_time = await asyncio.gather(*(self._applies(one, config) for one in self.workers))
        if late := in_time.count(False):
            _log.warning("%d workers do not use the new configuration yet", late)

    async def _applies(self, worker: Worker, config: bytes) -> bool:
        """Return whether the worker has applied the configuration in time."""
        # A worker that is starting applies it as soon as it is ready.
        patience = _APPLY_SECONDS if worker.is_ready else self._timing.start_seconds
        taken = worker.apply(self._setup(worker.number), config)
        done, _ = await asyncio.wait([taken], timeout=patience)
        return bool(done)

    def forget(self, mailbox: str) -> None:
        """Drop the tokens and connections of a mailbox, given by its account's key, everywhere."""
        self._tokens.forget(mailbox)
        for worker in self.workers:
            worker.say(f"forget {quote(mailbox, safe='@')}", must_arrive=True)

    async def _use(self, config: Config) -> None:
        refreshers = await asyncio.to_thread(self._components.refreshers, config)
        self.health.accounts = account_states(config)
        upstream = sandbox_upstream(self._sandbox) if self._sandbox is not None else None
        accounts = with_sandbox_upstream(config, upstream)
        self._tokens.use(refreshers, accounts)
        self._connector.forget_authorities()
        if self._administration is not None:
            self._administration.reconfigure(config, accounts)

    def _with_administration(self, shown: MergedMetrics) -> AdminBackend:
        dependencies = AdminDependencies(
            processes=self,
            components=self._components,
            tokens=self._tokens,
            connector=self._connector,
            health=self.health,
            metrics=self._own_metrics,
            shown_metrics=shown,
        )
        return AdminBackend(dependencies, self._what.config)

    def _setup(self, number: int) -> Setup:
        assert self._directory is not None  # noqa: S101 - made before the first worker
        return Setup(
            run=self._what,
            logging=self._logging,
            number=number,
            sockets=tuple(one.fileno() for one in self._sockets),
            directory=self._directory.path,
            sandbox=sandbox_upstream(self._sandbox) if self._sandbox is not None else None,
        )

    async def _start_workers(self) -> None:
        self.workers = [
            Worker(self._setup(number), self._timing, self._pass_on, self._has_changed)
            for number in range(self._number)
        ]
        self._keeping = [
            asyncio.create_task(worker.keep_running(), name=f"worker {worker.number}")
            for worker in self.workers
        ]
        for task in self._keeping:
            task.add_done_callback(_supervision_ended)
        reasons = await asyncio.gather(*(worker.first for worker in self.workers))
        if all(reasons):
            raise runner.CannotStart(f"no worker could start: {reasons[0]}")

    async def stop(self) -> None:
        """Let the workers drain for the configured time, then stop everything."""
        self.health.is_draining = True
        for one in self._sockets:
            one.close()
        for worker in self.workers:
            worker.drain()
        if self._keeping:
            patience = self._what.config.relay.drain_seconds + _GRACE_SECONDS
            _, running = await asyncio.wait(self._keeping, timeout=patience)
            if running:
                _log.error("%d workers did not end in time; killed", len(running))
                self.kill_workers()
            # A supervision task that failed must not keep the rest from being stopped.
            await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._administration is not None:
            await self._administration.stop()
        await self._tokens.close()
        self._components.close()
        if self._sandbox is not None:
            await self._sandbox.stop()
        self._clear()

    def kill(self) -> None:
        """End the workers at once."""
        self.kill_workers()
        self._clear()

    def kill_workers(self) -> None:
        """Kill the workers' processes; unless the relay is stopping, they are restarted."""
        for worker in self.workers:
            worker.kill()

    def _clear(self) -> None:
        if self._directory is not None:
            self._directory.remove()

    def _processes(self) -> Iterator[int]:
        return (worker.pid for worker in self.workers if worker.pid is not None)

    def _pass_on(self, sender: Worker, line: str) -> None:
        for worker in self.workers:
            if worker is not sender:
                worker.say(line)

    def _has_changed(self, worker: Worker) -> None:
        if not worker.is_ready:
            assert self._client_counts is not None  # noqa: S101 - made before the first worker
            assert self._metrics is not None  # noqa: S101 - the same
            self._client_counts.for_worker(worker.number).count(0)
            self._metrics.drop_gauges(worker.number)
        running = sum(one.is_ready for one in self.workers)
        restarts = sum(one.restarts for one in self.workers)
        self.health.workers = WorkersHealth(running, restarts)
        self.health.is_ready = running > 0


def _supervision_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("%s is no longer restarted", task.get_name(), exc_info=error)
