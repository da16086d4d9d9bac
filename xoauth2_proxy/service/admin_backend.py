"""The operator's side of a relay, put together: admin server, mailboxes, watch.

There is one for a relay, in its only process or in the parent of its workers.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy.admin.server import AdminServer
from xoauth2_proxy.mailboxes import Mailboxes, Means, ProviderInfo
from xoauth2_proxy.oauth.expiry_monitor import Watch
from xoauth2_proxy.oauth.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.admin.health import Health
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.mailboxes.ports import Document
    from xoauth2_proxy.metrics import MergedMetrics, Metrics
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.tokens import TokenSource
    from xoauth2_proxy.service.components import Equipment
    from xoauth2_proxy.upstream.connector import Connector

_THREADS = 4  # for signing in: what blocks on a provider while a person waits


class Service(Protocol):
    """The processes that relay."""

    async def reload(self) -> None:
        """Read the configuration again. Raises `ConfigError`, `OSError`."""
        ...

    def forget(self, mailbox: str) -> None:
        """Drop what a mailbox (its account's key) can be sent with."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the operator's side works with."""

    service: Service
    equipment: Equipment
    tokens: TokenSource
    connector: Connector
    health: Health
    metrics: Metrics  # of this process
    shown: Metrics | MergedMetrics  # what `/metrics` shows


class Administration:
    """Serves the operator, and looks after the mailboxes. It is `mailboxes.Running`."""

    def __init__(self, parts: Parts, config: Config) -> None:
        self._parts = parts
        self._config = config
        self._accounts = {account.key: account for account in config.accounts}
        self._threads = ThreadPoolExecutor(_THREADS, "sign-in")
        equipment = parts.equipment
        means = Means(
            running=self,
            kept=equipment.added,
            store=equipment.store,
            metrics=parts.metrics,
            threads=self._threads,
            warn_days=config.alerts.warn_days,
        )
        self._mailboxes = Mailboxes(means)
        self._server = AdminServer(
            parts.health,
            parts.shown,
            config.admin.token,
            self._mailboxes,
            config.admin.public_url,
        )
        webhook = config.alerts.webhook
        self._watch = Watch(
            equipment.store,
            parts.metrics,
            self._accounts.values,
            config.alerts.warn_days,
            Webhook(webhook) if webhook else None,
        )
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> tuple[str, int]:
        """Listen and watch; return the address and port in use. Raises `OSError`."""
        address = await self._server.start(self._config.admin.host, self._config.admin.port)
        self._watching = asyncio.create_task(self._watch.run(), name="watch over mailboxes")
        return address

    async def stop(self) -> None:
        """End both, while the store is still open."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._server.stop()
        await self._mailboxes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def use(self, config: Config, accounts: Sequence[Account]) -> None:
        """Go on with another configuration, whose accounts are given as they are in force."""
        self._config = config
        self._accounts.clear()
        self._accounts.update((account.key, account) for account in accounts)

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The enabled accounts in force, by key."""
        return self._accounts

    @property
    def providers(self) -> Sequence[ProviderInfo]:
        """The providers that accounts can name."""
        return [ProviderInfo(one.name, one.refresher, one.oauth) for one in self._config.providers]

    @property
    def added(self) -> Collection[str]:
        """The keys of the accounts in force that were added while the relay ran."""
        return self._config.added

    def check(
        self, documents: Sequence[tuple[str, Document]], replaced: Collection[str]
    ) -> list[Account]:
        """Return the accounts that the documents make; see `mailboxes.Running`."""
        return self._parts.equipment.check(documents, replaced)

    def refresher(self, name: str) -> Refresher | None:
        """Return the refresher of this name, though no account uses it yet. Raises `OSError`."""
        return self._parts.equipment.refresher(name)

    async def renew(self, account: Account) -> AccessToken:
        """Get a new token for an account in force. Raises: as `TokenSource.renew`."""
        return await self._parts.tokens.renew(account)

    async def prove(self, account: Account, access_token: str) -> None:
        """Return if the provider's mail server lets the mailbox in; see `mailboxes.Running`."""
        connection = await self._parts.connector.open_with(account, access_token)
        connection.close()

    async def reload(self) -> None:
        """Read the configuration again, everywhere. Raises `ConfigError`, `OSError`."""
        await self._parts.service.reload()

    def forget(self, mailbox: str) -> None:
        """Drop, in every process, what a mailbox can be sent with."""
        self._parts.service.forget(mailbox)
