"""Runs the parent process: owns the ports, sandbox and admin server, and supervises workers.

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
from xoauth2_proxy.clients.forwarding import receive
from xoauth2_proxy.clients.record import ClientRecord
from xoauth2_proxy.metrics import MergedMetrics, Metrics
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.service import runner
from xoauth2_proxy.service.addresses import explain_listen_error
from xoauth2_proxy.service.admin_backend import AdminBackend, AdminDependencies
from xoauth2_proxy.service.app import (
    ADMIN_OPTIONS,
    account_states,
    in_force,
    own_hostname,
    start_sandbox,
    warn_of_changes,
    with_credentials,
    with_sandbox,
)
from xoauth2_proxy.service.certificates import Certificates
from xoauth2_proxy.service.listening import Addresses, ListeningSockets, listener_states
from xoauth2_proxy.service.without_password import log_without_password
from xoauth2_proxy.submission.address_table import AddressTable, new_key, table_bytes
from xoauth2_proxy.upstream.connector import Connector
from xoauth2_proxy.workers import run_directory
from xoauth2_proxy.workers.channel import CONFIG, CREDENTIALS, Setup
from xoauth2_proxy.workers.worker import SupervisionTiming, Worker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.service.app import EmbeddedSandbox
    from xoauth2_proxy.service.runner import Run
    from xoauth2_proxy.workers.channel import Logging

# Beyond the time to drain: for running token requests (`oauth.token_source`), last replies, exit.
_GRACE_SECONDS = 20.0
_APPLY_SECONDS = 5.0  # how long to wait for a worker to apply a configuration

_log = log.logger("workers")


def run(settings: Run, workers: int, logging: Logging) -> int:
    """Serve with this many worker processes; otherwise as `runner.run`."""
    parent = Parent(settings, workers, logging)
    return runner.run(settings, lambda _: parent, parent.kill)


class Parent:
    """A relay that consists of several processes."""

    def __init__(
        self, settings: Run, workers: int, logging: Logging, timing: SupervisionTiming | None = None
    ) -> None:
        self.health = Health(account_states(settings.config))
        self.workers: list[Worker] = []
        self._settings = settings
        self._worker_count = workers
        self._logging = logging
        self._timing = timing or SupervisionTiming()
        self._sandbox = runner.embedded_sandbox(settings)
        self._embedded: EmbeddedSandbox | None = None
        self._components = settings.components()
        self._reloading = asyncio.Lock()
        self._sockets = ListeningSockets(())
        self._supervision: list[asyncio.Task[None]] = []  # one task for each worker
        self._directory: run_directory.RunDirectory | None = None
        self._client_counts: run_directory.ClientCounts | None = None
        self._client_addresses: list[memoryview] = []  # a table for each listener
        self._merged_metrics: MergedMetrics | None = None  # of all processes
        self._own_metrics = Metrics()
        # The workers read them for themselves; the parent tells.
        self._certificates = Certificates(lambda place, context: None, self._own_metrics)
        self._certificate_watch: asyncio.Task[None] | None = None
        self.clients = ClientRecord()
        self._tokens = TokenSource(
            self._components.refreshers(settings.config), self._own_metrics, self._components.store
        )
        self._connector = Connector(self._tokens)
        self._admin: AdminBackend | None = None

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
        config = self._settings.config
        self._directory = run_directory.RunDirectory(self._settings.state_dir)
        directory = self._directory.path
        self._client_counts = run_directory.ClientCounts.create(
            run_directory.client_counts(directory), self._worker_count, len(config.listeners)
        )
        self._client_addresses = [
            _create_table(one, self._worker_count)
            for one in run_directory.client_addresses(directory, len(config.listeners))
        ]
        self._merged_metrics = MergedMetrics(
            run_directory.figures(directory), self._worker_pids, self._own_metrics
        )
        await asyncio.to_thread(self._certificates.read, config.listeners)
        self._sockets = await asyncio.to_thread(ListeningSockets.open, config)
        self._embedded = await start_sandbox(self._sandbox, self.health)
        self._connector.hostname = await asyncio.to_thread(own_hostname)
        dependencies = AdminDependencies(
            reload=self.reload,
            forget=self.forget,
            use_credentials=self.use_credentials,
            components=self._components,
            tokens=self._tokens,
            connector=self._connector,
            health=self.health,
            metrics=self._own_metrics,
            shown_metrics=self._merged_metrics,
            clients=self.clients,
        )
        self._admin = AdminBackend(dependencies, config)
        await self._use(config)
        with explain_listen_error(
            "the admin server", config.admin.host, config.admin.port, ADMIN_OPTIONS
        ):
            admin = await self._admin.start()
        await self._start_workers()
        addresses = Addresses(self._sockets.addresses(config), admin)
        self.health.listeners = listener_states(addresses.listeners, self._certificates)
        self._certificate_watch = asyncio.create_task(
            self._certificates.watch(), name="certificate watch"
        )
        self._certificate_watch.add_done_callback(_watch_ended)
        return addresses

    async def _start_workers(self) -> None:
        self.workers = [
            Worker(
                self._setup(number),
                self._timing,
                self._send_to_others,
                self._worker_changed,
                self._client_seen,
            )
            for number in range(self._worker_count)
        ]
        self._supervision = [
            asyncio.create_task(worker.keep_running(), name=f"worker {worker.number}")
            for worker in self.workers
        ]
        for task in self._supervision:
            task.add_done_callback(_supervision_ended)
        reasons = await asyncio.gather(*(worker.first_start for worker in self.workers))
        if all(reasons):
            raise runner.CannotStart(f"no worker could start: {reasons[0]}")

    def _setup(self, number: int) -> Setup:
        assert self._directory is not None  # noqa: S101 - made before the first worker
        return Setup(
            run=self._settings,
            logging=self._logging,
            number=number,
            workers=self._worker_count,
            sockets=tuple(
                tuple(one.fileno() for one in sockets) for sockets in self._sockets.by_listener
            ),
            directory=self._directory.path,
            sandbox=self._embedded,
        )

    async def reload(self) -> None:
        """Read the configuration again; return once the workers use it too.

        A worker that is stuck is not waited for. Raises as `App.reload`.
        """
        async with self._reloading:
            old, new = self._settings.config, await asyncio.to_thread(self._components.load)
            config = in_force(old, new)
            # One process reads for all, since the file may change in between.
            pickled = await asyncio.to_thread(pickle.dumps, config)
            await self._use(config)
            await self._certificates.look()
            warn_of_changes(old, new)
            self._settings = replace(self._settings, config=config)
            await self._send_to_all(CONFIG, pickled)

    async def _reconfigure(self, worker: Worker, kind: str, pickled: bytes) -> bool:
        """Send the worker an object; return whether it has applied it in time."""
        # A worker that is starting applies it as soon as it is ready.
        timeout_seconds = _APPLY_SECONDS if worker.is_ready else self._timing.start_seconds
        applied = worker.apply(self._setup(worker.number), kind, pickled)
        done, _ = await asyncio.wait([applied], timeout=timeout_seconds)
        return bool(done)

    async def _use(self, config: Config) -> None:
        """Use a configuration in this process."""
        refreshers = await asyncio.to_thread(self._components.refreshers, config)
        self.health.accounts = account_states(config)
        accounts = with_sandbox(config, self._embedded)
        self._tokens.use(refreshers, accounts)
        self._connector.forget_authorities()
        if self._admin is not None:
            self._admin.reconfigure(config, accounts)

    async def use_credentials(
        self, account: str, credentials: Sequence[Credential], made: Collection[str]
    ) -> None:
        """Replace the credentials of one account, in all processes; otherwise as `App` does."""
        async with self._reloading:
            old = self._settings.config
            config = with_credentials(old, account, credentials, made)
            log_without_password(config.accounts, old.accounts)
            self._settings = replace(self._settings, config=config)
            if self._admin is not None:
                self._admin.reconfigure(config, with_sandbox(config, self._embedded))
            pickled = await asyncio.to_thread(pickle.dumps, (account, tuple(credentials), made))
            await self._send_to_all(CREDENTIALS, pickled)

    async def _send_to_all(self, kind: str, pickled: bytes) -> None:
        """Send an object to the workers, and wait for those that are not stuck to use it."""
        in_time = await asyncio.gather(
            *(self._reconfigure(worker, kind, pickled) for worker in self.workers)
        )
        if late := in_time.count(False):
            _log.warning("%d workers do not use the new configuration yet", late)

    def forget(self, mailbox: str) -> None:
        """Drop the tokens and connections of a mailbox, given by its account's key, everywhere."""
        self._tokens.forget(mailbox)
        for worker in self.workers:
            worker.say(f"forget {quote(mailbox, safe='@')}", must_arrive=True)

    async def stop(self) -> None:
        """Let the workers drain for the configured time, then stop everything."""
        self.health.is_draining = True
        self._sockets.close()
        for worker in self.workers:
            worker.drain()
        if self._supervision:
            timeout_seconds = self._settings.config.relay.drain_seconds + _GRACE_SECONDS
            _, running = await asyncio.wait(self._supervision, timeout=timeout_seconds)
            if running:
                _log.error("%d workers did not end in time; killed", len(running))
                self.kill_workers()
            # A supervision task that failed must not keep the rest from being stopped.
            await asyncio.gather(*self._supervision, return_exceptions=True)
        if self._certificate_watch is not None:
            self._certificate_watch.cancel()
        if self._admin is not None:
            await self._admin.stop()
        await self._tokens.close()
        self._components.close()
        if self._sandbox is not None:
            await self._sandbox.stop()
        self._remove_directory()

    def kill(self) -> None:
        """End the workers at once."""
        self.kill_workers()
        self._remove_directory()

    def kill_workers(self) -> None:
        """Kill the workers' processes; unless the relay is stopping, they are restarted."""
        for worker in self.workers:
            worker.kill()

    def _remove_directory(self) -> None:
        if self._directory is not None:
            self._directory.remove()

    def _worker_pids(self) -> Iterator[int]:
        return (worker.pid for worker in self.workers if worker.pid is not None)

    def _send_to_others(self, sender: Worker, line: str) -> None:
        for worker in self.workers:
            if worker is not sender:
                worker.say(line)

    def _client_seen(self, text: str) -> None:
        receive(self.clients, text)

    def _worker_changed(self, worker: Worker) -> None:
        """Update health and metrics: the worker became ready, or its process has ended."""
        if not worker.is_ready:
            assert self._client_counts is not None  # noqa: S101 - made before the first worker
            assert self._merged_metrics is not None  # noqa: S101 - the same
            for counts in self._client_counts.for_worker(worker.number):
                counts.count(0)
            for memory in self._client_addresses:
                AddressTable(memory, worker.number).forget_counts()
            self._merged_metrics.drop_gauges(worker.number)
        running = sum(worker.is_ready for worker in self.workers)
        restarts = sum(worker.restarts for worker in self.workers)
        self.health.workers = WorkersHealth(running, restarts)
        self.health.is_ready = running > 0


def _supervision_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("%s is no longer restarted", task.get_name(), exc_info=error)


def _create_table(file: Path, workers: int) -> memoryview:
    """Create the table of clients' addresses for these workers. Raises `OSError`."""
    with file.open("wb") as created:
        created.write(new_key())
        created.truncate(table_bytes(workers))
    return run_directory.shared_memory(file)


def _watch_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("certificates are no longer watched", exc_info=error)
