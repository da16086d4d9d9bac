"""The composition root: builds the parts of one relay, starts, drains and stops them.

Start: sandbox, admin, listener; stop: listener (drained), pool, admin, sandbox. Health answers 503
from the first moment of draining, so that a load balancer looks elsewhere. One worker of several
has no admin server and no sandbox: its parent has them.
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
    from collections.abc import Coroutine, Mapping, Sequence

    from xoauth2_proxy.acceptor import Seats
    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.sandbox import Sandbox
    from xoauth2_proxy.upstream.slots import Slots

_log = log.logger("app")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running relay can be reached."""

    smtp: tuple[str, int]
    admin: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Shared:
    """What one worker of several has in common with the others."""

    sockets: Sequence[socket.socket]  # they listen already
    slots: Slots
    seats: Seats


class App:
    """One relay with its admin server, and the sandbox provider if it is embedded."""

    def __init__(
        self,
        config: Config,
        refreshers: Mapping[str, Refresher],
        sandbox: Sandbox | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._config = config
        self._refreshers = refreshers
        self._sandbox = sandbox
        self._shared = shared
        self.metrics = Metrics()
        self.health = Health(account_states(config))
        self._tokens = TokenSource(refreshers, self.metrics)
        self._pool = Pool(self.metrics, shared.slots if shared is not None else None)
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
            accounts = sandboxed(self._config, self._sandbox).accounts
            self.health.sandbox = sandbox_addresses(self._sandbox)
        listener = self._listener = await self._assemble(accounts)
        addresses = await self._open_doors(listener)
        self._spawn(self._pool.sweep_forever(), "pool sweep")
        self._spawn(self.metrics.watch_event_loop(), "event loop watch")
        self.health.is_ready = True
        return addresses

    async def _open_doors(self, listener: Listener) -> Addresses:
        if self._shared is not None:
            listener.start_on(self._shared.sockets, self._shared.seats)
            return Addresses(self._shared.sockets[0].getsockname()[:2], ("", 0))
        admin = await self._admin.start(self._config.admin.host, self._config.admin.port)
        smtp = await listener.start(self._config.listener.host, self._config.listener.port)
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
            proxies=frozenset(listening.proxies),
            may_auth_in_clear=listening.allow_insecure_auth or is_loopback(listening.host),
        )
        relay = Relay(self._pool, opener, self.metrics)
        return Listener(policy, listening.max_connections, authenticator, relay, self.metrics)

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


def account_states(config: Config) -> dict[str, int]:
    """Return how many accounts are in which state."""
    return {"enabled": len(config.accounts), "disabled": config.disabled_accounts}


def sandboxed(config: Config, sandbox: Sandbox) -> Config:
    """Return the configuration whose mock accounts have the sandbox, which runs, as upstream."""
    host, port = sandbox.smtp_address
    upstream = Upstream(host, port, TlsMode.STARTTLS, sandbox.ca_file)
    accounts = tuple(
        replace(account, upstream=upstream) if account.key in config.sandbox_accounts else account
        for account in config.accounts
    )
    return replace(config, accounts=accounts)


def sandbox_addresses(sandbox: Sandbox) -> dict[str, str]:
    """Return where the sandbox, which runs, can be reached."""
    host, port = sandbox.smtp_address
    return {"smtp": f"{host}:{port}", "http": sandbox.http_url}


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
