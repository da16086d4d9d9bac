"""The operator's side, put together: what it knows of the accounts in force, and what it does."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from tests.support.config_files import account
from tests.support.token_endpoint import TokenEndpoint
from tests.support.token_mail import mailbox_of, provider_at, school, token_mail, upstream_at_port
from tests.support.waiting import until
from xoauth2_proxy.accounts.accounts import TlsMode, Upstream
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.admin.health import Health
from xoauth2_proxy.clients.record import ClientRecord
from xoauth2_proxy.config import Config, ConfigSource, Overrides
from xoauth2_proxy.errors import (
    ConfigError,
    GrantRevoked,
    UpstreamAuthRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth import expiry_monitor
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.service.admin_backend import AdminBackend, AdminDependencies
from xoauth2_proxy.service.components import StandardComponents
from xoauth2_proxy.upstream.connector import Connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ONE, OTHER = "one@example.com", "other@example.com"


class Processes:
    """The processes that relay, as far as the operator's side sees them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails_with: Exception | None = None

    async def reload(self) -> None:
        self.done.append("reload")
        if self.fails_with is not None:
            raise self.fails_with

    def forget(self, mailbox: str) -> None:
        self.done.append(f"forget {mailbox}")

    async def use_credentials(self, account: str, *_: object) -> None:
        self.done.append(f"credentials of {account}")


class Office:
    """One administration with everything it works with; the admin server is on a free port."""

    def __init__(self, directory: Path, document: dict[str, object]) -> None:
        self._file = directory / "accounts.json"
        self._source = ConfigSource(self._file, Overrides(admin_port=0), directory / "state")
        self.config = self.written(document)
        self.components = StandardComponents(self._source, self.config)
        self.metrics, self.processes = Metrics(), Processes()
        self.tokens = TokenSource(
            self.components.refreshers(self.config), self.metrics, self.components.store
        )
        self.dependencies = AdminDependencies(
            reload=self.processes.reload,
            forget=self.processes.forget,
            use_credentials=self.processes.use_credentials,
            clients=ClientRecord(),
            components=self.components,
            tokens=self.tokens,
            connector=Connector(self.tokens),
            health=Health({"enabled": 1}, is_ready=True),
            metrics=self.metrics,
            shown_metrics=self.metrics,
        )
        self.administration = AdminBackend(self.dependencies, self.config)
        self.url = ""

    def written(self, document: dict[str, object]) -> Config:
        """Write the file, and return what it says."""
        self._file.write_text(json.dumps(document))
        return self._source.load(BUILT_IN_REFRESHERS, {})

    def use(self, document: dict[str, object]) -> None:
        config = self.written(document)
        self.administration.reconfigure(config, config.accounts)
        self.tokens.use(self.components.refreshers(config), config.accounts)

    async def start(self) -> None:
        host, port = await self.administration.start()
        self.url = f"http://{host}:{port}"

    async def ask(self, method: str, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession(self.url, headers={"X-Requested-By": "test"}) as http,
            http.request(method, path) as response,
        ):
            return response.status, await response.text()

    def count(self, state: str, provider: str = "mock") -> float:
        labels = {"provider": provider, "state": state}
        found = self.metrics.registry.get_sample_value("xoauth2_proxy_mailboxes", labels)
        return found or 0.0

    async def close(self) -> None:
        await self.tokens.close()
        await self.administration.stop()
        self.components.close()


@asynccontextmanager
async def office_of(directory: Path, document: dict[str, object]) -> AsyncIterator[Office]:
    made = Office(directory, document)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with office_of(tmp_path, {"accounts": [account(email=ONE)]}) as made:
        yield made


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(rotates=True, detects_reuse=True) as running:
        running.grants("rt-1")
        yield running


# What it knows.


async def test_it_knows_the_accounts_as_they_are_in_force(office: Office) -> None:
    (one,) = office.config.accounts
    sandboxed = replace(one, upstream=Upstream("127.0.0.1", 4242, TlsMode.STARTTLS))
    office.administration.reconfigure(office.config, [sandboxed])
    assert office.administration.relay.accounts == {ONE: sandboxed}


async def test_accounts_that_went_are_known_no_more(office: Office) -> None:
    assert set(office.administration.relay.accounts) == {ONE}
    office.use({"accounts": [account(email=OTHER)]})
    assert set(office.administration.relay.accounts) == {OTHER}


async def test_it_knows_which_accounts_were_added(office: Office) -> None:
    assert office.administration.relay.added == frozenset()
    office.components.added.add(account(email=OTHER))
    office.use({"accounts": [account(email=ONE)]})
    assert office.administration.relay.added == {OTHER}
    assert set(office.administration.relay.accounts) == {ONE, OTHER}


async def test_providers_are_those_of_the_configuration_of_now(office: Office) -> None:
    built_in = {one.name for one in office.administration.relay.providers}
    assert {"gmail", "outlook", "mock"} <= built_in
    entry = provider_at("https://login.example/token", 2600, client_id="the-schools")
    office.use(school(entry, account(email=ONE)))
    (added,) = [one for one in office.administration.relay.providers if one.name not in built_in]
    assert (added.name, added.refresher.name, added.client.client_id) == (
        "school",
        "oidc",
        "the-schools",
    )
    office.use({"accounts": [account(email=ONE)]})
    assert {one.name for one in office.administration.relay.providers} == built_in


async def test_a_further_account_is_checked_beside_those_of_the_file(office: Office) -> None:
    (checked,) = office.administration.relay.check([("", account(email=OTHER))], [])
    assert checked.key == OTHER
    documents = [("[0]", account(email=OTHER)), ("[1]", account(email=ONE, colour="red"))]
    with pytest.raises(ConfigError) as caught:
        office.administration.relay.check(documents, [])
    assert {path for path, _ in caught.value.problems} >= {"[1].colour"}
    assert set(office.administration.relay.accounts) == {ONE}, "a check puts nothing in force"


async def test_a_refresher_that_no_account_uses_can_be_tried(office: Office) -> None:
    assert office.administration.relay.refresher("oidc") is not None
    assert office.administration.relay.refresher("nobody's") is None


# What it does.


async def test_every_renewal_is_a_request_of_its_own(
    tmp_path: Path, endpoint: TokenEndpoint
) -> None:
    document = school(provider_at(endpoint.token_url, 2600), mailbox_of(refresh_token="rt-1"))
    async with office_of(tmp_path, document) as office:
        (one,) = office.config.accounts
        tokens = [(await office.administration.relay.refresh(one)).value for _ in range(3)]
        assert tokens == endpoint.issued
        kept = await office.components.store.load(one.key)
        assert kept is not None
        assert kept.access_token == tokens[-1]
        endpoint.always(None)
        endpoint.revoke("rt-1")
        with pytest.raises(GrantRevoked):
            await office.administration.relay.refresh(one)


async def test_a_token_is_proved_at_the_mail_server(tmp_path: Path) -> None:
    async with token_mail(lambda token: token == "good") as mail:
        document: dict[str, object] = {
            "accounts": [account(email=ONE, upstream=upstream_at_port(mail.port))]
        }
        async with office_of(tmp_path, document) as office:
            (one,) = office.config.accounts
            await office.administration.relay.log_in(one, "good")
            with pytest.raises(UpstreamAuthRejected):
                await office.administration.relay.log_in(one, "bad")
            assert mail.logins == [(ONE, "good"), (ONE, "bad")]
            await until(lambda: mail.open == 0)
        await until(lambda: mail.open == 0)
    with pytest.raises(UpstreamUnavailable):
        await office.administration.relay.log_in(one, "good")


async def test_reloading_and_forgetting_is_the_processes_matter(office: Office) -> None:
    await office.administration.relay.reload()
    office.administration.relay.forget(ONE)
    assert office.processes.done == ["reload", f"forget {ONE}"]
    office.processes.fails_with = ConfigError([("accounts", "is missing")])
    with pytest.raises(ConfigError):
        await office.administration.relay.reload()


# Served, and watched.


async def test_it_serves_the_accounts_in_force_until_it_is_stopped(office: Office) -> None:
    await office.start()
    for mailbox in (ONE, OTHER):
        office.use({"accounts": [account(email=mailbox)]})
        status, text = await office.ask("GET", "/accounts")
        assert status == 200
        assert [one["email"] for one in json.loads(text)["accounts"]] == [mailbox]
    assert (await office.ask("GET", "/health"))[0] == 200
    await office.administration.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await office.ask("GET", "/health")


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError([("accounts[0].colour", "unknown key")]), 400, "accounts[0].colour"),
        (PermissionError(13, "Permission denied"), 500, "Permission denied"),
    ],
)
async def test_who_asks_for_a_reload_that_fails_is_told_why(
    office: Office, error: Exception, status: int, told: str
) -> None:
    await office.start()
    office.processes.fails_with = error
    answer = await office.ask("POST", "/reload")
    assert answer[0] == status
    assert told in answer[1]
    assert (await office.ask("GET", f"/accounts/{ONE}"))[0] == 200


async def test_the_watch_sees_the_accounts_of_now(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_monitor, "CHECK_SECONDS", 0.01)
    await office.start()
    await until(lambda: office.count("mock") == 1)
    office.use({"accounts": [account(email=ONE), account(email=OTHER)]})
    await until(lambda: office.count("mock") == 2)


async def test_the_webhook_is_told_whose_mailbox_needs_a_person(tmp_path: Path) -> None:
    told: list[dict[str, object]] = []

    async def hear(request: web.Request) -> web.Response:
        told.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", hear)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        nobody_yet = {"authorization_url": "https://login.example/authorize"}
        entry = provider_at("http://127.0.0.1:9/token", 2600, **nobody_yet)
        document = school(entry, mailbox_of(ONE))
        async with office_of(tmp_path, document | {"alerts": {"webhook": hook}}) as office:
            await office.start()
            await until(lambda: bool(told))
    finally:
        await runner.cleanup()
    assert [(one["event"], one["mailbox"]) for one in told] == [("needs_a_person", ONE)]


async def test_an_address_in_use_is_told_and_leaves_nothing_running(tmp_path: Path) -> None:
    document: dict[str, object] = {"accounts": [account(email=ONE)]}
    async with office_of(tmp_path, document) as office:
        await office.start()
        taken = int(office.url.rpartition(":")[2])
        config = replace(
            office.config, admin=office.config.admin.model_copy(update={"port": taken})
        )
        other = AdminBackend(office.dependencies, config)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        await other.stop()
        assert (await office.ask("GET", "/health"))[0] == 200
