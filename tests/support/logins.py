"""`xoauth2-proxy login` with a terminal of the test's: what it says, is told and keeps."""

from __future__ import annotations

import asyncio
import io
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole

from tests.support.identity_server import NATIVE
from tests.support.waiting import until
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.commands import login
from xoauth2_proxy.commands.console import Terminal
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.service.components import open_configured_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

Document = dict[str, object]

HEADLESS = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}
DESKTOP = {"DISPLAY": ":0"}


def provider_entry(provider: IdentityProvider, **changes: object) -> Document:
    """Return an entry of `providers` for the tests' identity provider."""
    return {
        "refresher": "oidc",
        "issuer": provider.issuer,
        "ca_file": str(provider.ca_file),
        "client_id": NATIVE,
        "scopes": "smtp",
        "upstream": {"host": "localhost", "port": 2600, "tls": "none"},
    } | changes


@dataclass
class Login:
    """A state directory with a configuration, and one terminal."""

    directory: Path
    document: Document
    environ: dict[str, str] = field(default_factory=lambda: dict(HEADLESS))
    open_browser: Callable[[str], bool] = lambda url: False
    output: io.StringIO = field(default_factory=io.StringIO)
    errors: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.file = self.directory / "accounts.json"
        self.file.write_text(json.dumps(self.document))
        read, self._keyboard = os.pipe()
        self._input = os.fdopen(read, "r")

    @property
    def source(self) -> ConfigSource:
        return ConfigSource(self.file, Overrides(), self.directory)

    @property
    def said(self) -> str:
        return self.output.getvalue()

    @property
    def complained(self) -> str:
        return self.errors.getvalue()

    async def run(self, mailbox: str, **asked: object) -> int:
        terminal = Terminal(
            RichConsole(file=self.output, width=1000),
            RichConsole(file=self.errors, width=1000),
            input=self._input,
            environ=self.environ,
            open_browser=self.open_browser,
        )
        return await login.run(
            login.LoginOptions(mailbox=mailbox, **asked),  # type: ignore[arg-type]
            self.source,
            terminal,
        )

    def type(self, line: str) -> None:
        os.write(self._keyboard, f"{line}\n".encode())

    async def url_shown(self) -> str:
        """Return the address that the person is told to open."""
        await until(lambda: "\n\n  https://" in self.said)
        return "https://" + self.said.partition("\n\n  https://")[2].partition("\n")[0]

    def config(self) -> Config:
        return self.source.load(BUILT_IN_REFRESHERS, self.environ)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[TokenStore]:
        store = open_configured_store((await asyncio.to_thread(self.config)).store)
        try:
            yield store
        finally:
            await store.close()

    async def grant(self, mailbox: str) -> StoredGrant | None:
        async with self.store() as store:
            return await store.load(mailbox)

    def close(self) -> None:
        os.close(self._keyboard)
        self._input.close()
