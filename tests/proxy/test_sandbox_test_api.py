"""Minting and explaining tokens, and faults at run time: on a test bench, never in the proxy."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox
from tests.support.waiting import until
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp


ROUTES = (
    ("POST", "/test/tokens"),
    ("POST", "/test/tokens/batch"),
    ("POST", "/test/tokens/explain"),
    ("POST", "/test/tokens/revoke"),
    ("POST", "/test/faults"),
    ("DELETE", "/test/faults"),
)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path) as sandbox:
        yield sandbox


async def post(http: aiohttp.ClientSession, path: str, body: object) -> tuple[int, dict[str, Any]]:
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def mint(http: aiohttp.ClientSession, **wanted: object) -> dict[str, Any]:
    status, body = await post(http, "/test/tokens", {"mailbox": MAILBOX, **wanted})
    assert status == 201, body
    return body


async def opens(sandbox: Sandbox, token: str, mailbox: str = MAILBOX) -> bool:
    async with RawSmtp(sandbox) as client:
        await client.begin()
        return (await client.authenticate(mailbox, token)).startswith("235 ")


# Tokens.


async def test_a_token_is_minted_for_any_mailbox(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    body = await mint(http, mailbox="New.One@Example.org", ttl_seconds=60)
    assert body["mailbox"] == "new.one@example.org"
    assert body["expires_at"] == pytest.approx(time.time() + 60, abs=5)
    assert await opens(sandbox, body["token"], "new.one@example.org")


@pytest.mark.parametrize("kind", ["expired", "tampered", "wrong-mailbox", "revoked"])
async def test_bad_tokens_are_refused(
    sandbox: Sandbox, http: aiohttp.ClientSession, kind: str
) -> None:
    assert not await opens(sandbox, (await mint(http, kind=kind))["token"])


async def test_a_batch_is_minted_at_once(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    wanted = [f"bench_user{number:03d}@example.com" for number in range(1000)]
    status, body = await post(http, "/test/tokens/batch", {"mailboxes": wanted})
    assert status == 201
    assert [one["mailbox"] for one in body["tokens"]] == wanted
    assert len({one["token"] for one in body["tokens"]}) == 1000
    assert await opens(sandbox, body["tokens"][7]["token"], wanted[7])


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/test/tokens", {}, "mailbox: "),
        ("/test/tokens", {"mailbox": "nobody"}, "mailbox: "),
        ("/test/tokens", {"mailbox": MAILBOX, "kind": "good"}, "kind: "),
        ("/test/tokens", {"mailbox": MAILBOX, "ttl": 1}, "ttl: "),
        ("/test/tokens", [], "object"),
        ("/test/tokens/batch", {"mailboxes": []}, "mailboxes: "),
        ("/test/tokens/batch", {"mailboxes": [MAILBOX] * 1001}, "mailboxes: "),
        ("/test/tokens/explain", {}, "token: "),
        ("/test/faults", {"step": "end"}, "action: "),
        ("/test/faults", {"step": "mail", "action": "reply"}, "the action reply needs a text"),
    ],
)
async def test_a_wrong_request_is_told_why(
    http: aiohttp.ClientSession, path: str, body: object, told: str
) -> None:
    status, answer = await post(http, path, body)
    assert status == 400
    assert told in answer["error"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 10**5, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_a_body_that_is_no_json_is_refused(
    http: aiohttp.ClientSession, body: bytes, kind: str, status: int
) -> None:
    async with http.post("/test/tokens", data=body, headers={"Content-Type": kind}) as response:
        assert response.status == status


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_web_pages_may_use_none_of_it(
    http: aiohttp.ClientSession, method: str, path: str
) -> None:
    for headers in ({"Origin": "http://example.com"}, {"Origin": "null"}, {"Host": "example.com"}):
        async with http.request(method, path, json={}, headers=headers) as response:
            assert response.status == 403


# What is in a token.


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("valid", ""), ("expired", "expired"), ("tampered", "signature"), ("revoked", "revoked")],
)
async def test_a_token_is_explained(http: aiohttp.ClientSession, kind: str, reason: str) -> None:
    token = (await mint(http, kind=kind, ttl_seconds=60))["token"]
    status, told = await post(http, "/test/tokens/explain", {"token": token})
    assert status == 200
    assert (told["is_mock_token"], told["is_valid"]) == (True, not reason)
    assert told["reason"] == reason
    assert told["mailbox"] == told["claims"]["sub"] == MAILBOX
    assert (told["seconds_left"] > 0) == (kind != "expired")
    assert token not in json.dumps(told)


@pytest.mark.parametrize(
    "token",
    [
        "ya29.a0AfH6SMBx-real",
        "eyJ",
        "eyJ.eyJ.x",
        jwt.encode({"iss": "https://sts.windows.net/1", "upn": "alice"}, "k" * 32, "HS256"),
    ],
)
async def test_nothing_is_told_of_other_tokens(http: aiohttp.ClientSession, token: str) -> None:
    _, told = await post(http, "/test/tokens/explain", {"token": token})
    assert told == {"is_mock_token": False, "is_valid": False, "reason": "not a mock token"}


async def test_claims_beyond_all_bounds_are_a_forgery_like_any_other(
    http: aiohttp.ClientSession,
) -> None:
    prefix, _, rest = (await mint(http))["token"].partition("eyJ")
    claims = jwt.decode(f"eyJ{rest}", options={"verify_signature": False})
    forged = prefix + jwt.encode(claims | {"exp": 10**400}, "k" * 32, "HS256")
    status, told = await post(http, "/test/tokens/explain", {"token": forged})
    assert (status, told["reason"], told["seconds_left"]) == (200, "signature", None)


async def test_a_token_of_another_sandbox_is_told_apart(http: aiohttp.ClientSession) -> None:
    token = MockTokens(b"x" * 32).mint(MAILBOX)
    _, told = await post(http, "/test/tokens/explain", {"token": token})
    assert (told["is_mock_token"], told["reason"]) == (True, "signature")


async def test_one_token_or_all_can_be_revoked(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    one, other = (await mint(http))["token"], (await mint(http))["token"]
    assert await post(http, "/test/tokens/revoke", {"token": one}) == (200, {})
    assert [await opens(sandbox, token) for token in (one, other)] == [False, True]
    await post(http, "/test/tokens/revoke", {})
    assert not await opens(sandbox, other)
    assert await opens(sandbox, (await mint(http))["token"])


async def test_a_revocation_that_cannot_be_kept_is_refused(
    sandbox: Sandbox, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.sandbox.tokens.token_verifier.MAX_REVOKED", 1)
    first, second = (await mint(http, kind="revoked"))["token"], (await mint(http))["token"]
    attempts: list[tuple[str, dict[str, object]]] = [
        ("/test/tokens/revoke", {"token": second}),
        ("/test/tokens", {"mailbox": MAILBOX, "kind": "revoked"}),
        ("/test/tokens/batch", {"mailboxes": [MAILBOX], "kind": "revoked"}),
    ]
    for path, body in attempts:
        status, told = await post(http, path, body)
        assert status == 409
        assert "1 tokens are revoked that have not expired" in told["error"]
    assert (await post(http, "/test/faults", {"step": "token", "action": "revoked"}))[0] == 201
    form = {"grant_type": "refresh_token", "refresh_token": f"mock-refresh-token:{MAILBOX}"}
    async with http.post("/oauth/token", data=form) as response:
        assert response.status == 500
        assert (await response.json())["error"] == "server_error"
    assert [await opens(sandbox, token) for token in (first, second)] == [False, True]


# Faults.


async def test_faults_come_and_go_at_run_time(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        fault = {"step": "mail", "action": "reply", "text": "451 4.3.0 no", "nth": None}
        assert (await post(http, "/test/faults", fault))[0] == 201
        assert await client.command("MAIL FROM:<a@b>") == "451 4.3.0 no\r\n"
        async with http.delete("/test/faults") as response:
            assert response.status == 200
        assert (await client.command("MAIL FROM:<a@b>")).startswith("250 ")
    async with http.get("/stats") as response:
        assert (await response.json())["faults_met"] == {"mail:reply": 1}


async def test_faults_of_the_token_endpoint_come_the_same_way(
    http: aiohttp.ClientSession,
) -> None:
    assert (await post(http, "/test/faults", {"step": "token", "action": "500"}))[0] == 201
    async with http.post("/oauth/token", data={"grant_type": "refresh_token"}) as response:
        assert response.status == 500


async def test_there_are_only_so_many_faults(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    fault = {"step": "mail", "action": "drop"}
    for _ in range(1000):
        assert (await post(http, "/test/faults", fault))[0] == 201
    status, told = await post(http, "/test/faults", fault)
    assert status == 400
    assert "at most 1000" in told["error"]


# Peaks.


async def test_peaks_can_begin_anew(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        async with RawSmtp(sandbox) as other:
            await other.log_in(MOCK_MAILBOXES[1])
        async with RawSmtp(sandbox) as other:
            await other.log_in()
        await until(lambda: sandbox.counters.connections_open == 1)
        async with http.get("/stats") as response:
            told = await response.json()
        assert (told["connections_peak"], told["peak_connections_per_mailbox"]) == (2, 2)
        async with http.delete("/stats/peaks") as response:
            assert response.status == 200
        async with http.get("/stats") as response:
            told = await response.json()
        assert (told["connections_peak"], told["peak_connections_per_mailbox"]) == (1, 1)
        assert told["peak_by_mailbox"] == {MAILBOX: 1}
