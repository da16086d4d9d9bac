"""Which login and password open which account, and that a refusal tells nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import argon2
import pytest

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.accounts import Account, Accounts, Limits, TlsMode, Upstream
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.accounts.local_password import LocalPassword
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import CredentialsRejected

if TYPE_CHECKING:
    from collections.abc import Iterator

_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
CLEAR = LocalPassword(clear_text="opens sesame")
HASHED = LocalPassword(argon2_hash=_HASHER.hash("hashed sesame"))


def account(email: str, password: LocalPassword | None) -> Account:
    return Account(
        email=email,
        provider="mock",
        refresher="mock",
        upstream=Upstream("localhost", 2600, TlsMode.STARTTLS, Path("ca.pem")),
        limits=Limits(
            max_connections=1,
            max_messages_per_connection=1,
            max_connection_age_seconds=1.0,
            idle_seconds=1.0,
            wait_seconds=1.0,
        ),
        password=password,
        allow_any_password=password is None,
    )


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    opened = Accounts(
        [
            account("Clear@Example.com", CLEAR),
            account("hashed@example.com", HASHED),
            account("anyone@example.com", None),
        ]
    )
    yield opened
    opened.close()


@pytest.fixture
def only_clear() -> Iterator[Accounts]:
    opened = Accounts([account("clear@example.com", CLEAR)])
    yield opened
    opened.close()


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that argon2 was asked about."""
    asked: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        asked.append(password.decode())
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    return asked


async def opens(accounts: Accounts, login: str, password: str) -> bool:
    try:
        await accounts.authenticate(login, password)
    except CredentialsRejected:
        return False
    return True


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("clear@example.com", "opens sesame"),
        ("hashed@example.com", "hashed sesame"),
        ("anyone@example.com", ""),
        ("anyone@example.com", "anything"),
    ],
)
async def test_right_password_opens_the_account(
    accounts: Accounts, login: str, password: str
) -> None:
    assert (await accounts.authenticate(login, password)).account.key == login


@pytest.mark.parametrize("login", ["CLEAR@EXAMPLE.COM", "clear@example.com", " Clear@example.com"])
async def test_login_in_any_letter_case(accounts: Accounts, login: str) -> None:
    found = (await accounts.authenticate(login, "opens sesame")).account
    assert found.email == "Clear@Example.com"
    assert accounts.find(login) is found


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("clear@example.com", "hashed sesame"),
        ("clear@example.com", "Opens Sesame"),
        ("clear@example.com", "opens sesame "),
        ("clear@example.com", ""),
        ("hashed@example.com", "opens sesame"),
        ("hashed@example.com", ""),
        pytest.param("hashed@example.com", HASHED.argon2_hash, id="its-hash"),
        ("unknown@example.com", "opens sesame"),
        ("unknown@example.com", ""),
        ("", ""),
    ],
)
async def test_anything_else_is_refused_in_the_same_words(
    accounts: Accounts, login: str, password: str
) -> None:
    with pytest.raises(CredentialsRejected, match=r"^login unknown or password wrong$"):
        await accounts.authenticate(login, password)


async def test_password_that_is_not_utf_8_is_refused_like_any_other(accounts: Accounts) -> None:
    # "surrogateescape" is how octets that are not UTF-8 reach us from AUTH.
    assert not await opens(accounts, "clear@example.com", "\udcff")


def test_decoy_is_as_costly_as_the_accounts_own_hashes(accounts: Accounts) -> None:
    decoy = argon2.extract_parameters(accounts.verifier.decoy_hash)
    assert decoy == argon2.extract_parameters(HASHED.argon2_hash)


async def test_empty_password_opens_nothing_without_hashes(only_clear: Accounts) -> None:
    assert not await opens(only_clear, "unknown@example.com", "")
    assert not await opens(only_clear, "clear@example.com", "")
    assert await opens(only_clear, "clear@example.com", "opens sesame")


@pytest.mark.parametrize("login", ["unknown@example.com", "hashed@example.com"])
async def test_refusal_costs_one_hash_whether_the_login_exists(
    accounts: Accounts, verifications: list[str], login: str
) -> None:
    assert not await opens(accounts, login, "wrong")
    assert verifications == ["wrong"]


async def test_wrong_password_of_a_clear_text_account_costs_a_hash_too(
    accounts: Accounts, verifications: list[str]
) -> None:
    assert not await opens(accounts, "clear@example.com", "wrong")
    assert verifications == ["wrong"]


async def test_unknown_login_costs_no_hash_where_nobody_has_one(
    only_clear: Accounts, verifications: list[str]
) -> None:
    for login in ("unknown@example.com", "clear@example.com"):
        assert not await opens(only_clear, login, "wrong")
    assert verifications == []


async def test_only_the_first_login_pays_for_the_hash(
    accounts: Accounts, verifications: list[str]
) -> None:
    for _ in range(3):
        assert await opens(accounts, "hashed@example.com", "hashed sesame")
    assert verifications == ["hashed sesame"]


async def test_wrong_password_is_refused_after_a_right_one(
    accounts: Accounts, verifications: list[str]
) -> None:
    assert await opens(accounts, "hashed@example.com", "hashed sesame")
    assert not await opens(accounts, "hashed@example.com", "wrong")
    assert await opens(accounts, "hashed@example.com", "hashed sesame")
    assert verifications == ["hashed sesame", "wrong"]


async def test_right_password_is_remembered_for_its_own_account_only(
    verifications: list[str],
) -> None:
    both = Accounts([account("hashed@example.com", HASHED), account("clear@example.com", CLEAR)])
    assert await opens(both, "hashed@example.com", "hashed sesame")
    assert not await opens(both, "clear@example.com", "hashed sesame")
    assert not await opens(both, "unknown@example.com", "hashed sesame")
    assert len(verifications) == 3
    both.close()


async def test_hashing_does_not_hold_the_event_loop(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    turned = asyncio.Event()

    def slow(*_: object) -> bool:
        # Returns only if the loop turns meanwhile.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=PATIENCE_SECONDS)
        loop.call_soon_threadsafe(turned.set)
        return True

    monkeypatch.setattr(argon2.PasswordHasher, "verify", slow)
    assert await opens(accounts, "hashed@example.com", "whatever")
    await turned.wait()


def test_finds_nothing_for_an_unknown_login(accounts: Accounts) -> None:
    assert accounts.find("unknown@example.com") is None


def test_holds_each_account_once(accounts: Accounts) -> None:
    assert len(accounts) == 3
    assert [a.key for a in accounts] == [
        "clear@example.com",
        "hashed@example.com",
        "anyone@example.com",
    ]


def test_key_is_the_login_in_lower_case() -> None:
    assert login_key(" Someone@Example.COM\n") == "someone@example.com"


def test_no_secret_in_a_repr() -> None:
    oauth = OAuthClient(client_id="me", client_secret="PLANTED", refresh_token="PLANTED")
    for value in (LocalPassword("PLANTED", "PLANTED"), oauth):
        assert "PLANTED" not in repr(value)
