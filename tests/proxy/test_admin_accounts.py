"""The accounts over HTTP, as programs use them."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.support.operated import FROM_FILE, Operated, administered, gmail
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenStoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NEW = "new@example.com"
OTHER = "other@example.com"
DEAD = GrantRevoked("expired or revoked", oauth_error="invalid_grant")
GONE = TokenEndpointUnavailable("no answer in time")
SECRETS = ("a-client-secret", "refresh-of", "rotated-", "access-", "sesame", "argon2")


@dataclass
class Api:
    """A program with nothing to hide."""

    relay: Operated
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, document: object = None, **options: Any
    ) -> tuple[int, dict[str, Any]]:
        if document is not None:
            options["json"] = document
        async with self.http.request(method, path, **options) as response:
            text = await response.text()
            assert response.content_type == "application/json", text
            return response.status, json.loads(text)


@asynccontextmanager
async def api_of(directory: Path, document: dict[str, Any] | None = None) -> AsyncIterator[Api]:
    headers = {"X-Requested-By": "a program"}
    async with (
        administered(directory, document) as (relay, url),
        aiohttp.ClientSession(url, headers=headers) as http,
    ):
        yield Api(relay, http)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_of(tmp_path) as one:
        yield one


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


# Looking.


async def test_the_list_tells_how_mailboxes_stand_and_no_secret(api: Api) -> None:
    await api.ask("POST", "/accounts", gmail(NEW))
    status, body = await api.ask("GET", "/accounts")
    assert (status, body["success"], body["total_accounts"]) == (200, True, 2)
    new, written = body["accounts"]
    assert (new["email"], new["source"], new["state"]) == (NEW, "added", "ok")
    assert (written["email"], written["source"], written["state"]) == (FROM_FILE, "file", "unused")
    assert new["last_success"].endswith("Z")
    assert written["last_success"] is None
    assert not [secret for secret in SECRETS if secret in json.dumps(body)]


async def test_disabled_accounts_are_listed_apart_with_the_reason(tmp_path: Path) -> None:
    off = gmail(NEW) | {"enabled": False}
    async with api_of(tmp_path, {"accounts": [gmail(FROM_FILE), off]}) as api:
        _, body = await api.ask("GET", "/accounts")
        assert [one["email"] for one in body["accounts"]] == [FROM_FILE]
        (one,) = body["disabled_accounts"]
        assert (one["email"], one["provider"], one["state"]) == (NEW, "gmail", "disabled")
        assert '"enabled": false' in one["reason"]
        api.relay.write({"accounts": [gmail(FROM_FILE), gmail(NEW)]})
        await api.ask("POST", "/reload")
        _, body = await api.ask("GET", "/accounts")
        assert (body["total_accounts"], body["disabled_accounts"]) == (2, [])


async def test_one_account_is_found_by_its_address_however_it_is_written(tmp_path: Path) -> None:
    odd = "a/b+c%d@example.com"
    async with api_of(tmp_path, {"accounts": [gmail(odd)]}) as api:
        status, body = await api.ask("GET", f"/accounts/{quote(odd.upper(), safe='')}")
        assert (status, body["account"]["email"]) == (200, odd)
        status, body = await api.ask("GET", "/accounts/nobody@example.com")
        assert (status, body["success"]) == (404, False)


async def test_providers_say_whether_one_can_sign_in(api: Api) -> None:
    status, body = await api.ask("GET", "/oauth/providers")
    found = {one["name"]: one for one in body["providers"]}
    assert status == 200
    assert found["gmail"]["can_sign_in"] is True
    assert found["gmail"]["flows"] == ["browser"]
    assert found["gmail"]["scopes"] == ["https://mail.google.com/"]
    assert found["outlook"]["can_sign_in"] is False
    assert "client_id" in found["outlook"]["reason"]


# Adding one.


async def test_an_account_is_added_and_its_password_told_once(api: Api) -> None:
    status, body = await api.ask("POST", "/accounts", without(gmail(NEW), "password"))
    assert status == 201
    assert len(body["account"]["password"]) >= 24
    _, body = await api.ask("GET", f"/accounts/{NEW}")
    assert "password" not in body["account"]
    status, body = await api.ask("POST", "/accounts", gmail(OTHER))
    assert status == 201
    assert "password" not in body["account"]


async def test_an_account_that_is_there_is_replaced_on_request_only(api: Api) -> None:
    assert (await api.ask("POST", "/accounts", gmail(NEW)))[0] == 201
    assert (await api.ask("POST", "/accounts", gmail(NEW)))[0] == 409
    assert (await api.ask("POST", "/accounts", gmail(NEW) | {"overwrite": True}))[0] == 200
    for options in ({}, {"overwrite": True}):
        status, body = await api.ask("POST", "/accounts", gmail(FROM_FILE) | options)
        assert (status, body["success"]) == (409, False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GONE, 502),
        (DEAD, 400),
        (TokenEndpointRefused("no such client"), 400),
        (TokenStoreUnavailable("the disk is full"), 503),
    ],
)
async def test_an_account_that_gets_no_token_is_not_added(
    api: Api, error: Exception, code: int
) -> None:
    api.relay.answers.by_mailbox[NEW] = error
    status, body = await api.ask("POST", "/accounts", gmail(NEW))
    assert status == code
    assert str(error) in body["error"]
    assert (await api.ask("GET", f"/accounts/{NEW}"))[0] == 404
    assert (await api.ask("POST", "/accounts", gmail(NEW) | {"verify": False}))[0] == 201


async def test_every_problem_is_told_with_its_place(api: Api) -> None:
    status, body = await api.ask("POST", "/accounts", {"email": "nobody", "colour": "blue"})
    assert status == 400
    assert {one["path"] for one in body["problems"]} >= {"email", "colour", "provider"}
    assert "email" in body["error"]


@pytest.mark.parametrize("key", ["verify", "overwrite"])
async def test_options_are_true_or_false(api: Api, key: str) -> None:
    status, body = await api.ask("POST", "/accounts", gmail(NEW) | {key: "yes"})
    assert (status, body["problems"]) == (
        400,
        [{"path": key, "problem": "must be true or false"}],
    )


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b'{"email": }', "line 1, column 11"),
        (b"", "line 1, column 1: the body is empty"),
        (b'{"email": "a@b.c",}', "line 1, column 18: trailing comma"),
        (b'"\xff"', "octet 1"),
        (b'{"email": "a@b.c", "email": "a@b.d"}', "email is written twice"),
        (b'{"email": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "must be an object"),
    ],
)
async def test_a_body_that_is_no_account_is_refused_with_the_place(
    api: Api, octets: bytes, problem: str
) -> None:
    headers = {"Content-Type": "application/json"}
    status, body = await api.ask("POST", "/accounts", data=octets, headers=headers)
    assert status == 400
    assert problem in body["error"]


async def test_comments_are_ignored_as_in_the_file(api: Api) -> None:
    assert (await api.ask("POST", "/accounts", gmail(NEW) | {"_comment": ["x"]}))[0] == 201


async def test_the_body_is_bounded_and_json(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    huge = io.BytesIO(b'"' + b"x" * 1024 * 1024 + b'"')
    assert (await api.ask("POST", "/accounts", data=huge, headers=headers))[0] == 413
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"Content-Type": kind}
        assert (await api.ask("POST", "/accounts", data=b"{}", headers=headers))[0] == 415
    assert api.relay.answers.asked == []


async def test_concurrent_additions_lose_nothing(api: Api) -> None:
    emails = [f"mailbox{number}@example.com" for number in range(10)]
    answers = await asyncio.gather(
        *(api.ask("POST", "/accounts", gmail(email)) for email in emails)
    )
    assert {status for status, _ in answers} == {201}
    _, body = await api.ask("GET", "/accounts")
    assert body["total_accounts"] == 11


# Adding many.


async def test_a_batch_is_added_whole(api: Api) -> None:
    documents = [gmail(NEW), without(gmail(OTHER), "password")]
    status, body = await api.ask("POST", "/accounts/batch", documents)
    assert (status, body["success"]) == (200, True)
    assert (body["added_count"], body["failed_count"], body["failed_accounts"]) == (2, 0, [])
    first, second = body["added_accounts"]
    assert first == {"email": NEW}
    assert second["email"] == OTHER
    assert second["password"]


async def test_a_batch_without_verification_asks_nobody(api: Api) -> None:
    documents = [gmail(NEW) | {"verify": False}, gmail(OTHER) | {"verify": False}]
    status, body = await api.ask("POST", "/accounts/batch", documents)
    assert (status, body["added_count"]) == (200, 2)
    assert api.relay.answers.asked == []


async def test_a_batch_of_which_some_fail_says_which(api: Api) -> None:
    api.relay.answers.by_mailbox[NEW] = GONE
    documents = [gmail("free@example.com") | {"verify": False}, gmail(NEW), gmail(OTHER)]
    status, body = await api.ask("POST", "/accounts/batch", documents)
    assert (status, body["success"]) == (206, "partial")
    assert (body["added_count"], body["failed_count"]) == (2, 1)
    assert body["failed_accounts"] == [{"email": NEW, "error": "no answer in time"}]
    # The next request knows nothing of this one's failure.
    del api.relay.answers.by_mailbox[NEW]
    status, body = await api.ask("POST", "/accounts/batch", [gmail(NEW)])
    assert (status, body["failed_accounts"]) == (200, [])


async def test_a_batch_of_which_all_fail_adds_nothing(api: Api) -> None:
    api.relay.answers.by_mailbox |= {NEW: GONE, OTHER: DEAD}
    status, body = await api.ask("POST", "/accounts/batch", [gmail(NEW), gmail(OTHER)])
    assert (status, body["success"], body["added_count"]) == (400, False, 0)
    assert (await api.ask("GET", "/accounts"))[1]["total_accounts"] == 1


@pytest.mark.parametrize(
    "documents", [[], {}, "x", [gmail(f"{n}@example.com") for n in range(101)]]
)
async def test_a_batch_is_1_to_100_accounts(api: Api, documents: object) -> None:
    assert (await api.ask("POST", "/accounts/batch", documents))[0] == 400
    assert api.relay.answers.asked == []


async def test_one_wrong_document_stops_the_batch_before_anyone_is_asked(api: Api) -> None:
    documents = [gmail(NEW), gmail("nobody"), 5]
    status, body = await api.ask("POST", "/accounts/batch", documents)
    assert (status, body["problems"][0]["path"]) == (400, "[2]")
    status, body = await api.ask("POST", "/accounts/batch", documents[:2])
    assert (status, body["problems"][0]["path"]) == (400, "[1].email")
    assert api.relay.answers.asked == []


async def test_a_batch_with_what_is_there_already_needs_overwrite(api: Api) -> None:
    await api.ask("POST", "/accounts", gmail(NEW))
    assert (await api.ask("POST", "/accounts/batch", [gmail(OTHER), gmail(NEW)]))[0] == 409
    documents = [gmail(OTHER), gmail(NEW) | {"overwrite": True}]
    assert (await api.ask("POST", "/accounts/batch", documents))[0] == 200


# Removing.


async def test_an_added_account_is_removed_and_the_files_is_not(api: Api) -> None:
    await api.ask("POST", "/accounts", gmail(NEW))
    assert (await api.ask("DELETE", f"/accounts/{NEW}"))[0] == 200
    assert (await api.ask("DELETE", f"/accounts/{NEW}"))[0] == 404
    status, body = await api.ask("DELETE", f"/accounts/{FROM_FILE}")
    assert status == 409
    assert "remove it there and reload" in body["error"]
    assert (await api.ask("GET", f"/accounts/{FROM_FILE}"))[0] == 200


async def test_removing_all_must_be_confirmed(api: Api) -> None:
    assert (await api.ask("DELETE", "/accounts?confirm=true"))[0] == 404
    await api.ask("POST", "/accounts/batch", [gmail(NEW), gmail(OTHER)])
    for query in ("", "?confirm=false", "?confirm=1"):
        assert (await api.ask("DELETE", f"/accounts{query}"))[0] == 400
    status, body = await api.ask("DELETE", "/accounts?confirm=true")
    assert (status, body["removed"]) == (200, [NEW, OTHER])
    assert (await api.ask("GET", "/accounts"))[1]["total_accounts"] == 1


async def test_invalid_is_no_address_but_those_whose_grant_is_dead(api: Api) -> None:
    await api.ask("POST", "/accounts/batch", [gmail(NEW), gmail(OTHER)])
    api.relay.answers.by_mailbox |= {NEW: DEAD, OTHER: GONE, FROM_FILE: DEAD}
    status, body = await api.ask("DELETE", "/accounts/invalid")
    assert (status, body["removed"]) == (200, [NEW])
    assert body["undecided"] == [{"email": OTHER, "error": "no answer in time"}]
    assert (await api.ask("GET", "/accounts"))[1]["total_accounts"] == 2


# Refreshing, revoking, reloading.


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 200), (DEAD, 409), (TokenEndpointRefused("no such client"), 409), (GONE, 502)],
)
async def test_a_refresh_tells_what_the_provider_said(
    api: Api, error: Exception | None, code: int
) -> None:
    if error is not None:
        api.relay.answers.by_mailbox[FROM_FILE] = error
    status, body = await api.ask("POST", f"/accounts/{FROM_FILE}/refresh")
    assert status == code
    assert body["error"] == str(error) if error else body["account"]["state"] == "ok"
    assert (await api.ask("POST", "/accounts/nobody@example.com/refresh"))[0] == 404


async def test_a_provider_is_not_asked_on_and_on(api: Api) -> None:
    await api.ask("POST", "/accounts", gmail(NEW))
    asked = api.relay.answers.asked
    assert (await api.ask("POST", f"/accounts/{NEW}/refresh"))[0] == 200
    count = len(asked)
    for method, path in (("POST", f"/accounts/{NEW}/refresh"), ("DELETE", "/accounts/invalid")):
        async with api.http.request(method, path) as answer:
            assert answer.status == 429
            assert 0 < int(answer.headers["Retry-After"]) <= 61
            assert "less than a minute ago" in (await answer.json())["error"]
    assert len(asked) == count


async def test_revoking_what_nobody_granted_is_refused(tmp_path: Path) -> None:
    own = {"email": "own@example.com", "provider": "outlook", "password": "x"}
    async with api_of(tmp_path, {"accounts": [own]}) as api:
        assert (await api.ask("POST", "/accounts/own@example.com/revoke"))[0] == 409
        assert (await api.ask("POST", "/accounts/nobody@example.com/revoke"))[0] == 404


async def test_a_reload_takes_up_the_file_or_tells_what_is_wrong_with_it(api: Api) -> None:
    api.relay.write({"accounts": [gmail(FROM_FILE), gmail(OTHER)]})
    assert (await api.ask("POST", "/reload"))[0] == 200
    api.relay.write({"accounts": [gmail("nobody"), gmail(OTHER)]})
    status, body = await api.ask("POST", "/reload")
    assert (status, body["problems"][0]["path"]) == (400, "accounts[0].email")
    assert (await api.ask("GET", "/accounts"))[1]["total_accounts"] == 2


async def test_what_is_done_is_logged_without_secrets(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "xoauth2_proxy")
    await api.ask("POST", "/accounts", gmail(NEW))
    await api.ask("POST", f"/accounts/{NEW}/refresh")
    await api.ask("DELETE", f"/accounts/{NEW}")
    said = [(one.getMessage(), getattr(one, "fields", {})) for one in caplog.records]
    assert [text for text, fields in said if fields.get("account") == NEW] == [
        "mailbox added",
        "mailbox refreshed",
        "mailbox removed",
    ]
    assert not [secret for secret in SECRETS if secret in repr(said)]


async def test_unknown_methods_and_paths_are_told_as_json(api: Api) -> None:
    assert (await api.ask("PUT", "/accounts", {}))[0] == 405
    assert (await api.ask("GET", f"/accounts/{NEW}/nothing"))[0] == 404
