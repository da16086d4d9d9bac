"""Starts each relay in its own process, with a suitable provider upstream."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bench.client.endpoint import Endpoint
from bench.client.login import ClientLogin, Mechanism
from bench.cost.workloads import MAX_MAILBOXES, RelayName
from bench.process.child_process import running_child
from bench.runs.logins import mock_login
from bench.targets.mailboxes import BenchMailbox
from bench.targets.private_provider import private_provider
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from bench.process.interruption import Interruption
    from bench.targets.private_provider import PrivateProvider

_PASSWORD = "secret"  # noqa: S105 - of mailboxes that live as long as their relay
_MAILBOXES = tuple(
    BenchMailbox(f"mailbox{index:02}@example.com", _PASSWORD) for index in range(MAX_MAILBOXES)
)
_MAX_CLIENTS = 20_000  # of the proxy's listener
_MAX_PROVIDER_CONNECTIONS = 30_000  # opened by splice for its clients
# High enough to avoid opening a connection to the provider in a measured window.
_LIMITS = {"max_connections": 50, "max_messages_per_connection": 1_000_000}


class ProviderKind(NamedTuple):
    """The kind of provider upstream of a relay."""

    tls: str
    withheld: tuple[str, ...]  # EHLO keywords
    rtt_seconds: float

    @classmethod
    def of(cls, name: RelayName, rtt_seconds: float) -> ProviderKind:
        """Return the kind that suits a relay."""
        tls = "none" if name is RelayName.SPLICE else "starttls"
        return cls(tls, ("CHUNKING",) if name is RelayName.PROXY_DATA else (), rtt_seconds)


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A listening relay, and how its clients log in."""

    endpoint: Endpoint
    pid: int
    sandbox_url: str
    metrics_url: str  # "": it has none
    logins: Sequence[ClientLogin]


@asynccontextmanager
async def running_provider(
    kind: ProviderKind, folder: Path, interruption: Interruption
) -> AsyncIterator[PrivateProvider]:
    """Run a sandbox while the context is entered; all sandboxes share the keys in `folder`.

    Raises `ChildError`: it did not start.
    """
    overrides = {
        "tls": kind.tls,
        "withhold": list(kind.withheld),
        "rtt_seconds": kind.rtt_seconds,
        "max_connections": _MAX_PROVIDER_CONNECTIONS,
    }
    name = "-".join(("provider", kind.tls, *kind.withheld, f"{kind.rtt_seconds:g}s"))
    async with private_provider(
        {"overrides": overrides}, folder, folder / "state", interruption, name
    ) as provider:
        yield provider


@asynccontextmanager
async def running_relay(
    name: RelayName, provider: PrivateProvider, folder: Path, interruption: Interruption
) -> AsyncIterator[RunningRelay]:
    """Run a relay while the context is entered.

    Raises `ChildError`: it did not start.
    """
    module = _module(name, provider, folder)
    async with running_child(name.value, module, folder, interruption) as process:
        yield RunningRelay(
            Endpoint(*process.address("smtp")),
            process.pid,
            provider.http_url,
            f"{process.text('admin')}/metrics" if "admin" in process.facts else "",
            _logins(name, provider),
        )


def _module(name: RelayName, provider: PrivateProvider, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    upstream = ["--upstream", "{}:{}".format(*provider.smtp)]
    state = ["--state-dir", str(provider.state_dir)]
    if name is RelayName.SPLICE:
        return ["bench.controls.forwarder", *upstream]
    if name is RelayName.NAIVE:
        passwords = folder / "passwords.json"
        passwords.write_text(json.dumps({one.address: one.password for one in _MAILBOXES}))
        files = ["--ca-file", provider.ca_file, "--passwords", str(passwords)]
        return ["bench.controls.naive", *upstream, *state, *files]
    config = folder / "accounts.json"
    document = provider.configuration(_MAILBOXES, _LIMITS)
    config.write_text(json.dumps(document | {"listener": {"max_connections": _MAX_CLIENTS}}))
    loop = ["--loop", "asyncio" if name is RelayName.PROXY_ASYNCIO else "uvloop"]
    options = ["--port", "0", "--admin-port", "0", "--log-level", "warning", *loop]
    return ["xoauth2_proxy", "--config", str(config), *state, *options]


def _logins(name: RelayName, provider: PrivateProvider) -> list[ClientLogin]:
    if name is not RelayName.SPLICE:
        return [ClientLogin(one.address, Mechanism.PLAIN, lambda: _PASSWORD) for one in _MAILBOXES]
    # Clients of the forwarder talk to the provider itself, which takes tokens.
    tokens = MockTokens(load_signing_key(provider.state_dir))
    return [mock_login(one.address, Mechanism.XOAUTH2, tokens) for one in _MAILBOXES]
