"""What a configuration calls for; a reload that cannot have it changes nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import argon2
import pytest

from tests.support.config_files import account
from tests.support.documents import one_account
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD, relay_settings
from tests.support.smtp_client import Client, message
from tests.support.token_endpoint import TokenEndpoint
from tests.support.token_mail import mailbox_of, provider_at, school, token_mail
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import Config, ConfigSource, Overrides, needs_restart
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.oauth.refreshers.command import CommandRefresher
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.file import FileStore
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.service.app import App, in_force
from xoauth2_proxy.service.components import StandardComponents, open_configured_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

GMAIL = {"client_id": "me", "refresh_token": "rt"}
KEY = "correct-horse-battery-staple"


class Office:
    """A state directory, and the configuration that an operator writes beside it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "accounts.json"
        self.state_dir = directory / "state"
        self.source = ConfigSource(self.file, Overrides(), self.state_dir)
        self._opened: list[StandardComponents] = []

    def config(self, *accounts: dict[str, object], **sections: object) -> Config:
        self.file.write_text(json.dumps({"accounts": [*accounts], **sections}))
        return self.source.load(BUILT_IN_REFRESHERS, {})

    def components(self, config: Config) -> StandardComponents:
        self._opened.append(StandardComponents(self.source, config))
        return self._opened[-1]

    def spoil_the_signing_key(self) -> None:
        spoil_the_signing_key(self.state_dir)

    async def close(self) -> None:
        for one in self._opened:
            one.close()
            await one.store.close()


def proposed(**changes: object) -> Any:
    """An account as it comes over the network: any JSON."""
    return account(**changes)


def spoil_the_signing_key(state_dir: Path) -> None:
    directory = state_dir / "sandbox"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "signing-key").write_bytes(b"short")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    yield made
    await made.close()


# Refreshers.


async def test_only_what_accounts_use_is_built_and_once(office: Office) -> None:
    config = office.config(account(), account(email="b@gmail.com", provider="gmail", **GMAIL))
    components = office.components(config)
    built = components.refreshers(config)
    assert set(built) == {"mock", "gmail"}
    fewer = components.refreshers(office.config(account()))
    assert fewer == {"mock": built["mock"]}
    assert components.refreshers(config) == built


async def test_a_refresher_can_be_had_before_an_account_uses_it(office: Office) -> None:
    components = office.components(office.config(account()))
    oidc = components.refresher("oidc")
    assert oidc is not None
    assert components.refresher("oidc") is oidc
    assert components.refresher("nobody's") is None


async def test_a_spoilt_signing_key_is_a_file_that_cannot_be_used(office: Office) -> None:
    office.spoil_the_signing_key()
    config = office.config(account())
    components = office.components(config)
    for ask in (lambda: components.refreshers(config), lambda: components.refresher("mock")):
        with pytest.raises(OSError, match="too short to be a signing key") as caught:
            ask()
        assert caught.value.strerror == str(caught.value)
    assert components.refresher("oidc") is not None


# The configuration, read again.


async def test_the_file_is_read_as_it_is_now(office: Office) -> None:
    components = office.components(office.config(account()))
    office.config(account(), account(email="b@example.com"))
    assert [one.email for one in components.load().accounts] == [
        "someone@example.com",
        "b@example.com",
    ]
    office.file.write_text("{")
    with pytest.raises(ConfigError):
        components.load()


async def test_added_accounts_are_read_beside_it(office: Office) -> None:
    components = office.components(office.config(account()))
    components.added.add(account(email="added@example.com"))
    loaded = components.load()
    assert loaded.runtime_accounts == {"added@example.com"}
    assert len(loaded.accounts) == 2


async def test_a_further_account_is_judged_beside_those_of_now(office: Office) -> None:
    components = office.components(office.config(account()))
    (checked,) = components.check([("", proposed(email="new@example.com"))], [])
    assert checked.key == "new@example.com"
    office.config(account(), account(email="new@example.com"))
    with pytest.raises(ConfigError) as caught:
        components.check([("[3]", proposed(email="NEW@example.com"))], [])
    assert [path for path, _ in caught.value.problems] == ["[3].email"]


async def test_an_added_account_may_be_checked_against_all_but_itself(office: Office) -> None:
    components = office.components(office.config(account()))
    components.added.add(account(email="added@example.com"))
    again = proposed(email="added@example.com", recipients="verified")
    with pytest.raises(ConfigError):
        components.check([("", again)], [])
    (checked,) = components.check([("", again)], {"added@example.com"})
    assert checked.verifies


def test_what_is_read_once_stays_as_it_was(tmp_path: Path) -> None:
    office = Office(tmp_path)
    old = office.config(account())
    sections = {
        "listener": {"idle_seconds": 7},
        "admin": {"port": 9999},
        "relay": {"drain_seconds": 3},
        "store": {"kind": "memory"},
        "alerts": {"warn_days": 3},
    }
    new = office.config(account(email="b@example.com"), **sections)
    assert len(needs_restart(old, new)) == len(sections)
    mixed = in_force(old, new)
    assert needs_restart(old, mixed) == []
    assert mixed.accounts == new.accounts
    read_once = ("listeners", "admin", "relay", "store", "alerts")
    assert replace(new, **{name: getattr(old, name) for name in read_once}) == mixed


# Stores.


async def test_grants_are_kept_where_the_configuration_says(office: Office) -> None:
    store = {"directory": str(office.file.parent / "kept"), "key": KEY}
    components = office.components(office.config(account(), store=store))
    grant = StoredGrant(issued_to="", descends_from="", refresh_token="secret-rt", signed_in_at=0.0)  # type: ignore[arg-type]
    await components.store.save("a@example.com", grant)
    components.added.add(account(email="added@example.com"))
    kept = [*(office.file.parent / "kept").glob("*.json"), *office.state_dir.rglob("*.json")]
    assert len(kept) == 2
    for one in kept:
        assert b"secret-rt" not in one.read_bytes()
        assert b"added@example.com" not in one.read_bytes()


async def test_each_kind_of_store_is_opened(office: Office) -> None:
    memory = open_configured_store(office.config(account(), store={"kind": "memory"}).store)
    file = open_configured_store(office.config(account()).store)
    assert (type(memory), type(file)) == (MemoryStore, FileStore)
    await file.close()


async def test_closed_equipment_does_no_more_work(office: Office) -> None:
    config = office.config(account(email="b@gmail.com", provider="gmail", **GMAIL))
    components = office.components(config)
    threads = components._registry._threads
    components.close()
    with pytest.raises(RuntimeError):
        threads.submit(print)


# A relay that reads its configuration again.


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as running:
        running.grants("rt-1")
        yield running


def rewrite(directory: Path, document: dict[str, object]) -> None:
    (directory / "accounts.json").write_text(json.dumps(document))


async def code_for(relay: Relay, login: str) -> int:
    async with await relay.connect() as client:
        await client.ehlo()
        return (await client.auth_plain(login, PASSWORD)).code


@pytest.mark.parametrize("trouble", ["file", "refresher"])
async def test_a_reload_that_fails_leaves_everything_as_it_was(
    start_relay: StartRelay, tmp_path: Path, endpoint: TokenEndpoint, trouble: str
) -> None:
    async with token_mail() as mail:
        provider = provider_at(endpoint.token_url, mail.port)
        before = school(provider, mailbox_of(refresh_token="rt-1"))
        # "mock" is not there until an account uses it.
        relay = await start_relay(before, refreshers={"none": CommandRefresher()})
        mock = {"email": OTHER_MAILBOX, "provider": "mock", "password": PASSWORD}
        after: dict[str, object] = {"accounts": [mock]}
        async with await relay.log_in() as client:
            assert (await client.send(message())).code == 250
            if trouble == "file":
                rewrite(tmp_path, after | {"colour": "red"})
                with pytest.raises(ConfigError):
                    await relay.app.reload()
            else:
                key = (tmp_path / "sandbox" / "signing-key").read_bytes()
                spoil_the_signing_key(tmp_path)
                rewrite(tmp_path, after)
                with pytest.raises(OSError, match="too short to be a signing key"):
                    await relay.app.reload()
                (tmp_path / "sandbox" / "signing-key").write_bytes(key)
            assert relay.app.health.accounts == {"enabled": 1, "disabled": 0}
            assert (await client.send(message())).code == 250
        assert mail.open == 1, "the pool has let go of a connection"
        assert (await code_for(relay, MAILBOX), await code_for(relay, OTHER_MAILBOX)) == (235, 535)
        listed = json.loads((await relay.get("/accounts"))[1])
        assert [one["email"] for one in listed["accounts"]] == [MAILBOX]
        assert len(endpoint.token_requests) == 1
        rewrite(tmp_path, after)
        await relay.app.reload()
        assert (await code_for(relay, MAILBOX), await code_for(relay, OTHER_MAILBOX)) == (535, 235)


async def test_what_needs_a_restart_is_told_until_there_was_one(
    start_relay: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await start_relay(one_account())
    rewrite(tmp_path, one_account() | {"alerts": {"warn_days": 3}})
    for times in (1, 2):
        await relay.app.reload()
        assert caplog.text.count("alerts.warn_days has changed") == times


async def test_what_a_parent_hands_on_during_the_start_is_what_counts(tmp_path: Path) -> None:
    """The start hashes a decoy, which takes a while; what is handed on does not."""
    hashed = argon2.PasswordHasher().hash(PASSWORD)
    old, components, _ = relay_settings(one_account(password=hashed), tmp_path, None, None)
    rewrite(tmp_path, one_account(email=OTHER_MAILBOX))
    new = components.load()
    app = App(old, components)
    starting = asyncio.create_task(app.start())
    await asyncio.sleep(0)
    await app.apply(new)
    host, port = (await starting).smtp
    try:
        async with await Client.connect(host, port) as client:
            await client.ehlo()
            assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 535
            assert (await client.auth_plain(OTHER_MAILBOX, PASSWORD)).code == 235
    finally:
        await app.stop(0.1)
