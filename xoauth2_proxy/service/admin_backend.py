"""Builds the admin server, the mailbox operations and the watches over expiry and store.

A relay has one of each: in its only process, or in the parent of its workers.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.admin.listener import AdminListener
from xoauth2_proxy.mailboxes.interface import RelayControl
from xoauth2_proxy.mailboxes.operations import Mailboxes
from xoauth2_proxy.oauth.expiry_monitor import ExpiryMonitor
from xoauth2_proxy.oauth.store_watch import StoreWatch
from xoauth2_proxy.oauth.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.admin.health import Health
    from xoauth2_proxy.admin.server import AdminServer
    from xoauth2_proxy.clients.record import ClientRecord
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.mailboxes.interface import Document
    from xoauth2_proxy.metrics import MergedMetrics, Metrics
    from xoauth2_proxy.oauth.token_source import TokenSource
    from xoauth2_proxy.service.components import StandardComponents
    from xoauth2_proxy.upstream.connector import Connector

_THREADS = 4  # for sign-ins, whose requests block


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminDependencies:
    """The objects the admin backend needs."""

    # Read the configuration again, in all processes. Raises `ConfigError`, `OSError`.
    reload: Callable[[], Awaitable[None]]
    # Put the credentials of an account (its key) in force, in all processes; the last argument is
    # the keys of all that were made at run time.
    use_credentials: Callable[[str, Sequence[Credential], Collection[str]], Awaitable[None]]
    # Drop the tokens and connections of a mailbox, given by its account's key, in all processes.
    forget: Callable[[str], None]
    components: StandardComponents
    tokens: TokenSource
    connector: Connector
    health: Health
    metrics: Metrics  # of this process
    shown_metrics: Metrics | MergedMetrics  # for `/metrics`
    clients: ClientRecord


class AdminBackend:
    """The admin server of one relay, and the watches over its sign-ins and its store."""

    def __init__(self, dependencies: AdminDependencies, config: Config) -> None:
        self._config = config
        self._connector = dependencies.connector
        self._threads = ThreadPoolExecutor(_THREADS, "sign-in")
        components = dependencies.components
        self.relay = RelayControl(
            accounts={account.key: account for account in config.accounts},
            disabled=config.disabled,
            added=config.runtime_accounts,
            providers=config.providers,
            all_refreshers=components.all_refreshers,
            account_files=components.added,
            credential_files=components.made,
            made=config.runtime_credentials,
            has_token=bool(config.admin.token),
            check_credential=self._check_credential,
            use_credentials=dependencies.use_credentials,
            store=components.store,
            metrics=dependencies.metrics,
            threads=self._threads,
            warn_days=config.alerts.warn_days,
            check=components.check,
            refresher=components.refresher,
            serves_tokens=config.admin.serves_tokens,
            refresh=dependencies.tokens.refresh,
            token_for=dependencies.tokens.token_for,
            log_in=self._log_in,
            reload=dependencies.reload,
            forget=dependencies.forget,
        )
        self._mailboxes = Mailboxes(self.relay)
        self._dependencies = dependencies
        self._listener = AdminListener(self._make_server)
        webhook = config.alerts.webhook
        self._monitor = ExpiryMonitor(
            components.store,
            dependencies.metrics,
            lambda: self.relay.accounts.values(),
            config.alerts.warn_days,
            Webhook(webhook) if webhook else None,
        )
        self._store_watch = StoreWatch(components.store, dependencies.health.note_store)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> tuple[str, int]:
        """Start listening and monitoring; return the address and port in use. Raises `OSError`."""
        address = await self._listener.start(self._config.admin.host, self._config.admin.port)
        await self._store_watch.begin()
        self._watching = [
            asyncio.create_task(self._monitor.run(), name="expiry monitor"),
            asyncio.create_task(self._store_watch.run(), name="store watch"),
        ]
        return address

    async def stop(self) -> None:
        """Stop watching and the server; must be called before the store is closed."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._listener.stop()
        await self._mailboxes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def reconfigure(self, config: Config, accounts: Sequence[Account]) -> None:
        """Use another configuration; `accounts` are those now in force."""
        self.relay.accounts = {account.key: account for account in accounts}
        self.relay.disabled = config.disabled
        self.relay.added = config.runtime_accounts
        self.relay.made = config.runtime_credentials
        self.relay.providers = config.providers

    def _make_server(self) -> AdminServer:
        from xoauth2_proxy.admin.server import AdminServer

        return AdminServer(
            self._dependencies.health,
            self._dependencies.shown_metrics,
            self._config.admin.token,
            self._mailboxes,
            self._config.admin.public_url,
            self._dependencies.clients,
        )

    def _check_credential(self, document: Document, account: Account) -> Credential:
        from xoauth2_proxy.config.credential_loader import check_credential

        return check_credential(document, account, self.relay.accounts, self.relay.disabled)

    async def _log_in(self, account: Account, access_token: str) -> None:
        connection = await self._connector.open_with(account, access_token)
        connection.close()
