"""The composition root: builds the parts of one relay, starts, drains and stops them.

Start: sandbox, admin, listener; stop: listener (drained), pool, admin, sandbox. Health answers 503
from the first moment of draining, so that a load balancer looks elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts import Accounts, TlsMode, Upstream
from xoauth2_proxy.admin.health import Health
from xoauth2_proxy.admin.server import AdminServer
from xoauth2_proxy.authentication import Authenticator
from xoauth2_proxy.config.surroundings import is_loopback
from xoauth2_proxy.listener import Listener
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.source import TokenSource
from xoauth2_proxy.relay import Relay
from xoauth2_proxy.session import SessionPolicy
from xoauth2_proxy.upstream.opener import Opener
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.sandbox import Sandbox

_log = log.logger("app")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running relay can be reached."""

    smtp: tuple[str, int]
    admin: tuple[str, int]


class App:
    """One relay with its admin server, and the sandbox provider if it is embedded."""

    def __init__(
        self,
        config: Config,
        refreshers: Mapping[str, Refresher],
        sandbox: Sandbox | None = None,
    ) -> None:
        self._config = config
        self._refreshers = refreshers
        self._sandbox = sandbox
        self.metrics = Metrics()
        self.health = Health(
            {"enabled": len(config.accounts), "disabled": config.disabled_accounts}
        )
        self._tokens = TokenSource(refreshers, self.metrics)
        self._pool = Pool(self.metrics)
        self._admin = AdminServer(self.health, self.metrics, config.admin.token)
        self._accounts: Accounts | None = None
        self._listener: Listener | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> Addresses:
        """Start everything, and return once clients are accepted.

        Raises `OSError` when an address cannot be listened on; what was started is stopped again.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop(0.0)
            raise

    async def _start(self) -> Addresses:
        accounts = self._config.accounts
        if self._sandbox is not None:
            await self._sandbox.start()
            accounts = tuple(self._at_sandbox(account, self._sandbox) for account in accounts)
            host, port = self._sandbox.smtp_address
            self.health.sandbox = {"smtp": f"{host}:{port}", "http": self._sandbox.http_url}
        listener = self._listener = await self._assemble(accounts)
        admin = await self._admin.start(self._config.admin.host, self._config.admin.port)
        smtp = await listener.start(self._config.listener.host, self._config.listener.port)
        self._spawn(self._pool.sweep_forever(), "pool sweep")
        self._spawn(self.metrics.watch_event_loop(), "event loop watch")
        self.health.is_ready = True
        return Addresses(smtp, admin)

    async def _assemble(self, accounts: tuple[Account, ...]) -> Listener:
        hostname = await asyncio.to_thread(_own_hostname)
        self._accounts = Accounts(accounts)
        opener = Opener(self._tokens, hostname)
        authenticator = Authenticator(
            self._accounts, self._tokens, self._refreshers, self._pool, opener
        )
        listening, relaying = self._config.listener, self._config.relay
        policy = SessionPolicy(
            hostname=_greeting_name(hostname),
            max_message_bytes=relaying.max_message_bytes,
            max_recipients=relaying.max_recipients,
            buffer_bytes=relaying.buffer_bytes,
            idle_seconds=listening.idle_seconds,
            tls_context=await asyncio.to_thread(self._tls_context),
            may_auth_in_clear=listening.allow_insecure_auth or is_loopback(listening.host),
        )
        return Listener(
            policy,
            listening.max_connections,
            authenticator,
            Relay(self._pool, opener, self.metrics),
            self.metrics,
        )

    async def stop(self, drain_seconds: float | None = None) -> None:
        """Drain for at most this long (default: as configured), then stop everything."""
        if drain_seconds is None:
            drain_seconds = self._config.relay.drain_seconds
        self.health.is_draining = True
        if self._listener is not None:
            cut = await self._listener.drain(drain_seconds)
            if cut:
                _log.event(logging.WARNING, "transactions cut at the deadline", sessions=cut)
        self._pool.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._tokens.close()
        if self._accounts is not None:
            self._accounts.close()
        await self._admin.stop()
        if self._sandbox is not None:
            await self._sandbox.stop()

    def _at_sandbox(self, account: Account, sandbox: Sandbox) -> Account:
        if account.key not in self._config.sandbox_accounts:
            return account
        host, port = sandbox.smtp_address
        return replace(account, upstream=Upstream(host, port, TlsMode.STARTTLS, sandbox.ca_file))

    def _tls_context(self) -> ssl.SSLContext | None:
        listener = self._config.listener
        if listener.tls_cert is None or listener.tls_key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        context.load_cert_chain(listener.tls_cert, listener.tls_key)
        return context

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("%s died", task.get_name(), exc_info=error)


def _greeting_name(hostname: str) -> str:
    """Return what clients are greeted with: the same, or the machine's short name."""
    short = socket.gethostname()
    return hostname if not hostname.startswith("[") or not short.isascii() else short


def _own_hostname() -> str:
    """Return what EHLO says of us: a domain, or an address literal (RFC 5321 §4.1.4).

    Gmail turns away clients that call themselves "localhost".
    """
    name = socket.getfqdn()
    return name if "." in name and name.isascii() else "[127.0.0.1]"
