"""Credentials beside the account's own password: who they let in, from where, and until when."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import argon2
import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.accounts import Account, Accounts, Login
from xoauth2_proxy.accounts.credential import Credential, address_of, end_of
from xoauth2_proxy.accounts.local_password import (
    LocalPassword,
    digest_of_key,
    is_key,
    local_password,
    new_key,
)
from xoauth2_proxy.errors import (
    CredentialDisabled,
    CredentialExpired,
    CredentialNotFromHere,
    CredentialsRejected,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "k2mnp4qrs7tuv9wxyz23"
ONE, OTHER = "one@example.com", "other@example.com"


def copier(**changes: object) -> Credential:
    plain = Credential(name="copier", login="copier", password=LocalPassword(clear_text=KEY))
    return replace(plain, **changes)  # type: ignore[arg-type]


def by_network(name: str, *networks: str, senders: tuple[str, ...] = ()) -> Credential:
    found = tuple(ipaddress.ip_network(one) for one in networks)
    return Credential(name=name, networks=found, senders=senders)


def with_credentials(email: str, *credentials: Credential) -> Account:
    return replace(mailbox(email), credentials=credentials)


@pytest.fixture
async def made() -> AsyncIterator[list[Accounts]]:
    opened: list[Accounts] = []
    yield opened
    for one in opened:
        one.close()


def accounts_of(made: list[Accounts], *accounts: Account) -> Accounts:
    made.append(Accounts(accounts))
    return made[-1]


async def test_a_credential_opens_its_mailbox_and_is_named_by_the_login(
    made: list[Accounts],
) -> None:
    accounts = accounts_of(made, with_credentials(ONE, copier()))
    login = await accounts.authenticate(" COPIER", KEY)
    assert login.account.email == ONE
    assert login.credential == copier()


async def test_the_mailbox_and_its_own_password_stay_a_login(made: list[Accounts]) -> None:
    accounts = accounts_of(made, with_credentials(ONE, copier()))
    login = await accounts.authenticate(ONE, "opens sesame")
    assert login.credential is not None
    assert (login.credential.name, login.credential.login) == (ONE, ONE)


@pytest.mark.parametrize(
    ("login", "password"),
    [(ONE, KEY), ("copier", "opens sesame"), ("copier", ""), ("Copier2", KEY)],
)
async def test_each_login_has_its_own_password(
    made: list[Accounts], login: str, password: str
) -> None:
    accounts = accounts_of(made, with_credentials(ONE, copier()))
    with pytest.raises(CredentialsRejected, match=r"^login unknown or password wrong$"):
        await accounts.authenticate(login, password)


async def test_an_account_with_credentials_only_takes_no_password_at_its_address(
    made: list[Accounts],
) -> None:
    account = replace(with_credentials(ONE, copier()), password=None)
    accounts = accounts_of(made, account)
    for password in ("", "opens sesame", KEY):
        with pytest.raises(CredentialsRejected):
            await accounts.authenticate(ONE, password)
    assert (await accounts.authenticate("copier", KEY)).account is account


@pytest.mark.parametrize(
    ("changes", "peer", "refusal"),
    [
        ({"enabled": False}, "10.0.0.1", CredentialDisabled),
        ({"expires": date(2020, 1, 1)}, "10.0.0.1", CredentialExpired),
        ({"networks": by_network("", "10.0.0.0/8").networks}, "192.0.2.1", CredentialNotFromHere),
        ({"networks": by_network("", "10.0.0.0/8").networks}, "", CredentialNotFromHere),
    ],
)
async def test_a_right_password_of_no_use_is_told_apart_from_a_wrong_one(
    made: list[Accounts],
    changes: dict[str, object],
    peer: str,
    refusal: type[CredentialsRejected],
) -> None:
    accounts = accounts_of(made, with_credentials(ONE, copier(**changes)))
    with pytest.raises(refusal, match="copier"):
        await accounts.authenticate("copier", KEY, peer)
    with pytest.raises(CredentialsRejected, match="password wrong"):
        await accounts.authenticate("copier", "wrong", peer)


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::7", "fd00::7%eth0"])
async def test_networks_admit_an_address_however_it_is_written(
    made: list[Accounts], peer: str
) -> None:
    networks = by_network("", "10.0.0.0/8", "fd00::/8").networks
    accounts = accounts_of(made, with_credentials(ONE, copier(networks=networks)))
    assert (await accounts.authenticate("copier", KEY, peer)).account.email == ONE


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        ("10.1.2.3", ["host"]),
        ("::ffff:10.1.2.3", ["host"]),
        ("10.1.2.4", ["floor", "other floor"]),
        ("10.9.9.9", ["house"]),
        ("fd00::1", ["house"]),
        ("192.0.2.1", []),
        ("", []),
        ("localhost", []),
    ],
)
async def test_the_most_specific_network_tells_who_sends_without_a_password(
    made: list[Accounts], peer: str, names: list[str]
) -> None:
    accounts = accounts_of(
        made,
        with_credentials(ONE, by_network("house", "10.0.0.0/8", "fd00::/8"), copier()),
        with_credentials(OTHER, by_network("floor", "10.1.2.0/24"), by_network("host", "10.1.2.3")),
        with_credentials("third@example.com", by_network("other floor", "10.1.2.0/24")),
    )
    assert [one.name for _, one in accounts.without_password(peer)] == names


async def test_nobody_sends_without_a_password_unless_it_is_configured(
    made: list[Accounts],
) -> None:
    networks = by_network("", "10.0.0.0/8").networks
    disabled = replace(by_network("disabled", "10.0.0.0/8"), enabled=False)
    expired = replace(by_network("expired", "10.0.0.0/8"), expires=date(2020, 1, 1))
    keyed = copier(networks=networks)
    accounts = accounts_of(made, with_credentials(ONE, disabled, expired, keyed))
    assert accounts.without_password("10.0.0.1") == []


@pytest.mark.parametrize("text", ["10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"])
def test_addresses_are_read(text: str) -> None:
    assert address_of(text) == ipaddress.ip_address(text.partition("%")[0].replace("::ffff:", ""))


def test_a_day_ends_at_its_end_in_utc() -> None:
    midnight = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    assert end_of(date(2027, 1, 31)) == midnight
    credential = copier(expires=date(2027, 1, 31))
    assert not credential.is_expired(midnight - 1)
    assert credential.is_expired(midnight)


def test_a_key_has_99_bits_and_no_characters_that_look_alike() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert {len(one) for one in keys} == {20}
    assert set("".join(keys)) == set("abcdefghjkmnpqrstuvwxyz23456789")


def test_a_kept_key_tells_its_form_and_not_the_key() -> None:
    kept, again = digest_of_key(KEY), digest_of_key(KEY)
    assert kept.startswith("$sha256$")
    assert kept != again  # salted
    assert KEY not in kept
    assert local_password(kept) == LocalPassword(key_digest=kept)
    assert is_key(KEY, kept)
    assert not is_key(KEY[:-1], kept)
    assert not is_key(KEY + "2", kept)
    assert not is_key("", kept)


@pytest.mark.parametrize("change", [slice(0, -1), slice(0, 9), slice(0, 30)])
def test_a_broken_digest_is_refused(change: slice) -> None:
    with pytest.raises(ValueError, match="not a whole one"):
        local_password(digest_of_key(KEY)[change])


async def test_a_generated_key_logs_in_without_a_hash(made: list[Accounts]) -> None:
    kept = LocalPassword(key_digest=digest_of_key(KEY))
    accounts = accounts_of(made, with_credentials(ONE, copier(password=kept)))
    assert await accounts.authenticate("copier", KEY) == Login(
        with_credentials(ONE, copier(password=kept)), copier(password=kept)
    )
    with pytest.raises(CredentialsRejected):
        await accounts.authenticate("copier", kept.key_digest)


# Sessions that outlive a change.


def current(account: Account, former: Credential) -> Credential | None:
    return account.credential_of(former)


def test_a_session_goes_on_while_its_credential_is_proved_as_before() -> None:
    account = with_credentials(ONE, copier(senders=("a@x",)), copier(name="fax", login="fax"))
    assert current(account, copier()) == copier(senders=("a@x",))
    renamed = replace(account, email="One@Example.com")
    assert current(renamed, account.own_credential) == renamed.own_credential


@pytest.mark.parametrize(
    "changes",
    [
        {"password": LocalPassword(clear_text="another")},
        {"login": "copier-2"},
        {"networks": by_network("", "10.0.0.0/8").networks},
        {"enabled": False},
        {"expires": date(2020, 1, 1)},
        {"name": "another"},
    ],
)
def test_it_ends_when_the_credential_must_be_proved_anew(changes: dict[str, object]) -> None:
    assert current(with_credentials(ONE, copier(**changes)), copier()) is None


def test_it_ends_when_the_mailbox_takes_no_password_of_its_own_any_more() -> None:
    anyone = replace(mailbox(ONE), password=None, allow_any_password=True)
    assert current(anyone, anyone.own_credential) == anyone.own_credential
    closed = replace(anyone, allow_any_password=False)
    assert current(closed, anyone.own_credential) is None


async def test_forty_credentials_cost_no_more_hashes_than_one(
    made: list[Accounts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    hashed = LocalPassword(argon2_hash=cheap.hash(KEY))
    many = [copier(name=f"d{n}", login=f"d{n}", password=hashed) for n in range(40)]
    accounts = accounts_of(made, with_credentials(ONE, *many))
    asked = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        asked.append(stored)
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    for _ in range(3):
        assert (await accounts.authenticate("d39", KEY)).credential == many[39]
    assert len(asked) == 1


async def test_the_credentials_of_one_account_are_replaced_without_the_others(
    made: list[Accounts],
) -> None:
    accounts = accounts_of(made, with_credentials(ONE, copier()), with_credentials(OTHER))
    fax = copier(name="fax", login="fax")
    hall = by_network("hall", "10.0.0.0/8")
    other = accounts.find(OTHER)
    await accounts.use_credentials(ONE, [fax, hall])
    assert accounts.find(OTHER) is other
    assert (await accounts.authenticate("fax", KEY)).credential == fax
    with pytest.raises(CredentialsRejected):
        await accounts.authenticate("copier", KEY)
    assert [one for _, one in accounts.without_password("10.0.0.1")] == [hall]
    await accounts.use_credentials(ONE, [])
    assert accounts.without_password("10.0.0.1") == []
    assert (await accounts.authenticate(ONE, "opens sesame")).account.credentials == ()
    await accounts.use_credentials("nobody@example.com", [fax])
    assert len(accounts) == 2
