"""What guessers and devices meet when they log in: refusals, delays, hashes, invented tokens."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import argon2
import pytest

from tests.support.parts import parts
from tests.support.refreshers import ScriptedRefresher
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import encoded
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.accounts.local_password import LocalPassword
from xoauth2_proxy.accounts.password_verifier import PasswordVerifier, Turn
from xoauth2_proxy.errors import (
    CredentialsRejected,
    GuessingSlowed,
    Overloaded,
    UpstreamAuthRejected,
)
from xoauth2_proxy.smtp.sasl import PasswordLogin, TokenLogin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

LOGIN, SECRET = "someone@example.com", "opens sesame"
HOME, AWAY = "192.0.2.1", "198.51.100.7"
FOREIGN = "ya29." + "x" * 40


async def test_guesses_beyond_the_limit_are_not_looked_at_and_the_device_gets_in(
    tmp_path: Path,
) -> None:
    async with parts(tmp_path, max_failed_logins=3) as made:
        log_in = made.authenticator.authenticate
        await log_in(PasswordLogin(LOGIN, SECRET), HOME)
        for number in range(3):
            made.authenticator.guessing.failed(AWAY, LOGIN, str(number))
        with pytest.raises(GuessingSlowed):
            await log_in(PasswordLogin(LOGIN, "a guess"), AWAY)
        with pytest.raises(GuessingSlowed):  # or the reply would tell when a guess is right
            await log_in(PasswordLogin(LOGIN, SECRET), AWAY)
        login = await log_in(PasswordLogin(LOGIN, SECRET), HOME)
        assert login.account is made.account


async def test_a_refusal_is_delayed_alike_for_known_and_unknown_logins(tmp_path: Path) -> None:
    async with parts(tmp_path, max_failed_logins=60) as made:
        for login in (LOGIN, "nobody@example.com"):
            for number in range(20):  # a third of the limit: from here on, refusals are delayed
                made.authenticator.guessing.failed(f"10.0.0.{number}", login, "a guess")
        waited = []
        for login in (LOGIN, "nobody@example.com"):
            began = time.monotonic()
            with pytest.raises(CredentialsRejected):
                await made.authenticator.authenticate(PasswordLogin(login, "wrong"), AWAY)
            waited.append(time.monotonic() - began)
        assert min(waited) > 0.15  # one fortieth of 8 s


async def test_an_old_password_of_a_usual_device_burdens_nobody_else(tmp_path: Path) -> None:
    async with parts(tmp_path, max_failed_logins=3) as made:
        guessing = made.authenticator.guessing
        guessing.succeeded(HOME, LOGIN)
        for number in range(9):
            guessing.failed(HOME, LOGIN, str(number))
        assert guessing.must_wait(HOME, LOGIN)
        assert not guessing.must_wait(HOME, "other@example.com")


# Tokens.


@pytest.fixture
def unjudged() -> ScriptedRefresher:
    """A refresher that leaves it to the provider to judge tokens."""
    return ScriptedRefresher()


async def test_invented_tokens_are_throttled_before_the_provider_locks_the_mailbox(
    tmp_path: Path, unjudged: ScriptedRefresher
) -> None:
    async with parts(tmp_path, unjudged, max_failed_logins=100) as made:
        asked = 0
        for number in range(50):
            with pytest.raises((UpstreamAuthRejected, GuessingSlowed)) as caught:
                await made.authenticator.authenticate(TokenLogin(LOGIN, f"{FOREIGN}{number}"), AWAY)
            if caught.type is GuessingSlowed:
                break
            asked += 1
            if asked == 11:  # a third of the limit at the weight of 3: no delays until here
                for more in range(67):
                    made.authenticator.guessing.failed(AWAY, LOGIN, f"another {more}")
        assert asked == made.sandbox.counters.auth_refused == 11


async def test_a_mailbox_may_refuse_clients_tokens_and_the_provider_is_not_asked(
    tmp_path: Path, unjudged: ScriptedRefresher
) -> None:
    async with parts(tmp_path, unjudged) as made:
        await made.accounts.replace([replace(made.account, client_tokens=False)])
        good = made.sandbox.tokens.mint(LOGIN)
        for token in (FOREIGN, good):
            with pytest.raises(CredentialsRejected):
                await made.authenticator.authenticate(TokenLogin(LOGIN, token), AWAY)
        assert made.sandbox.counters.connections_opened == 0
        # Its own password in the place of a token still is one.
        await made.authenticator.authenticate(TokenLogin(LOGIN, SECRET), AWAY)


async def test_an_unknown_mailbox_takes_as_long_as_the_provider_to_be_refused(
    tmp_path: Path, unjudged: ScriptedRefresher
) -> None:
    async with parts(tmp_path, unjudged) as made:
        with pytest.raises(UpstreamAuthRejected):
            await made.authenticator.authenticate(TokenLogin(LOGIN, FOREIGN), AWAY)
        took = made.authenticator._refusal_seconds
        assert took > 0
        began = time.monotonic()
        with pytest.raises(CredentialsRejected):
            await made.authenticator.authenticate(TokenLogin("nobody@example.com", FOREIGN), AWAY)
        assert time.monotonic() - began >= took * 0.9


async def test_a_session_with_a_clients_token_ends_when_its_mailbox_takes_none_any_more(
    tmp_path: Path,
) -> None:
    async with parts(tmp_path) as made:
        token = TokenLogin(LOGIN, made.sandbox.tokens.mint(LOGIN))
        login = await made.authenticator.authenticate(token, HOME)
        assert made.authenticator.current_login(login) is login
        await made.accounts.replace([replace(made.account, client_tokens=False)])
        assert made.authenticator.current_login(login) is None


# Hashes.


class Hasher:
    """Argon2 held back: who is being hashed, and until when."""

    def __init__(self) -> None:
        self.under_way: list[str] = []
        self.may_end = threading.Event()


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hasher]:
    made = Hasher()

    def held(self: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        made.under_way.append(password.decode())
        assert made.may_end.wait(PATIENCE_SECONDS)
        raise argon2.exceptions.VerifyMismatchError

    monkeypatch.setattr(argon2.PasswordHasher, "verify", held)
    yield made
    made.may_end.set()


@pytest.fixture
def verifier() -> Iterator[PasswordVerifier]:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    made = PasswordVerifier({"a": LocalPassword(argon2_hash=cheap.hash("right"))})
    yield made
    made.close()


async def test_one_hash_of_an_address_is_made_at_a_time(
    verifier: PasswordVerifier, hasher: Hasher
) -> None:
    trying = [
        asyncio.create_task(verifier.is_right("a", f"guess {number}", Turn(HOME)))
        for number in range(5)
    ]
    await until(lambda: len(hasher.under_way) == 1)
    other = asyncio.create_task(verifier.is_right("a", "from elsewhere", Turn(AWAY)))
    await until(lambda: len(hasher.under_way) == 2)
    assert hasher.under_way == ["guess 0", "from elsewhere"]
    hasher.may_end.set()
    assert await asyncio.gather(*trying, other) == [False] * 6
    assert verifier._turns == {}


async def test_suspects_wait_for_each_other_and_nobody_waits_for_them(
    verifier: PasswordVerifier, hasher: Hasher
) -> None:
    suspects = [
        asyncio.create_task(
            verifier.is_right("a", f"guess {n}", Turn(f"10.0.0.{n}", is_suspect=True))
        )
        for n in range(20)
    ]
    await until(lambda: hasher.under_way == ["guess 0"])
    device = asyncio.create_task(verifier.is_right("a", "the device", Turn(HOME)))
    await until(lambda: hasher.under_way == ["guess 0", "the device"])
    hasher.may_end.set()
    await asyncio.gather(*suspects, device)


async def test_suspects_in_line_do_not_take_the_places_of_others(
    verifier: PasswordVerifier, hasher: Hasher
) -> None:
    suspects = [
        asyncio.create_task(
            verifier.is_right("a", f"guess {n}", Turn(f"10.0.{n}.1", is_suspect=True))
        )
        for n in range(1000)
    ]
    await until(lambda: hasher.under_way == ["guess 0"])
    device = asyncio.create_task(verifier.is_right("a", "the device", Turn(HOME)))
    await until(lambda: device.done() or "the device" in hasher.under_way)
    hasher.may_end.set()
    assert await device is False
    ends = await asyncio.gather(*suspects, return_exceptions=True)
    assert any(isinstance(one, Overloaded) for one in ends)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
async def test_hashes_of_suspects_leave_the_processor_to_everybody_else(
    verifier: PasswordVerifier, hasher: Hasher
) -> None:
    hasher.may_end.set()
    await verifier.is_right("a", "guess", Turn(AWAY, is_suspect=True))
    await verifier.is_right("a", "the device", Turn(HOME))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found = {
        thread.name.rpartition("_")[0]: os.getpriority(os.PRIO_PROCESS, thread.native_id) - own
        for thread in threading.enumerate()
        if thread.native_id is not None
    }
    assert (found["argon2-suspect"], found["argon2"]) == (min(10, 19 - own), 0)


@pytest.mark.parametrize("login", [LOGIN, "nobody@example.com", "with-a-key"])
async def test_a_short_text_in_the_place_of_a_token_costs_every_login_one_hash(
    tmp_path: Path, hasher: Hasher, login: str
) -> None:
    hasher.may_end.set()
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    key = Credential(name="k", login="with-a-key", password=LocalPassword(clear_text=SECRET))
    async with parts(tmp_path) as made:
        hashed = LocalPassword(argon2_hash=cheap)
        await made.accounts.replace([replace(made.account, password=hashed, credentials=(key,))])
        with pytest.raises(CredentialsRejected):
            await made.authenticator.authenticate(TokenLogin(login, "a guess"), AWAY)
    assert hasher.under_way == ["a guess"]


async def test_who_has_gone_is_not_hashed(verifier: PasswordVerifier, hasher: Hasher) -> None:
    first, gone = (
        asyncio.create_task(verifier.is_right("a", guess, Turn(HOME))) for guess in ("one", "two")
    )
    await until(lambda: hasher.under_way == ["one"])
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    hasher.may_end.set()
    await first
    assert hasher.under_way == ["one"]
    assert (verifier._turns, verifier._hashing) == ({}, {False: 0, True: 0})


async def test_what_others_of_the_address_have_failed_meanwhile_counts(
    verifier: PasswordVerifier, hasher: Hasher
) -> None:
    failed = 0

    def check() -> None:
        if failed:
            raise GuessingSlowed

    first, second = (
        asyncio.create_task(verifier.is_right("a", guess, Turn(HOME, check)))
        for guess in ("one", "two")
    )
    await until(lambda: hasher.under_way == ["one"])
    failed = 1
    hasher.may_end.set()
    assert not await first
    with pytest.raises(GuessingSlowed):
        await second
    assert hasher.under_way == ["one"]


# As clients see it.


def exhaust(relay: Relay, login: str) -> None:
    for number in range(60):
        relay.app._authenticator.guessing.failed("127.0.0.1", login, str(number))


async def test_a_slowed_guesser_is_told_421_at_auth_and_nothing_else_is_wrong(
    relay: Relay,
) -> None:
    exhaust(relay, "somebody")
    async with await relay.connect() as client:
        await client.ehlo()
        assert await client.auth_plain(MAILBOX, "a guess") == replies.GUESSING_SLOWED
        assert await client.closed()
    assert await relay.metric("xoauth2_proxy_auth_attempts_total", result="slowed") == 1


async def test_a_device_that_has_logged_in_before_goes_on(relay: Relay) -> None:
    async with await relay.log_in():
        pass
    exhaust(relay, "somebody")
    async with await relay.log_in():
        pass
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain("somebody", "a guess")).code == 421


async def test_the_limit_may_be_lifted(start_relay: StartRelay) -> None:
    account = {"email": MAILBOX, "provider": "mock", "password": PASSWORD}
    relay = await start_relay({"accounts": [account], "relay": {"max_failed_logins": 0}})
    for _ in range(8):
        async with await relay.connect() as client:
            await client.ehlo()
            for number in range(5):
                answer = await client.auth_plain(MAILBOX, f"wrong {number}")
                assert answer.code == (535 if number < 5 else 421)
    async with await relay.log_in():
        pass


async def test_a_password_that_was_just_refused_is_not_tried_as_a_token(
    start_relay: StartRelay, unjudged: ScriptedRefresher
) -> None:
    account = {"email": MAILBOX, "provider": "mock", "password": PASSWORD}
    relay = await start_relay({"accounts": [account]}, refreshers={"mock": unjudged})
    mistyped = "a-mistyped-password-that-looks-like-a-token"
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, mistyped)).code == 535
        response = encoded(f"user={MAILBOX}\x01auth=Bearer {mistyped}\x01\x01")
        assert (await client.command(f"AUTH XOAUTH2 {response}")).code == 334
        assert (await client.command("")).code == 535
    assert relay.sandbox.counters.auth_refused == 0
