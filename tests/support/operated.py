"""The operator's side of a relay without its listener: configuration, store, tokens, admin server.

What the application does with its mail connections is left out; the rest is the real thing.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argon2

from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.admin.health import Health
from xoauth2_proxy.admin.listener import AdminListener
from xoauth2_proxy.admin.server import AdminServer
from xoauth2_proxy.config import Config, ConfigSource, Overrides
from xoauth2_proxy.config.credential_loader import check_credential
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.mailboxes.interface import ProviderInfo, RelayControl
from xoauth2_proxy.mailboxes.operations import Mailboxes
from xoauth2_proxy.mailboxes.runtime_accounts import accounts_directory, open_runtime_accounts
from xoauth2_proxy.mailboxes.runtime_credentials import open_runtime_credentials
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.service.app import with_credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore

FROM_FILE = "written@example.com"
# A hash that costs next to nothing: posted in clear, each password would be hashed for real.
PASSWORD = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("opens sesame")
REFRESHERS = frozenset({"gmail", "outlook", "oidc", "command", "mock"})


def gmail(email: str, **more: object) -> dict[str, Any]:
    """A Gmail account with everything it needs to get tokens."""
    return {
        "email": email,
        "provider": "gmail",
        "password": PASSWORD,
        "client_id": "a-client",
        "client_secret": "a-client-secret",
        "refresh_token": f"refresh-of-{email}",
        **more,
    }


def usual_document() -> dict[str, Any]:
    """A configuration with one mailbox."""
    return {"accounts": [gmail(FROM_FILE)]}


@dataclass
class Answers:
    """A refresher whose answers a test writes, by mailbox; tokens unless told otherwise."""

    by_mailbox: dict[str, Exception] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # mailbox, refresh token
    held: dict[str, asyncio.Event] = field(default_factory=dict)  # by mailbox: its answer waits
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    most_at_once: int = 0
    _at_once: int = 0

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def refresh(self, grant: Grant) -> TokenResponse:
        self.asked.append((grant.mailbox, grant.refresh_token))
        self.is_asked.set()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.may_answer.wait()
            if grant.mailbox in self.held:
                await self.held[grant.mailbox].wait()
            await asyncio.sleep(0)
        finally:
            self._at_once -= 1
        if (error := self.by_mailbox.get(grant.mailbox)) is not None:
            raise error
        number = len(self.asked)
        return TokenResponse(access_token=f"access-{number}", refresh_token=f"rotated-{number}")


class Operated:
    """A relay that runs, as far as its operator is concerned."""

    def __init__(
        self,
        directory: Path,
        document: dict[str, Any],
        refreshers: Mapping[str, Refresher],
        store: TokenStore | None = None,
        *,
        has_token: bool = False,
    ) -> None:
        self.file = directory / "accounts.json"
        self.write(document)
        self.answers = Answers()
        self.metrics = Metrics()
        self.store = store or MemoryStore()
        self.forgotten: list[str] = []
        self.proved: list[tuple[str, str]] = []
        self._refreshers = {"gmail": self.answers, "mock": self.answers, **refreshers}
        self._source = ConfigSource(self.file, Overrides(), directory / "state")
        self.config = self._load()
        self.kept = open_runtime_accounts(directory / "state", self.config.store.cipher())
        self.credential_files = open_runtime_credentials(
            directory / "state", self.config.store.cipher()
        )
        self.tokens = TokenSource(self._refreshers, self.metrics, self.store)
        self._threads = ThreadPoolExecutor(4)
        self.later_seconds = 0.0  # by how much the operator's clock is put forward
        self.control = RelayControl(
            accounts={},
            added=(),
            providers=self._providers(),
            all_refreshers=lambda: [*BUILT_IN_REFRESHERS.values()],
            account_files=self.kept,
            credential_files=self.credential_files,
            made=(),
            has_token=has_token,
            check_credential=lambda document, account: check_credential(
                document, account, self.accounts, self.control.disabled
            ),
            use_credentials=self.use_credentials,
            store=self.store,
            metrics=self.metrics,
            threads=self._threads,
            warn_days=14,
            check=self._check,
            refresher=self._refreshers.get,
            serves_tokens=self.config.admin.serves_tokens,
            refresh=self.tokens.refresh,
            token_for=self.tokens.token_for,
            log_in=self.log_in,
            reload=self.reload,
            forget=self.forget,
        )
        self._use(self.config)
        self.mailboxes = Mailboxes(
            self.control, clock=lambda: time.monotonic() + self.later_seconds
        )

    def write(self, document: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(document))

    async def close(self) -> None:
        await self.mailboxes.close()
        await self.tokens.close()
        self._threads.shutdown(wait=False)

    @property
    def accounts(self) -> Mapping[str, Account]:
        return self.control.accounts

    @property
    def added(self) -> Collection[str]:
        return self.control.added

    def _use(self, config: Config) -> None:
        self.config = config
        self.control.accounts = {account.key: account for account in config.accounts}
        self.control.disabled = config.disabled
        self.control.added = config.runtime_accounts
        self.control.made = config.runtime_credentials
        self.control.providers = self._providers()

    def _providers(self) -> Sequence[ProviderInfo]:
        clients = {
            "gmail": OAuthClient(client_id="a-client", scopes=("https://mail.google.com/",)),
            "outlook": OAuthClient(),
            "mock": OAuthClient(),
        }
        described = json.loads(self.file.read_text()).get("providers", {})
        for name, entry in described.items():
            clients[name] = OAuthClient(
                client_id=entry.get("client_id", ""), issuer=entry.get("issuer", "")
            )
        return [
            ProviderInfo(
                name, BUILT_IN_REFRESHERS[described.get(name, {}).get("refresher", name)], client
            )
            for name, client in clients.items()
        ]

    def _check(
        self, documents: Sequence[tuple[str, dict[str, Any]]], replaced: Collection[str]
    ) -> list[Account]:
        with tempfile.TemporaryDirectory() as state:
            source = ConfigSource(self.file, Overrides(), Path(state))
            beside = open_runtime_accounts(Path(state), self.config.store.cipher())
            if accounts_directory(self._source.state_dir).exists():
                shutil.copytree(
                    accounts_directory(self._source.state_dir), accounts_directory(Path(state))
                )
            for key in replaced:
                beside.remove(key)
            problems: list[tuple[str, str]] = []
            found: list[Account] = []
            for path, document in documents:
                try:
                    found.append(source.check_account(document, BUILT_IN_REFRESHERS, {}))
                    beside.add(document)
                except ConfigError as error:
                    problems += [
                        (".".join(filter(None, (path, where))), text)
                        for where, text in error.problems
                    ]
            if problems:
                raise ConfigError(problems)
            return found

    async def log_in(self, account: Account, access_token: str) -> None:
        self.proved.append((account.key, access_token))

    async def reload(self) -> None:
        self._use(await asyncio.to_thread(self._load))
        self.tokens.use(self._refreshers, self.config.accounts)

    async def use_credentials(
        self, account: str, credentials: Sequence[Credential], made: Collection[str]
    ) -> None:
        self._use(with_credentials(self.config, account, credentials, made))

    def forget(self, mailbox: str) -> None:
        self.forgotten.append(mailbox)
        self.tokens.forget(mailbox)

    def _load(self) -> Config:
        return self._source.load(BUILT_IN_REFRESHERS, {})


@asynccontextmanager
async def operated(
    directory: Path,
    document: dict[str, Any] | None = None,
    refreshers: Mapping[str, Refresher] | None = None,
    store: TokenStore | None = None,
    *,
    has_token: bool = False,
) -> AsyncIterator[Operated]:
    """Run the operator's side of a relay."""
    relay = Operated(
        directory, document or usual_document(), refreshers or {}, store, has_token=has_token
    )
    try:
        yield relay
    finally:
        await relay.close()


@asynccontextmanager
async def administered(
    directory: Path,
    document: dict[str, Any] | None = None,
    *,
    token: str = "",
    public_url: str = "",
    refreshers: Mapping[str, Refresher] | None = None,
) -> AsyncIterator[tuple[Operated, str]]:
    """Run it with its admin server; the second is the server's URL."""
    async with operated(directory, document, refreshers, has_token=bool(token)) as relay:
        health = Health({"enabled": 1}, is_ready=True)
        listener = AdminListener(
            lambda: AdminServer(health, relay.metrics, token, relay.mailboxes, public_url)
        )
        try:
            _, port = await listener.start("127.0.0.1", 0)
            yield relay, f"http://127.0.0.1:{port}"
        finally:
            await listener.stop()
