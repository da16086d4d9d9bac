"""Builds the components of one relay, starts, reloads, drains and stops them.

Start: sandbox, administration, listeners; stop: listeners (drained), pool, tokens, administration,
sandbox. Health answers 503 from the start of draining, which tells load balancers to use another
relay. With several workers, the parent has the administration and the sandbox.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.accounts import Accounts, TlsMode, Upstream
from xoauth2_proxy.accounts.providers import SANDBOX
from xoauth2_proxy.admin.health import Health
from xoauth2_proxy.background_tasks import BackgroundTasks
from xoauth2_proxy.clients.record import ClientRecord
from xoauth2_proxy.clients.watch import ClientWatch
from xoauth2_proxy.config import needs_restart
from xoauth2_proxy.config.sections import LEAST_BUFFERS
from xoauth2_proxy.diagnostics import Explanations
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.relay import Relay
from xoauth2_proxy.service.addresses import explain_listen_error
from xoauth2_proxy.service.admin_backend import AdminBackend, AdminDependencies
from xoauth2_proxy.service.certificates import Certificates
from xoauth2_proxy.service.descriptors import (
    LAST,
    Division,
    divide,
    open_file_limit,
    open_files,
)
from xoauth2_proxy.service.listening import Addresses, ListeningSockets, listener_states
from xoauth2_proxy.service.without_password import log_without_password
from xoauth2_proxy.smtp.sasl import BY_TOKEN
from xoauth2_proxy.submission.address_table import AddressTable
from xoauth2_proxy.submission.authenticator import Authenticator, LoginCounts
from xoauth2_proxy.submission.buffer_budget import BufferBudget
from xoauth2_proxy.submission.credential_use import CredentialUse
from xoauth2_proxy.submission.guessing import Guessing
from xoauth2_proxy.submission.listener import Listener, Places
from xoauth2_proxy.submission.policy import SessionPolicy
from xoauth2_proxy.upstream.connector import Connector
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.clients.forwarding import Forwarding
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.sandbox.app import Sandbox
    from xoauth2_proxy.service.components import StandardComponents
    from xoauth2_proxy.submission.acceptor import ClientCounter
    from xoauth2_proxy.upstream.worker_slots import WorkerSlots

# The options and keys that set the address, for messages.
ADMIN_OPTIONS = "--admin-host, --admin-port, or admin.host and admin.port in the configuration"

_BUDGET_SECONDS = 0.5  # between two looks at it
_COMPLAINT_SECONDS = 60.0  # between two lines about the same

_log = log.logger("app")


@dataclass(frozen=True, slots=True)
class EmbeddedSandbox:
    """Where the accounts of the sandbox that runs inside the proxy find it."""

    upstream: Upstream
    issuer: str


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """What one worker of several shares with the others."""

    sockets: ListeningSockets
    slots: WorkerSlots
    client_counts: Sequence[ClientCounter]  # one for each listener
    addresses: Sequence[AddressTable]  # the same
    number: int  # of this worker
    workers: int
    login_counts: LoginCounts
    sandbox: EmbeddedSandbox | None  # which the parent runs
    clients: Forwarding  # of what is seen of them


class App:
    """One relay with its admin server, and the sandbox provider if it is embedded."""

    def __init__(
        self,
        config: Config,
        components: StandardComponents,
        sandbox: Sandbox | None = None,
        shared: WorkerResources | None = None,
    ) -> None:
        """Raises `OSError` if a file that a refresher needs cannot be read."""
        self._config = config
        self._components = components
        self._sandbox = sandbox
        self._embedded = shared.sandbox if shared is not None else None
        self._shared = shared
        self.metrics = Metrics()
        self.health = Health(account_states(config))
        refreshers = components.refreshers(config)
        self._explanations = Explanations()
        self._forwarding = shared.clients if shared is not None else None
        self.clients = ClientRecord() if self._forwarding is None else self._forwarding.record
        self._client_watch = ClientWatch(
            self.clients,
            self.metrics.clients_turned_away,
            self._forwarding.has_changed if self._forwarding is not None else None,
        )
        self._tokens = TokenSource(
            refreshers, self.metrics, components.store, explanations=self._explanations
        )
        self._pool = Pool(self.metrics, shared.slots if shared is not None else None)
        self._accounts = Accounts(())
        self._connector = Connector(self._tokens)
        self._admin = self._make_admin_backend() if shared is None else None
        self._authenticator = Authenticator(
            self._accounts,
            self._tokens,
            refreshers,
            self._pool,
            self._connector,
            login_counts(config) if shared is None else shared.login_counts,
        )
        self._reloading = asyncio.Lock()
        self._listeners: list[Listener] = []
        self._sockets = shared.sockets if shared is not None else ListeningSockets(())
        self._budget: BufferBudget  # from the start on
        self._certificates = Certificates(
            lambda place, context: self._listeners[place].use_tls(context),
            self.metrics if shared is None else None,
        )
        self._background = BackgroundTasks()

    def _make_admin_backend(self) -> AdminBackend:
        dependencies = AdminDependencies(
            reload=self.reload,
            forget=self.forget,
            use_credentials=self.use_credentials,
            components=self._components,
            tokens=self._tokens,
            connector=self._connector,
            health=self.health,
            metrics=self.metrics,
            shown_metrics=self.metrics,
            clients=self.clients,
        )
        return AdminBackend(dependencies, self._config)

    async def start(self) -> Addresses:
        """Start everything; return once clients are accepted.

        Raises `OSError` if an address cannot be listened on; whatever was started is stopped.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop(0.0)
            raise

    async def _start(self) -> Addresses:
        if self._sandbox is not None:
            self._embedded = await start_sandbox(self._sandbox, self.health)
        async with self._reloading:  # a parent may send a newer configuration
            await self._use(self._config)
        hostname = self._connector.hostname = await asyncio.to_thread(own_hostname)
        self._budget = self._make_budget()
        await asyncio.to_thread(self._certificates.read, self._config.listeners)
        if self._shared is None:
            self._sockets = await asyncio.to_thread(ListeningSockets.open, self._config)
        clients = self._divide_descriptors()
        for place, here in enumerate(clients.places):
            listener = await self._make_listener(place, here, _greeting_name(hostname))
            self._listeners.append(listener)
        addresses = await self._listen()
        self._spawn(self._pool.sweep_forever(), "pool sweep")
        self._spawn(self.metrics.watch_event_loop(), "event loop watch")
        self._spawn(self._watch_budget(), "content budget watch")
        self._spawn(self._certificates.watch(), "certificate watch")
        self.health.listeners = listener_states(addresses.listeners, self._certificates)
        self.health.is_ready = True
        return addresses

    async def _listen(self) -> Addresses:
        sockets = self._sockets
        addresses = sockets.addresses(self._config)
        if self._shared is not None:
            for place, listener in enumerate(self._listeners):
                listener.start_on(sockets.by_listener[place], self._shared.client_counts[place])
            return Addresses(addresses, ("", 0))
        assert self._admin is not None  # noqa: S101 - a relay without a parent has one
        admin_server = self._config.admin
        with explain_listen_error(
            "the admin server", admin_server.host, admin_server.port, ADMIN_OPTIONS
        ):
            admin = await self._admin.start()
        for listener, opened in zip(self._listeners, sockets.by_listener, strict=True):
            await listener.start(opened)
        return Addresses(addresses, admin)

    async def reload(self) -> None:
        """Read the configuration again and use its accounts and providers.

        Transactions in flight keep their account. A change that needs a restart is logged.

        Raises:
            ConfigError: the configuration is invalid; the previous one stays in use.
            OSError: a file cannot be read; the previous one stays in use.
        """
        async with self._reloading:
            old, config = self._config, await asyncio.to_thread(self._components.load)
            await self._use(in_force(old, config))
            await self._certificates.look()
            warn_of_changes(old, config)

    async def apply(self, config: Config) -> None:
        """Use a configuration that the parent has read, as `reload` does. Raises `OSError`."""
        async with self._reloading:
            await self._use(config)
            await self._certificates.look()

    async def use_credentials(
        self, account: str, credentials: Sequence[Credential], made: Collection[str]
    ) -> None:
        """Replace the credentials of one account, given by its key; all else stays as it is.

        `made` are the keys of all credentials that were made at run time.
        """
        async with self._reloading:
            old, self._config = (
                self._config,
                with_credentials(self._config, account, credentials, made),
            )
            await self._accounts.use_credentials(account, credentials)
            self._authenticator.logins_changed()
            if self._admin is not None:
                self._admin.reconfigure(self._config, tuple(self._accounts))
                log_without_password(self._config.accounts, old.accounts)

    def forget(self, mailbox: str) -> None:
        """Drop the tokens and connections of a mailbox whose grant was replaced or revoked."""
        self._tokens.forget(mailbox)
        self._authenticator.forget(mailbox)
        self._pool.drop(mailbox)

    async def _use(self, config: Config) -> None:
        refreshers = await asyncio.to_thread(self._components.refreshers, config)
        accounts = with_sandbox(config, self._embedded)
        await self._accounts.replace(accounts)
        self._config = config
        for listener, section in zip(self._listeners, config.listeners, strict=False):
            listener.offer(section.offered(takes_tokens=self._takes_tokens))
        self._authenticator.use(refreshers)
        self._tokens.use(refreshers, accounts)
        self._pool.use(accounts)
        self._connector.forget_authorities()
        if self._admin is not None:
            self._admin.reconfigure(config, accounts)
        self.health.accounts = account_states(config)

    @property
    def _takes_tokens(self) -> bool:
        return any(account.takes_clients_tokens for account in self._config.accounts)

    async def _make_listener(self, place: int, here: int, hostname: str) -> Listener:
        section, relaying = self._config.listeners[place], self._config.relay
        policy = SessionPolicy(
            hostname=hostname,
            listener=section.name,
            max_message_bytes=relaying.max_message_bytes,
            max_recipients=relaying.max_recipients,
            buffer_bytes=relaying.buffer_bytes,
            idle_seconds=section.idle_seconds,
            login_seconds=section.login_seconds,
            message_seconds=section.message_seconds,
            max_commands=section.max_commands,
            max_bad_commands=section.max_bad_commands,
            tls_context=self._certificates.context(place),
            tls=section.tls_mode,
            mechanisms=section.offered(takes_tokens=self._takes_tokens),
            unannounced=() if section.mechanisms else BY_TOKEN,
            auth_equals_line=section.auth_equals_line,
            networks=section.networks,
            proxies=section.proxies,
            may_auth_in_clear=(section.allow_insecure_auth or self._sockets.is_on_loopback(place)),
            strict=section.strict,
        )
        relay = Relay(
            self._pool, self._connector, self.metrics, self._explanations, self._client_watch
        )
        places = Places(
            in_all=section.max_connections,
            for_address=section.places_for_address,
            here=here,
            last_descriptor=open_file_limit() - LAST,
            addresses=self._shared.addresses[place] if self._shared else AddressTable(),
        )
        return Listener(policy, places, self._authenticator, relay, self.metrics, self._budget)

    def _divide_descriptors(self) -> Division:
        """Return how many clients each listener may have; warn if they are fewer than configured.

        Of several workers each may have to take all clients, while the others are restarted.
        """
        wanted = [section.max_connections for section in self._config.listeners]
        upstream = sum(account.limits.max_connections for account in self._config.accounts)
        division = divide(wanted, upstream, open_file_limit(), open_files())
        if (warning := division.warning()) and (self._shared is None or not self._shared.number):
            _log.warning("%s", warning)
        return division

    async def _watch_budget(self) -> None:
        """Show what content is held, and log it, once a minute at most, when there is no room."""
        budget, shown = self._budget, self.metrics.content_bytes
        complains_again_at = used_bytes = 0.0
        while True:
            await asyncio.sleep(_BUDGET_SECONDS)
            if budget.used_bytes != used_bytes:
                used_bytes = budget.used_bytes
                shown.set(used_bytes)
            now = time.monotonic()
            if budget.is_short and now >= complains_again_at:
                complains_again_at = now + _COMPLAINT_SECONDS
                _log.event(
                    logging.WARNING,
                    "memory for content is short; stalled clients are cut off, others wait",
                    held_bytes=budget.used_bytes,
                    of_bytes=budget.total_bytes,
                    remedy="raise relay.buffer_total_bytes, or see which clients stall",
                )

    def _make_budget(self) -> BufferBudget:
        relaying, loop = self._config.relay, asyncio.get_running_loop()
        workers = self._shared.workers if self._shared is not None else 1
        return BufferBudget(
            max(relaying.buffer_total_bytes // workers, LEAST_BUFFERS * relaying.buffer_bytes),
            relaying.buffer_bytes,
            loop.time,
            loop.call_later,
        )

    async def stop(self, drain_seconds: float | None = None) -> None:
        """Drain for at most this time (default: as configured), then stop everything."""
        if drain_seconds is None:
            drain_seconds = self._config.relay.drain_seconds
        self.health.is_draining = True
        cut = sum(await asyncio.gather(*(one.drain(drain_seconds) for one in self._listeners)))
        self._sockets.close()
        if cut:
            _log.event(logging.WARNING, "transactions cut off at the deadline", sessions=cut)
        self._client_watch.close()
        if self._forwarding is not None:
            self._forwarding.send()
        self._pool.close()
        await self._background.close(0.0)
        self._accounts.close()
        if self._admin is not None:
            await self._admin.stop()
        await self._tokens.close()
        self._components.close()
        if self._sandbox is not None:
            await self._sandbox.stop()

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.critical("%s stopped unexpectedly", name, exc_info=error)

        self._background.start(work, name).add_done_callback(ended)


def login_counts(
    config: Config, worker: int = 0, tell: Callable[[str], None] = lambda line: None
) -> LoginCounts:
    """Return what counts logins in a process; `tell` says a line to the other workers."""
    guessing = Guessing(config.relay.max_failed_logins, tell)
    return LoginCounts(CredentialUse(worker, tell), guessing)


def account_states(config: Config) -> dict[str, int]:
    """Return the number of accounts in each state."""
    return {"enabled": len(config.accounts), "disabled": config.disabled_accounts}


def with_sandbox(config: Config, sandbox: EmbeddedSandbox | None) -> tuple[Account, ...]:
    """Return the accounts; those that are left to the sandbox use it, if there is one."""
    if sandbox is None:
        return config.accounts

    def placed(account: Account) -> Account:
        if account.key not in config.sandbox_accounts:
            return account
        oauth = account.oauth
        if account.provider == SANDBOX:
            oauth = replace(oauth, issuer=sandbox.issuer)
        return replace(account, upstream=sandbox.upstream, oauth=oauth)

    return tuple(map(placed, config.accounts))


def with_credentials(
    config: Config, account: str, credentials: Sequence[Credential], made: Collection[str]
) -> Config:
    """Return the configuration with other credentials of one account."""
    accounts = tuple(
        replace(one, credentials=tuple(credentials)) if one.key == account else one
        for one in config.accounts
    )
    return replace(config, accounts=accounts, runtime_credentials=frozenset(made))


def in_force(old: Config, new: Config) -> Config:
    """Return the new configuration, with the old values of settings that need a restart.

    Otherwise a worker that is started later would differ from the others, for example by keeping
    grants in another store.
    """
    return replace(
        new,
        listeners=old.listeners,
        listener_paths=old.listener_paths,
        admin=old.admin,
        relay=old.relay,
        store=old.store,
        alerts=old.alerts,
    )


def warn_of_changes(old: Config, new: Config) -> None:
    """Log the changes that need a restart, the warnings, and who needs no password by now."""
    for path in needs_restart(old, new):
        _log.warning("%s has changed; it takes effect after a restart", path)
    for warning in new.warnings:
        _log.warning("%s", warning)
    log_without_password(new.accounts, old.accounts)


async def start_sandbox(sandbox: Sandbox | None, health: Health) -> EmbeddedSandbox | None:
    """Start the embedded sandbox, if there is one.

    Raises `OSError`, `ValueError`.
    """
    if sandbox is None:
        return None
    port = sandbox.smtp_port or sandbox.http_port or 0
    with explain_listen_error(
        "the sandbox", sandbox.host, port, "--sandbox-port, --sandbox-http-port"
    ):
        await sandbox.start()
    host, port = sandbox.smtp_address
    health.sandbox = {"smtp": f"{host}:{port}", "http": sandbox.http_url}
    upstream = Upstream(host, port, TlsMode.STARTTLS, sandbox.ca_file)
    return EmbeddedSandbox(upstream, sandbox.http_url)


def _greeting_name(hostname: str) -> str:
    """Return the name in the greeting: the hostname, or the machine's short name."""
    short = socket.gethostname()
    return hostname if not hostname.startswith("[") or not short.isascii() else short


def own_hostname() -> str:
    """Return the argument of EHLO: a domain or an address literal (RFC 5321 §4.1.4).

    Gmail rejects clients that call themselves "localhost".
    """
    name = socket.getfqdn()
    return name if "." in name and name.isascii() else "[127.0.0.1]"
