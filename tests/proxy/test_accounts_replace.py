"""Accounts that take the place of others while clients log in."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import argon2
import pytest

from tests.support.accounts import mailbox
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.accounts import Account, Accounts
from xoauth2_proxy.accounts.local_password import LocalPassword
from xoauth2_proxy.errors import CredentialsRejected

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD, NEW = "the old one", "the new one"
_CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_DEARER = argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
ONE, OTHER = "one@example.com", "other@example.com"


def hashed(
    email: str, password: str = OLD, hasher: argon2.PasswordHasher = _CHEAP, **changes: str
) -> Account:
    local = LocalPassword(argon2_hash=hasher.hash(password))
    return replace(mailbox(email), password=local, **changes)  # type: ignore[arg-type]


class Verifier:
    """Argon2 as the accounts use it: counted, and held back while a test likes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> Iterator[Verifier]:
    made = Verifier()
    verify = argon2.PasswordHasher.verify

    def watched(self: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        made.asked.append(password.decode())
        made.is_asked.set()
        assert made.may_answer.wait(PATIENCE_SECONDS)
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", watched)
    yield made
    made.may_answer.set()


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    opened = Accounts([hashed(ONE), hashed(OTHER)])
    yield opened
    opened.close()


async def opens(accounts: Accounts, login: str, password: str = OLD) -> bool:
    try:
        await accounts.authenticate(login, password)
    except CredentialsRejected:
        return False
    return True


async def test_accounts_come_and_go(accounts: Accounts) -> None:
    third = hashed("Third@example.com")
    await accounts.replace([third])
    assert [one.email for one in accounts] == ["Third@example.com"]
    assert accounts.find("third@EXAMPLE.com") is third
    assert await opens(accounts, "third@example.com")
    assert not await opens(accounts, ONE)


async def test_a_login_gets_the_account_of_now(accounts: Accounts) -> None:
    one = accounts.find(ONE)
    assert one is not None
    await accounts.replace([replace(one, provider="another")])
    assert (await accounts.authenticate(ONE, OLD)).account.provider == "another"


async def test_passwords_that_did_not_change_stay_verified(
    accounts: Accounts, verifier: Verifier
) -> None:
    assert await opens(accounts, ONE)
    assert await opens(accounts, OTHER)
    one, other = accounts
    await accounts.replace([replace(one, provider="another"), other])
    assert await opens(accounts, ONE)
    assert await opens(accounts, OTHER)
    assert verifier.asked == [OLD, OLD]


async def test_a_password_that_changed_is_verified_anew(
    accounts: Accounts, verifier: Verifier
) -> None:
    assert await opens(accounts, ONE)
    await accounts.replace([hashed(ONE, NEW)])
    assert not await opens(accounts, ONE)
    assert await opens(accounts, ONE, NEW)
    assert verifier.asked == [OLD, OLD, NEW]


async def test_the_same_password_hashed_anew_is_verified_anew(
    accounts: Accounts, verifier: Verifier
) -> None:
    assert await opens(accounts, ONE)
    await accounts.replace([hashed(ONE)])
    assert await opens(accounts, ONE)
    assert verifier.asked == [OLD, OLD]


async def test_an_account_that_comes_back_is_verified_anew(
    accounts: Accounts, verifier: Verifier
) -> None:
    one, other = accounts
    assert await opens(accounts, ONE)
    await accounts.replace([other])
    await accounts.replace([one, other])
    assert await opens(accounts, ONE)
    assert verifier.asked == [OLD, OLD]


async def test_a_verification_under_way_counts_for_the_password_it_was_begun_with(
    accounts: Accounts, verifier: Verifier
) -> None:
    verifier.may_answer.clear()
    login = asyncio.create_task(opens(accounts, ONE))
    await asyncio.to_thread(verifier.is_asked.wait, 5)
    await accounts.replace([hashed(ONE, NEW)])
    verifier.may_answer.set()
    assert await login  # it was right when it was asked
    assert not await opens(accounts, ONE)
    assert await opens(accounts, ONE, NEW)


async def test_a_verification_under_way_of_an_account_that_went_opens_nothing_later(
    accounts: Accounts, verifier: Verifier
) -> None:
    verifier.may_answer.clear()
    login = asyncio.create_task(opens(accounts, ONE))
    await asyncio.to_thread(verifier.is_asked.wait, 5)
    one, other = accounts
    await accounts.replace([other])
    verifier.may_answer.set()
    await login
    assert not await opens(accounts, ONE)
    await accounts.replace([one, other])
    assert await opens(accounts, ONE)
    assert verifier.asked == [OLD, OLD, OLD]  # the first one was not remembered


async def test_clear_text_and_no_password_take_each_others_place(accounts: Accounts) -> None:
    clear = replace(mailbox(ONE), password=LocalPassword(clear_text=NEW))
    await accounts.replace([clear])
    assert await opens(accounts, ONE, NEW)
    assert not await opens(accounts, ONE)
    await accounts.replace([replace(clear, password=None, allow_any_password=True)])
    assert await opens(accounts, ONE, "anything")
    await accounts.replace([clear])
    assert not await opens(accounts, ONE, "anything")


async def test_unknown_logins_cost_as_much_as_the_costliest_hash_of_now(
    accounts: Accounts,
) -> None:
    await accounts.replace([hashed(ONE), hashed(OTHER, hasher=_DEARER)])
    dearer = argon2.extract_parameters(_DEARER.hash(""))
    assert argon2.extract_parameters(accounts.verifier.decoy_hash) == dearer
    await accounts.replace([hashed(ONE)])
    cheap = argon2.extract_parameters(_CHEAP.hash(""))
    assert argon2.extract_parameters(accounts.verifier.decoy_hash) == cheap


async def test_unknown_logins_cost_nothing_once_nobody_has_a_hash(
    accounts: Accounts, verifier: Verifier
) -> None:
    await accounts.replace([mailbox(ONE)])
    assert not await opens(accounts, "unknown@example.com")
    assert verifier.asked == []


async def test_a_decoy_that_will_do_is_not_made_again(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> str:
        raise AssertionError("hashed")

    one, other = accounts
    monkeypatch.setattr(argon2.PasswordHasher, "hash", refuses)
    await accounts.replace([one])
    await accounts.replace([one, other])
    with pytest.raises(AssertionError, match="hashed"):
        await accounts.replace([mailbox(ONE), _with_dear_hash(other)])
    assert [account.email for account in accounts] == [ONE, OTHER]


def _with_dear_hash(account: Account) -> Account:
    dear = "$argon2id$v=19$m=16,t=2,p=1$c29tZXNhbHQ$KjT2iJ/kV1cDbWQmPT5vQw"
    return replace(account, password=LocalPassword(argon2_hash=dear))
