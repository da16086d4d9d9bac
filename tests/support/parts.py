"""The relay without its listener: from credentials and envelopes to the sandbox, in clear."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.accounts import mailbox
from tests.support.sandbox import Sandbox
from xoauth2_proxy.accounts.accounts import Account, Accounts, TlsMode, Upstream
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.relay import Relay
from xoauth2_proxy.submission.authenticator import Authenticator, LoginCounts
from xoauth2_proxy.submission.credential_use import CredentialUse
from xoauth2_proxy.submission.guessing import Guessing
from xoauth2_proxy.upstream.connector import Connector
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from xoauth2_proxy.oauth.refreshers import Refresher


@dataclass
class Parts:
    """All of one relay that a client's session talks to."""

    sandbox: Sandbox
    account: Account
    accounts: Accounts
    metrics: Metrics
    tokens: TokenSource
    pool: Pool
    authenticator: Authenticator
    relay: Relay

    def count(self, name: str, **labels: str) -> float:
        """Return a sample of the metrics, 0.0 when it is not there."""
        labels = {"provider": "mock"} | labels
        return self.metrics.registry.get_sample_value(f"xoauth2_proxy_{name}", labels) or 0.0


@asynccontextmanager
async def parts(
    directory: Path,
    refresher: Refresher | None = None,
    sandbox: Sandbox | None = None,
    max_failed_logins: int = 0,
    **limits: float,
) -> AsyncIterator[Parts]:
    """Build the parts around a sandbox of their own; `refresher` stands in for the mock one."""
    async with sandbox or Sandbox(directory, http_port=None, tls=TlsMode.NONE) as sandbox:
        account = mailbox(
            "Someone@example.com", Upstream(*sandbox.smtp_address, TlsMode.NONE), **limits
        )
        refreshers = {"mock": refresher or MockRefresher(sandbox.tokens)}
        accounts, metrics = Accounts([account]), Metrics()
        tokens, pool = TokenSource(refreshers, metrics), Pool(metrics)
        connector = Connector(tokens, "relay.example")
        yield Parts(
            sandbox,
            account,
            accounts,
            metrics,
            tokens,
            pool,
            Authenticator(
                accounts,
                tokens,
                refreshers,
                pool,
                connector,
                LoginCounts(CredentialUse(), Guessing(max_failed_logins)),
            ),
            Relay(pool, connector, metrics),
        )
        pool.close()
        await tokens.close()
        accounts.close()
