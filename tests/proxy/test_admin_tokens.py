"""Access tokens over HTTP: for programs with the admin token, and only where they are to be had."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.support.admin_visits import TOKEN, Browser
from tests.support.operated import FROM_FILE, administered, gmail
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.errors import (
    ConfigError,
    GrantRevoked,
    TokenEndpointUnavailable,
    TokenStoreUnavailable,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.admin_visits import Answer

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ROUTE = f"/accounts/{FROM_FILE}/token"


def serving(*accounts: dict[str, Any], **admin: Any) -> dict[str, Any]:
    """Return a configuration in which tokens are served."""
    settings = {"token": TOKEN, "serves_tokens": True} | admin
    return {"accounts": [gmail(FROM_FILE), *accounts], "admin": settings}


def error_of(answer: Answer) -> str:
    """Return the error that a program is told, in the form of all others."""
    body = json.loads(answer.text)
    assert (body["success"], body["problems"]) == (False, [])
    return str(body["error"])


async def test_a_program_gets_the_token_with_its_expiry_and_scope(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "xoauth2_proxy")
    async with administered(tmp_path, serving(), token=TOKEN) as (relay, url), Browser(url) as own:
        answer = await own.get(f"/accounts/{quote(FROM_FILE.upper())}/token", **BEARER)
        body = json.loads(answer.text)
        assert (answer.status, body["success"], body["email"]) == (200, True, FROM_FILE)
        assert (body["access_token"], body["token_type"]) == ("access-1", "Bearer")
        assert 3500 < body["expires_in"] <= 3600
        assert body["expires_at"].endswith("Z")
        assert body["scope"] == ""
        assert answer.headers["Cache-Control"] == "no-store"
        again = json.loads((await own.get(ROUTE, **BEARER)).text)
        assert again["access_token"] == "access-1"
        assert len(relay.answers.asked) == 1
    served = [one for one in caplog.records if one.getMessage() == "access token served"]
    fields = [one.__dict__["fields"] for one in served]
    assert fields == [{"account": FROM_FILE, "by": "127.0.0.1"}] * 2
    assert "access-1" not in "".join(str(one.__dict__) for one in caplog.records)


async def test_it_is_off_until_the_configuration_says_otherwise(tmp_path: Path) -> None:
    document = {"accounts": [gmail(FROM_FILE)], "admin": {"token": TOKEN}}
    async with administered(tmp_path, document, token=TOKEN) as (relay, url), Browser(url) as own:
        answer = await own.get(ROUTE, **BEARER)
        assert answer.status == 403
        assert 'write "serves_tokens": true under "admin"' in error_of(answer)
        assert relay.answers.asked == []


async def test_without_a_token_of_the_admin_server_nobody_gets_one(tmp_path: Path) -> None:
    """The configuration refuses that; a server that is made so all the same does too."""
    async with administered(tmp_path, serving()) as (relay, url), Browser(url) as anybody:
        for headers in ({}, {"X-Requested-By": "a program"}, BEARER):
            answer = await anybody.get(ROUTE, **headers)
            assert answer.status == 403
            assert "needs admin.token" in error_of(answer)
        assert relay.answers.asked == []
    document = serving()
    del document["admin"]["token"]
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"admin\.serves_tokens: .*admin\.token"):
        ConfigSource(file, Overrides(), tmp_path).load(BUILT_IN_REFRESHERS, {})


async def test_a_browsers_session_gets_no_token(tmp_path: Path) -> None:
    async with (
        administered(tmp_path, serving(), token=TOKEN) as (relay, url),
        Browser(url) as browser,
    ):
        assert (await browser.enter()).status == 303
        assert (await browser.get("/accounts")).status == 200
        csrf = (await browser.get("/")).csrf
        for headers in ({}, {"X-Requested-By": "page"}, {"X-CSRF-Token": csrf}):
            answer = await browser.get(ROUTE, **headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert error_of(answer)
        assert relay.answers.asked == []


@pytest.mark.parametrize("given", ["", "Bearer wrong", f"Basic {TOKEN}"])
async def test_another_token_opens_nothing(tmp_path: Path, given: str) -> None:
    async with administered(tmp_path, serving(), token=TOKEN) as (relay, url), Browser(url) as one:
        answer = await one.get(ROUTE, **({"Authorization": given} if given else {}))
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert relay.answers.asked == []


async def test_other_methods_are_not_allowed(tmp_path: Path) -> None:
    async with administered(tmp_path, serving(), token=TOKEN) as (relay, url), Browser(url) as own:
        for method in ("HEAD", "POST", "PUT", "DELETE"):
            answer = await own.ask(method, ROUTE, headers=BEARER)
            assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        assert relay.answers.asked == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (GrantRevoked("expired", oauth_error="invalid_grant"), 409),
        (TokenEndpointUnavailable("no answer in time"), 502),
        (TokenStoreUnavailable("the disk is full"), 503),
    ],
)
async def test_there_is_a_reason_where_there_is_no_token(
    tmp_path: Path, failure: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xoauth2_proxy")
    async with administered(tmp_path, serving(), token=TOKEN) as (relay, url), Browser(url) as own:
        relay.answers.by_mailbox[FROM_FILE] = failure
        answer = await own.get(ROUTE, **BEARER)
        assert (answer.status, error_of(answer)) == (status, str(failure))
        assert answer.headers["Cache-Control"] == "no-store"
    assert "access token not served" in caplog.messages


async def test_a_mailbox_that_is_not_there_or_brings_its_own_token_has_none(
    tmp_path: Path,
) -> None:
    own_token = {"email": "own@example.com", "provider": "gmail", "password": "p"}
    async with (
        administered(tmp_path, serving(own_token), token=TOKEN) as (_, url),
        Browser(url) as program,
    ):
        answer = await program.get("/accounts/nobody@example.com/token", **BEARER)
        assert (answer.status, error_of(answer)) == (404, "there is no mailbox nobody@example.com")
        answer = await program.get("/accounts/own@example.com/token", **BEARER)
        assert answer.status == 409
        assert "bring their own tokens" in error_of(answer)
