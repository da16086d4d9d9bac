"""A private provider with limits and faults, and the configuration of a proxy that uses it.

It is a sandbox in its own process, because the one inside a proxy has no settings.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.process.child_process import running_child
from xoauth2_proxy.sandbox.mock_mailboxes import PLAIN_REFRESH_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from bench.process.interruption import Interruption
    from bench.targets.mailboxes import BenchMailbox

# As the proxy's own mock provider has: too high to limit a benchmark.
_LIMITS = {"max_connections": 50, "max_messages_per_connection": 1000}
_CLIENT_ID = "xoauth2-bench"


@dataclass(frozen=True, slots=True)
class PrivateProvider:
    """A running sandbox and the document it was started with."""

    smtp: tuple[str, int]
    tls: str
    ca_file: str
    http_url: str
    token_endpoint: str
    state_dir: Path  # with its keys
    settings: Mapping[str, object]

    def configuration(
        self, mailboxes: Sequence[BenchMailbox], limits: Mapping[str, object]
    ) -> dict[str, object]:
        """Return the configuration of a proxy that sends these mailboxes' mail to this provider.

        The proxy uses the token endpoint if the settings mention it, else it signs mock tokens.
        """
        host, port = self.smtp
        upstream = {"host": host, "port": port, "tls": self.tls, "ca_file": self.ca_file}
        provider: dict[str, object] = {"upstream": upstream, "limits": {**_LIMITS, **limits}}
        accounts = [mailbox.document() for mailbox in mailboxes]
        if not asks_token_endpoint(self.settings):
            return {"providers": {"mock": provider}, "accounts": accounts}
        provider |= {"oauth_token_url": self.token_endpoint, **self._client()}
        for account in accounts:
            account |= {
                "provider": "oidc",
                "refresh_token": f"{PLAIN_REFRESH_TOKEN}{account['email']}",
            }
        return {"providers": {"oidc": provider}, "accounts": accounts}

    def _client(self) -> dict[str, str]:
        endpoint = self.settings.get("token_endpoint")
        clients = endpoint.get("clients") if isinstance(endpoint, dict) else None
        if not clients:
            return {"client_id": _CLIENT_ID}
        name, secret = next(iter(clients.items()))
        return {"client_id": name} | ({"client_secret": secret} if secret else {})


def asks_token_endpoint(settings: Mapping[str, object]) -> bool:
    """Return whether a provider's settings mention its token endpoint."""
    faults = settings.get("faults")
    has_fault = isinstance(faults, list) and any(
        isinstance(fault, dict) and fault.get("step") == "token" for fault in faults
    )
    return has_fault or "token_endpoint" in settings


@asynccontextmanager
async def private_provider(
    settings: Mapping[str, object],
    folder: Path,
    state_dir: Path,
    interruption: Interruption,
    name: str = "sandbox",
) -> AsyncIterator[PrivateProvider]:
    """Run a sandbox with these settings while the context is entered.

    Its keys are in `state_dir`, where a proxy that signs mock tokens for it must find them.

    Raises:
        ChildError: it did not start.
        StartInterrupted: a signal came first.
    """
    file = folder / f"{name}.json"
    file.write_text(json.dumps(settings))
    ports = ("--smtp-port", "0", "--http-port", "0")
    module = ("bench", "sandbox", *ports, "--state-dir", str(state_dir), "--settings", str(file))
    async with running_child(name, module, folder, interruption) as process:
        yield PrivateProvider(
            process.address("smtp"),
            process.text("tls"),
            process.text("ca_file"),
            process.text("http"),
            process.text("token_endpoint"),
            state_dir,
            settings,
        )
