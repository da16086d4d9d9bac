"""Starts each relay under test in a process of its own, in front of the provider that suits it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from bench.cost.plan import MAX_MAILBOXES, PASSWORD, RelayName, mailbox
from bench.cost.provider import Flavour, Provider
from bench.process.child_process import running_child
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from bench.process.interruption import Interruption

_MAX_CLIENTS = 20_000  # of the proxy's listener
_MAX_CONNECTIONS = 50  # to the provider, per mailbox
_MAX_MESSAGES = 1_000_000  # per connection: none is opened in a measured window


@dataclass(frozen=True, slots=True)
class Relay:
    """A running relay."""

    name: RelayName
    address: tuple[str, int]
    pid: int
    provider: Provider
    metrics_url: str  # "": it has none
    token_for: Callable[[str], str] | None  # None: its clients log in with a password


def flavour_for(name: RelayName, rtt_seconds: float) -> Flavour:
    """Return the provider a relay is put in front of."""
    return Flavour(
        has_tls=name is not RelayName.SPLICE,
        has_chunking=name is not RelayName.PROXY_DATA,
        rtt_seconds=rtt_seconds,
    )


@asynccontextmanager
async def relay(
    name: RelayName, provider: Provider, folder: Path, interruption: Interruption
) -> AsyncIterator[Relay]:
    """Run a relay for as long as the context is entered.

    Raises:
        ChildError: it did not start.
    """
    module = _module(name, provider, folder)
    async with running_child(name.value, module, folder, interruption) as process:
        token_for = None
        if name is RelayName.SPLICE:
            token_for = MockTokens(load_signing_key(provider.state_dir)).mint
        yield Relay(
            name,
            process.address("smtp"),
            process.pid,
            provider,
            f"{process.text('admin')}/metrics" if name.is_proxy else "",
            token_for,
        )


def _module(name: RelayName, provider: Provider, folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    host, port = provider.smtp
    upstream = ["--upstream", f"{host}:{port}"]
    match name:
        case RelayName.SPLICE:
            return ["bench.controls.forwarder", *upstream]
        case RelayName.NAIVE:
            passwords = folder / "passwords.json"
            passwords.write_text(json.dumps(dict.fromkeys(_mailboxes(), PASSWORD)))
            files = ["--ca-file", provider.ca_file, "--state-dir", str(provider.state_dir)]
            return ["bench.controls.naive", *upstream, *files, "--passwords", str(passwords)]
        case RelayName.PROXY | RelayName.PROXY_DATA:
            config = folder / "accounts.json"
            config.write_text(json.dumps(_config(provider)))
            ports = ["--port", "0", "--admin-port", "0", "--log-level", "warning"]
            files = ["--config", str(config), "--state-dir", str(provider.state_dir)]
            return ["xoauth2_proxy", *files, *ports]
        case _:
            assert_never(name)


def _config(provider: Provider) -> dict[str, object]:
    host, port = provider.smtp
    upstream = {"host": host, "port": port, "tls": "starttls", "ca_file": provider.ca_file}
    limits = {
        "max_connections": _MAX_CONNECTIONS,
        "max_messages_per_connection": _MAX_MESSAGES,
    }
    return {
        "listener": {"max_connections": _MAX_CLIENTS},
        "providers": {"mock": {"upstream": upstream, "limits": limits}},
        "accounts": [
            {"email": name, "provider": "mock", "password": PASSWORD} for name in _mailboxes()
        ],
    }


def _mailboxes() -> list[str]:
    return [mailbox(index) for index in range(MAX_MAILBOXES)]
