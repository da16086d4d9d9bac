"""Who may sign a mailbox in, and what is kept of it; attempts are those of a real provider."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.person import Person
from tests.support.sign_ins import ALICE, BOB, account
from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import (
    GrantRevoked,
    SignInRefused,
    TokenEndpointUnavailable,
    UpstreamAuthRejected,
)
from xoauth2_proxy.oauth.attempt import SignInResult
from xoauth2_proxy.oauth.grant import EpochSeconds, Grant, TokenResponse
from xoauth2_proxy.oauth.refresh import current_grant, issued_to
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher
from xoauth2_proxy.oauth.sign_in import (
    ATTEMPT_SECONDS,
    MAX_ATTEMPTS,
    PendingSignIns,
    revoke,
    save_sign_in,
)
from xoauth2_proxy.oauth.stores import Failure, StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.smtp.protocol import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.identity_server import IdentityProvider

pytest_plugins = ["tests.support.identity"]

REDIRECT = "http://127.0.0.1:4/"
NOW = EpochSeconds(1_800_000_000.0)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def signed_in(identity: str = ALICE, **issued: str | float) -> SignInResult:
    tokens = {"access_token": "access", "refresh_token": "refresh"} | issued
    return SignInResult(
        issued=TokenResponse(**tokens),  # type: ignore[arg-type]
        identity=identity,
        subject="s1",
        is_vouched=bool(identity),
    )


async def test_an_answer_finds_its_attempt_once(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    sign_ins = PendingSignIns(threads)
    alices, bobs = account(identity_provider), account(identity_provider, BOB)
    of_alice = await sign_ins.begin(alices, REDIRECT)
    of_bob = await sign_ins.begin(bobs, REDIRECT)
    async with Person(identity_provider) as alice, Person(identity_provider) as bob:
        answers = [
            query(await bob.sign_in(of_bob.url, BOB)),
            query(await alice.sign_in(of_alice.url, ALICE)),
        ]
    for answer, expected in zip(answers, (bobs, alices), strict=True):
        found, person = await sign_ins.finish(answer)
        assert found is expected
        assert person.identity == expected.email
        with pytest.raises(SignInRefused, match="second time"):
            await sign_ins.finish(answer)
    assert identity_provider.counters().token_requests() == 2
    assert len(sign_ins) == 0


async def test_an_answer_that_comes_late_is_refused(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    clock = Clock()
    sign_ins = PendingSignIns(threads, clock)
    attempt = await sign_ins.begin(account(identity_provider), REDIRECT)
    clock.now += ATTEMPT_SECONDS - 1
    assert len(sign_ins) == 1
    clock.now += 1
    with pytest.raises(SignInRefused):
        await sign_ins.finish({"state": attempt.state, "code": "any"})
    assert identity_provider.counters().token_requests() == 0


@pytest.mark.parametrize("answer", [{}, {"state": ""}, {"state": "x", "code": "y"}])
async def test_an_answer_nobody_asked_for_is_refused(
    threads: ThreadPoolExecutor, answer: dict[str, str]
) -> None:
    with pytest.raises(SignInRefused):
        await PendingSignIns(threads).finish(answer)


async def test_the_oldest_attempt_gives_way(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    sign_ins = PendingSignIns(threads)
    attempts = [
        await sign_ins.begin(account(identity_provider), REDIRECT) for _ in range(MAX_ATTEMPTS + 1)
    ]
    assert len(sign_ins) == MAX_ATTEMPTS
    with pytest.raises(SignInRefused, match="no sign-in waits"):
        await sign_ins.finish({"state": attempts[0].state})
    with pytest.raises(SignInRefused, match="iss is missing"):  # it still waits, for a whole answer
        await sign_ins.finish({"state": attempts[1].state})


async def test_a_sign_in_becomes_the_grant_in_place_of_a_dead_one(
    identity_provider: IdentityProvider,
) -> None:
    store = MemoryStore()
    mine = account(identity_provider, refresh_token="configured")
    dead = Failure(kind="revoked", oauth_error="invalid_grant", text="", at=NOW)
    await store.save(mine.key, StoredGrant(refresh_token="old", failure=dead))
    lasting = signed_in(refresh_token_lifetime_seconds=86_400.0, scope="smtp")
    await save_sign_in(store, mine, lasting, NOW)
    grant = await store.load(mine.key)
    assert grant == StoredGrant(
        issued_to=issued_to(mine),
        descends_from=fingerprint("configured"),
        refresh_token="refresh",
        signed_in_at=NOW,
        refresh_token_expires_at=EpochSeconds(NOW + 86_400),
        access_token="access",
        access_token_expires_at=EpochSeconds(NOW + 3600),
        refreshed_at=NOW,
        scope="smtp",
        subject="s1",
    )
    assert current_grant(mine, grant, NOW) is grant


@pytest.mark.parametrize(
    ("identity", "sign_in_as"), [("Alice@EXAMPLE.com", ""), ("a.smith", "A.Smith"), (ALICE, "x")]
)
async def test_the_mailboxs_owner_may_sign_it_in(
    identity_provider: IdentityProvider, identity: str, sign_in_as: str
) -> None:
    store = MemoryStore()
    mine = account(identity_provider, sign_in_as=sign_in_as)
    await save_sign_in(store, mine, signed_in(identity), NOW)
    assert await store.load(mine.key)


async def test_anybody_else_is_refused_with_both_names(identity_provider: IdentityProvider) -> None:
    store = MemoryStore()
    mine = account(identity_provider, sign_in_as="a.smith")
    with pytest.raises(SignInRefused) as caught:
        await save_sign_in(store, mine, signed_in(BOB), NOW)
    for name in (BOB, ALICE, "a.smith"):
        assert name in str(caught.value)
    assert await store.load(mine.key) is None


async def test_a_person_without_a_name_is_refused_where_nobody_can_vouch(
    identity_provider: IdentityProvider,
) -> None:
    store = MemoryStore()
    with pytest.raises(SignInRefused, match="does not say who"):
        await save_sign_in(store, account(identity_provider), signed_in(""), NOW)
    assert await store.load(ALICE) is None


async def test_a_person_without_a_name_is_known_by_the_mail_server(
    identity_provider: IdentityProvider,
) -> None:
    store, tried = MemoryStore(), list[str]()

    async def takes(access_token: str) -> None:
        tried.append(access_token)

    async def refuses(access_token: str) -> None:
        tried.append(access_token)
        raise UpstreamAuthRejected(Reply(535, "5.7.8", ("Bad credentials",)))

    mine = account(identity_provider)
    with pytest.raises(SignInRefused, match="535"):
        await save_sign_in(store, mine, signed_in(""), NOW, refuses)
    assert await store.load(ALICE) is None
    await save_sign_in(store, mine, signed_in(""), NOW, takes)
    assert await store.load(ALICE)
    assert tried == ["access", "access"]


@pytest.mark.parametrize("other", ["Ke\u212ale@example.com", "\u212aekle@example.com"])
async def test_letters_that_only_become_ascii_are_not_the_mailboxs(
    identity_provider: IdentityProvider, other: str
) -> None:
    assert other.lower() == "kekle@example.com"
    store, mine = MemoryStore(), account(identity_provider, "kekle@example.com")
    with pytest.raises(SignInRefused, match="signed in, but the mailbox is"):
        await save_sign_in(store, mine, signed_in(other), NOW)
    await save_sign_in(store, mine, signed_in("KEKLE@example.COM"), NOW)


async def test_a_name_that_nobody_vouches_for_needs_the_mail_server(
    identity_provider: IdentityProvider,
) -> None:
    store, tried = MemoryStore(), list[str]()

    async def takes(access_token: str) -> None:
        tried.append(access_token)

    async def refuses(access_token: str) -> None:
        raise UpstreamAuthRejected(Reply(535, "5.7.8", ("Bad credentials",)))

    mine = account(identity_provider)
    claimed = replace(signed_in(), is_vouched=False)
    with pytest.raises(SignInRefused, match="does not vouch"):
        await save_sign_in(store, mine, claimed, NOW)
    with pytest.raises(SignInRefused, match="535"):
        await save_sign_in(store, mine, claimed, NOW, refuses)
    with pytest.raises(SignInRefused, match=BOB):
        await save_sign_in(store, mine, replace(claimed, identity=BOB), NOW, takes)
    assert await store.load(ALICE) is None
    assert tried == []
    await save_sign_in(store, mine, claimed, NOW, takes)
    assert await store.load(ALICE)
    assert tried == ["access"]


async def test_a_grant_is_kept_when_it_is_its_turn(identity_provider: IdentityProvider) -> None:
    store, mine = MemoryStore(), account(identity_provider)

    @asynccontextmanager
    async def never() -> AsyncIterator[None]:
        raise SignInRefused("too late")
        yield

    with pytest.raises(SignInRefused, match="too late"):
        await save_sign_in(store, mine, signed_in(), NOW, keep_lock=never())
    assert await store.load(ALICE) is None


async def test_revoking_waits_for_a_thread_only_so_long(
    identity_provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.oauth.sign_in.REVOKE_SECONDS", 0.05)
    store, mine = MemoryStore(), account(identity_provider)
    await save_sign_in(store, mine, signed_in(), NOW)
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        busy.submit(is_over.wait)
        try:
            with pytest.raises(TokenEndpointUnavailable, match="did not revoke the grant"):
                await revoke(store, mine, busy)
            assert await store.load(ALICE)
            async with store.lock(ALICE):
                pass
        finally:
            is_over.set()


async def test_revoking_ends_the_right_at_the_provider_and_here(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    store, sign_ins, mine = MemoryStore(), PendingSignIns(threads), account(identity_provider)
    attempt = await sign_ins.begin(mine, REDIRECT)
    async with Person(identity_provider) as person:
        answer = query(await person.sign_in(attempt.url, ALICE))
    await save_sign_in(store, mine, (await sign_ins.finish(answer))[1], NOW)
    kept = await store.load(mine.key)
    assert kept is not None
    assert await revoke(store, mine, threads)
    assert await store.load(mine.key) is None
    dead = Grant(mailbox=ALICE, client=mine.oauth, refresh_token=kept.refresh_token)
    with pytest.raises(GrantRevoked):
        await OidcRefresher(threads).refresh(dead)


async def test_where_nothing_can_be_revoked_the_grant_is_forgotten_all_the_same(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    store = MemoryStore()
    yahoo = account(identity_provider, issuer="", token_endpoint=identity_provider.token_endpoint)
    await save_sign_in(store, yahoo, signed_in(), NOW)
    assert not await revoke(store, yahoo, threads)
    assert await store.load(yahoo.key) is None


async def test_a_provider_that_is_away_leaves_the_grant(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, unused_tcp_port: int
) -> None:
    store = MemoryStore()
    mine = account(identity_provider, issuer=f"https://127.0.0.1:{unused_tcp_port}")
    await save_sign_in(store, mine, signed_in(), NOW)
    with pytest.raises(TokenEndpointUnavailable):
        await revoke(store, mine, threads)
    assert await store.load(mine.key)
