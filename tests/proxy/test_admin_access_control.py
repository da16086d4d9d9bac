"""Who may ask what of the admin server: tokens, sessions, and what other sites' pages cannot do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.admin_visits import TOKEN, Browser
from tests.support.operated import FROM_FILE, Operated, administered, gmail
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

NEW = "new@example.com"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGES = ["/", "/mailboxes/new", "/providers", f"/mailboxes/remove?mailbox={FROM_FILE}"]
API = ["/accounts", f"/accounts/{FROM_FILE}", "/oauth/providers"]
REBOUND = {"Host": "rebound.evil.example"}


async def change(browser: Browser, **headers: str) -> int:
    """Try to add a mailbox as a program does."""
    return (await browser.ask("POST", "/accounts", json=gmail(NEW), headers=headers)).status


async def refresh(browser: Browser, csrf: str, **headers: str) -> int:
    """Try to refresh a mailbox as the page does."""
    fields = {"csrf": csrf, "mailbox": FROM_FILE}
    return (await browser.send("/mailboxes/refresh", fields, **headers)).status


def untouched(relay: Operated) -> bool:
    return set(relay.accounts) == {FROM_FILE} and not relay.answers.asked


# With a token.


async def test_with_a_token_nothing_is_told_without_it(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (relay, url), Browser(url) as browser:
        for path in [*API, "/health", "/metrics", "/nowhere"]:
            answer = await browser.get(path)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert FROM_FILE not in answer.text
        for path in PAGES:
            answer = await browser.get(path)
            assert (answer.status, answer.headers["Location"]) == (303, "/login")
        for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer"):
            assert (await browser.get("/", Authorization=wrong)).status == 401
            assert await change(browser, Authorization=wrong) == 401
        assert untouched(relay)


async def test_a_bearer_needs_nothing_else(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (relay, url), Browser(url) as browser:
        for path in [*API, *PAGES, "/health", "/metrics"]:
            assert (await browser.get(path, **BEARER)).status == 200
        assert await change(browser, **BEARER) == 201
        assert NEW in relay.accounts


async def test_the_token_opens_a_session_that_nobody_can_read_or_send_from_afar(
    tmp_path: Path,
) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        answer = await browser.enter()
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        (cookie,) = answer.cookies.values()
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        assert TOKEN not in cookie.value
        page = await browser.get("/")
        assert page.status == 200
        assert FROM_FILE in page.text
        assert await refresh(browser, page.csrf) == 303
        for path in ("/health", "/metrics", "/accounts"):
            assert (await browser.get(path)).status == 200


async def test_signing_out_ends_the_session_for_every_copy_of_its_cookie(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        entered = await browser.enter()
        (cookie,) = entered.cookies.values()
        csrf = (await browser.get("/")).csrf
        assert (await browser.send("/logout", {"csrf": csrf})).status == 303
        assert (await browser.get("/")).status == 303
        copied = f"{cookie.key}={cookie.value}"
        async with Browser(url) as thief:
            assert (await thief.get("/", Cookie=copied)).status == 303


async def test_a_session_is_new_with_each_entrance(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        (first,) = (await browser.enter()).cookies.values()
        (second,) = (await browser.enter()).cookies.values()
        assert first.value != second.value
        async with Browser(url) as other:
            answer = await other.get("/", Cookie=f"{first.key}={first.value}")
            assert answer.status == 303


async def test_a_session_changes_nothing_without_the_forms_own_mark(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (relay, url), Browser(url) as browser:
        before = (await browser.get("/login")).csrf
        await browser.enter()
        for wrong in ("", "0" * 64, before, "é"):
            assert await refresh(browser, wrong) == 403
        assert await change(browser, **{"X-Requested-By": "page"}) == 401
        assert untouched(relay)


async def test_wrong_tokens_are_counted_and_then_not_looked_at(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        for _ in range(5):
            answer = await browser.enter("wrong")
            assert answer.status == 401
            assert "not the token" in answer.text
        answer = await browser.enter(TOKEN)
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 61


async def test_programs_may_not_guess_more_often_than_people(tmp_path: Path) -> None:
    async with (
        administered(tmp_path, token=TOKEN) as (relay, url),
        Browser(url) as browser,
        Browser(url) as earlier,
    ):
        await earlier.enter()
        for path in ("/health", "/metrics", "/accounts", "/", "/nowhere"):
            assert (await browser.get(path, Authorization="Bearer wrong")).status == 401
        for header in ("Bearer wrong", BEARER["Authorization"]):
            answer = await browser.get("/accounts", Authorization=header)
            assert answer.status == 429
            assert 0 < int(answer.headers["Retry-After"]) <= 61
            assert await change(browser, Authorization=header) == 429
        assert untouched(relay)
        assert (await earlier.get("/accounts")).status == 200


async def test_the_entrance_is_closed_to_other_sites_forms(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        assert (await browser.send("/login", {"token": TOKEN})).status == 403
        assert (await browser.get("/")).status == 303


async def test_with_a_token_any_host_name_will_do(tmp_path: Path) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        headers = BEARER | {"Host": "relay.example.com"}
        assert (await browser.get("/accounts", **headers)).status == 200


# Without one: loopback.


async def test_without_a_token_pages_and_lists_are_open_on_this_machine(tmp_path: Path) -> None:
    async with administered(tmp_path) as (_, url), Browser(url) as browser:
        for path in [*API, *PAGES]:
            for host in ("localhost", "LOCALHOST:9", "127.0.0.1:9", "[::1]:9", "127.9.9.9"):
                answer = await browser.get(path, Host=host)
                assert answer.status in {200, 302}
        assert (await browser.get("/login")).status == 404


async def test_a_name_that_was_rebound_to_this_machine_sees_nothing(tmp_path: Path) -> None:
    async with administered(tmp_path) as (relay, url), Browser(url) as browser:
        for path in [*API, *PAGES, "/static/admin.css", "/oauth/gmail/callback?state=x"]:
            for host in ("rebound.evil.example", "localhost.evil.example", "127.0.0.1.evil", ""):
                answer = await browser.get(path, Host=host)
                assert answer.status == 403, (path, host)
                assert FROM_FILE not in answer.text
        rebound = REBOUND | {"X-Requested-By": "page"}
        assert await change(browser, **rebound) == 403
        assert untouched(relay)


async def test_monitoring_is_asked_under_any_name_as_before(tmp_path: Path) -> None:
    async with administered(tmp_path) as (_, url), Browser(url) as browser:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            assert (await browser.get(path, **REBOUND)).status == 200


async def test_a_change_needs_what_no_other_sites_page_can_send(tmp_path: Path) -> None:
    async with administered(tmp_path) as (relay, url), Browser(url) as browser:
        assert await change(browser) == 403
        for method, path in (
            ("DELETE", f"/accounts/{NEW}"),
            ("DELETE", "/accounts?confirm=true"),
            ("DELETE", "/accounts/invalid"),
            ("POST", f"/accounts/{FROM_FILE}/refresh"),
            ("POST", f"/accounts/{FROM_FILE}/revoke"),
            ("POST", "/reload"),
        ):
            assert (await browser.ask(method, path)).status == 403
        assert untouched(relay)
        assert await change(browser, **{"X-Requested-By": "me"}) == 201


async def test_a_program_may_use_the_mark_of_a_form_instead(tmp_path: Path) -> None:
    async with administered(tmp_path) as (_, url), Browser(url) as browser:
        csrf = (await browser.get("/")).csrf
        assert await change(browser, **{"X-CSRF-Token": "0" * 64}) == 403
        assert await change(browser, **{"X-CSRF-Token": csrf}) == 201


async def test_a_preflight_is_never_answered(tmp_path: Path) -> None:
    async with administered(tmp_path) as (_, url), Browser(url) as browser:
        for path in ("/accounts", "/reload", f"/accounts/{FROM_FILE}", "/mailboxes/refresh"):
            answer = await browser.ask(
                "OPTIONS",
                path,
                headers={
                    "Origin": "https://evil.example",
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "x-requested-by",
                },
            )
            assert answer.status == 405
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_site_changes_nothing_even_with_the_right_mark(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with administered(tmp_path) as (relay, url), Browser(url) as browser:
        csrf = (await browser.get("/")).csrf
        assert await refresh(browser, csrf, **headers) == 403
        assert await change(browser, **(headers | {"X-Requested-By": "page"})) == 403
        assert untouched(relay)
        own = {"Origin": browser.url, "Sec-Fetch-Site": "same-origin"}
        assert await refresh(browser, csrf, **own) == 303


async def test_a_forms_mark_is_good_for_one_browser(tmp_path: Path) -> None:
    async with administered(tmp_path) as (relay, url), Browser(url) as one, Browser(url) as other:
        csrf = (await one.get("/")).csrf
        await other.get("/")
        assert await refresh(other, csrf) == 403
        assert untouched(relay)
        assert await refresh(one, csrf) == 303


async def test_a_form_is_sent_as_a_form(tmp_path: Path) -> None:
    async with administered(tmp_path) as (relay, url), Browser(url) as browser:
        csrf = (await browser.get("/")).csrf
        parts = aiohttp.FormData({"csrf": csrf, "mailbox": FROM_FILE})
        parts.add_field("file", b"x", filename="x")
        for body in ({"json": {"csrf": csrf}}, {"data": parts}):
            assert (await browser.ask("POST", "/mailboxes/refresh", **body)).status == 415
        assert untouched(relay)


async def test_a_visit_from_another_site_does_not_replace_the_session(tmp_path: Path) -> None:
    """Strict cookies stay away then; what is set instead must have another name."""
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        (session,) = (await browser.enter()).cookies.values()
        async with Browser(url) as without_cookies:
            answer = await without_cookies.get("/login")
            assert session.key not in answer.cookies
            assert answer.cookies


# Behind a proxy that adds TLS.


async def test_behind_tls_cookies_are_secure_and_redirects_go_to_the_public_name(
    tmp_path: Path,
) -> None:
    public = "https://relay.example.com"
    async with (
        administered(tmp_path, token=TOKEN, public_url=public) as (_, url),
        Browser(url) as browser,
    ):
        answer = await browser.get("/login", Host="relay.example.com")
        assert all(cookie["secure"] for cookie in answer.cookies.values())
        answer = await browser.get("/providers", Host="relay.example.com", **BEARER)
        assert f"{public}/oauth/gmail/callback" in answer.text


async def test_the_public_name_is_one_of_the_servers_own(tmp_path: Path) -> None:
    async with (
        administered(tmp_path, public_url="http://relay.test:8080") as (_, url),
        Browser(url) as browser,
    ):
        assert (await browser.get("/accounts", Host="relay.test:8080")).status == 200
        headers = {"X-Requested-By": "x", "Origin": "http://relay.test:8080"}
        assert await change(browser, **headers) == 201


# Every answer.


@pytest.mark.parametrize("path", [*PAGES, *API, "/login", "/nowhere", "/static/admin.css"])
async def test_every_answer_keeps_itself_to_itself(tmp_path: Path, path: str) -> None:
    async with administered(tmp_path, token=TOKEN) as (_, url), Browser(url) as browser:
        for headers in ({}, BEARER):
            answer = await browser.get(path, **headers)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            if not path.startswith("/static/"):
                assert answer.headers["Cache-Control"] == "no-store"


async def test_the_machines_address_leads_to_its_name(tmp_path: Path) -> None:
    async with administered(tmp_path) as (_, url), Browser(url) as browser:
        port = url.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            answer = await browser.get("/?q=x", Host=f"{host}:{port}")
            assert answer.headers["Location"] == f"http://localhost:{port}/?q=x"
        assert (await browser.get("/accounts", Host=f"127.0.0.1:{port}")).status == 200


async def test_a_body_that_does_not_come_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.admin.json_requests.BODY_SECONDS", 0.05)
    monkeypatch.setattr("xoauth2_proxy.admin.access_control.BODY_SECONDS", 0.05)
    async with administered(tmp_path) as (_, url):
        port = int(url.rpartition(":")[2])
        for path, kind in (
            ("/accounts", "application/json"),
            ("/mailboxes/refresh", "application/x-www-form-urlencoded"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Requested-By: x\r\n"
                f"Content-Type: {kind}\r\nContent-Length: 10\r\n\r\n".encode()
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert b" 408 " in await reader.readline()
            writer.close()
            await writer.wait_closed()
