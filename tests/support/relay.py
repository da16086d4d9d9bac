"""A whole relay in the test's own process, with every address chosen by the system."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

import aiohttp

from tests.support.components import TestComponents
from tests.support.sandbox import Sandbox
from tests.support.smtp_client import Client
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, RefresherInfo
from xoauth2_proxy.config import Config, ConfigSource, Overrides
from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.service.app import App

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.submission.session import ClientSession

MAILBOX = "test.account1@gmail.com"
OTHER_MAILBOX = "test.account1@outlook.com"
PASSWORD = "secret"


def relay_settings(
    document: dict[str, object] | None,
    directory: Path,
    sandbox: Sandbox | None,
    refreshers: Mapping[str, Refresher] | None,
) -> tuple[Config, TestComponents, Sandbox]:
    """Return what `Relay` takes, from a configuration file's content (None: `--sandbox` alone)."""
    file = None
    if document is not None:
        file = directory / "accounts.json"
        file.write_text(json.dumps(document))
    chosen = refreshers or {"mock": MockRefresher(MockTokens(load_signing_key(directory)))}

    port = None if "listeners" in (document or {}) else 0  # several have their own
    source = ConfigSource(file, Overrides(sandbox=True, port=port, admin_port=0), directory)
    others = chosen.keys() - BUILT_IN_REFRESHERS.keys()
    known = BUILT_IN_REFRESHERS | {name: RefresherInfo(name=name) for name in others}
    config = source.load(known, {})
    return config, TestComponents(source, config, chosen), sandbox or Sandbox(directory)


class Relay:
    """A running relay; its sandbox is at hand for faults and for what arrived."""

    def __init__(self, config: Config, components: TestComponents, sandbox: Sandbox) -> None:
        self.app = App(config, components, sandbox)
        self.components = components
        self.sandbox = sandbox
        self.host = ""
        self.port = 0
        self.admin_url = ""
        self.addresses: dict[str, tuple[tuple[str, int], ...]] = {}  # of each listener

    async def __aenter__(self) -> Self:
        addresses = await self.app.start()
        self.host, self.port = addresses.smtp
        self.addresses = {one.name: one.addresses for one in addresses.listeners}
        self.admin_url = f"http://{addresses.admin[0]}:{addresses.admin[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.app.stop(drain_seconds=0.5)

    def sessions(self) -> list[ClientSession]:
        """Return the sessions of the clients that are connected."""
        return [session for one in self.app._listeners for session in one._sessions]

    async def connect(self) -> Client:
        """Return a client that has read the greeting."""
        return await Client.connect(self.host, self.port)

    async def log_in(self, login: str = MAILBOX, password: str = PASSWORD) -> Client:
        """Return a client that is logged in with AUTH PLAIN."""
        client = await self.connect()
        await client.ehlo()
        answer = await client.auth_plain(login, password)
        assert answer.code == 235, str(answer)
        return client

    async def metric(self, name: str, **labels: str) -> float:
        """Return a sample from `/metrics`, 0.0 when it is not there."""
        wanted = set(labels.items())
        total = 0.0
        for line in (await self.get("/metrics"))[1].splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            pairs = {tuple(pair.split("=", 1)) for pair in rest.rstrip("}").split(",") if pair}
            if found == name and wanted <= {(key, text.strip('"')) for key, text in pairs}:
                total += float(value)
        return total

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status and body of an admin page."""
        async with (
            aiohttp.ClientSession(self.admin_url, headers=headers) as http,
            http.get(path) as response,
        ):
            return response.status, await response.text()
