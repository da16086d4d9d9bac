"""The pages over HTTP: what they show, what their forms do, and how they tell what went wrong."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

import pytest

from tests.support.admin_visits import Answer, Browser
from tests.support.operated import FROM_FILE, Operated, administered, gmail
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NEW = "new@example.com"
SECRETS = ("a-client-secret", "refresh-of", "rotated-", "access-", "sesame", "argon2")


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[tuple[Operated, Browser]]:
    async with administered(tmp_path) as (relay, url), Browser(url) as browser:
        yield relay, browser


async def send(browser: Browser, path: str, **fields: str) -> Answer:
    csrf = (await browser.get("/mailboxes/new")).csrf
    return await browser.send(path, {"csrf": csrf, **fields})


async def add(browser: Browser, email: str = NEW, provider: str = "gmail", **more: str) -> Answer:
    fields = {"email": email, "provider": provider, "client_id": "a-client", **more}
    return await send(browser, "/mailboxes/new", **fields)


def text_of(page: Answer) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", page.text)).split())


async def test_the_list_shows_mailboxes_and_no_secret(visit: tuple[Operated, Browser]) -> None:
    relay, browser = visit
    await relay.mailboxes.refresh(FROM_FILE)
    page = await browser.get("/")
    assert FROM_FILE in text_of(page)
    assert "✓ Works" in text_of(page)
    assert "just now" in text_of(page)
    assert not [secret for secret in SECRETS if secret in page.text]
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert 'lang="en"' in page.text


async def test_the_list_shows_disabled_accounts_and_why(tmp_path: Path) -> None:
    off = [gmail(f"off{number}@example.com") | {"enabled": False} for number in range(60)]
    async with (
        administered(tmp_path, {"accounts": [gmail(FROM_FILE), *off]}) as (_, url),
        Browser(url) as browser,
    ):
        shown = text_of(await browser.get("/"))
        assert "Disabled accounts 60" in shown
        assert 'Each has "enabled": false' in shown
        assert "off0@example.com gmail" in shown
        assert "and 10 more" in shown
        found = text_of(await browser.get("/?q=off59"))
        assert "Disabled accounts 1 " in found
        assert "off59@example.com gmail" in found
        assert "off0@" not in found
        assert "No mailbox matches" not in found
        assert "Disabled accounts" not in text_of(await browser.get("/?state=ok"))


async def test_what_stands_in_an_address_or_a_search_is_never_markup(tmp_path: Path) -> None:
    odd = '"<img/src=x>&"@example.com'
    async with (
        administered(tmp_path, {"accounts": [gmail(odd)]}) as (_, url),
        Browser(url) as browser,
    ):
        for path in ("/", "/?q=<b>", "/?done=removed&mailbox=<b>", "/mailboxes/new?email=<b>"):
            page = await browser.get(path)
            assert page.status == 200
            assert "<img/" not in page.text
            assert "<b>example" not in page.text
            assert "&lt;b&gt;" in page.text or path == "/"


async def test_a_mailbox_is_added_and_its_password_shown_once(
    visit: tuple[Operated, Browser],
) -> None:
    relay, browser = visit
    page = await add(browser)
    assert page.status == 201
    found = re.search(r'<code id="password">([^<]{24,})</code>', page.text)
    assert found
    await relay.tokens.close()
    assert NEW in relay.accounts
    assert found[1] not in (await browser.get("/")).text
    assert f"/oauth/gmail/login?mailbox={NEW.replace('@', '%40')}" in page.text


async def test_a_form_that_is_wrong_comes_back_with_what_is_wrong_beside_it(
    visit: tuple[Operated, Browser],
) -> None:
    relay, browser = visit
    page = await add(browser, "no address", client_secret="keep this", tenant="x y")
    assert page.status == 400
    assert 'aria-invalid="true" aria-describedby="email-problem"' in page.text
    assert 'value="no address"' in page.text
    assert "keep this" not in page.text
    assert "must be one e-mail address" in text_of(page)
    relay.answers.by_mailbox[NEW] = TokenEndpointUnavailable("no answer in time")
    page = await add(browser, NEW, "mock", client_id="")
    assert (page.status, "no answer in time" in text_of(page)) == (502, True)
    page = await add(browser, FROM_FILE)
    assert page.status == 409
    assert "was not added" in text_of(page)
    assert set(relay.accounts) == {FROM_FILE}


async def test_removing_asks_first(visit: tuple[Operated, Browser]) -> None:
    relay, browser = visit
    await add(browser)
    page = await browser.get(f"/mailboxes/remove?mailbox={NEW}")
    assert "Remove the mailbox" in page.text
    assert NEW in relay.accounts
    answer = await send(browser, "/mailboxes/remove", mailbox=NEW)
    assert (answer.status, answer.headers["Location"]) == (
        303,
        "/?done=removed&mailbox=new%40example.com",
    )
    assert NEW not in relay.accounts
    page = await browser.get(answer.headers["Location"])
    assert f"Removed: {NEW}" in text_of(page)


async def test_a_mailbox_of_the_file_is_told_to_be_removed_there(
    visit: tuple[Operated, Browser],
) -> None:
    relay, browser = visit
    page = await browser.get(f"/mailboxes/remove?mailbox={FROM_FILE}")
    assert "Remove the mailbox" not in page.text
    assert "configuration file" in text_of(page)
    assert (await send(browser, "/mailboxes/remove", mailbox=FROM_FILE)).status == 409
    assert FROM_FILE in relay.accounts


async def test_after_a_refresh_one_is_where_one_was(visit: tuple[Operated, Browser]) -> None:
    relay, browser = visit
    answer = await send(
        browser, "/mailboxes/refresh", mailbox=FROM_FILE, q="written", state="", page="1"
    )
    assert answer.headers["Location"] == (
        "/?q=written&page=1&done=refreshed&mailbox=written%40example.com"
    )
    assert len(relay.answers.asked) == 1
    page = await browser.get(answer.headers["Location"])
    assert 'value="written"' in page.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GrantRevoked("expired <or> revoked", oauth_error="invalid_grant"), 409),
        (TokenEndpointUnavailable("no answer <in> time"), 502),
    ],
)
async def test_a_page_says_what_did_not_work(
    visit: tuple[Operated, Browser], error: Exception, status: int
) -> None:
    relay, browser = visit
    relay.answers.by_mailbox[FROM_FILE] = error
    page = await send(browser, "/mailboxes/refresh", mailbox=FROM_FILE)
    assert page.status == status
    assert f"{FROM_FILE}: {error}" in text_of(page)
    assert 'role="alert"' in page.text
    again = f'<input type="hidden" name="mailbox" value="{FROM_FILE}">'
    assert '<form method="post" action="/mailboxes/refresh">' in page.text
    assert again in page.text
    assert "Try again" in text_of(page)


async def test_a_page_says_when_to_refresh_again(visit: tuple[Operated, Browser]) -> None:
    relay, browser = visit
    assert (await send(browser, "/mailboxes/refresh", mailbox=FROM_FILE)).status == 303
    page = await send(browser, "/mailboxes/refresh", mailbox=FROM_FILE)
    assert page.status == 429
    assert 0 < int(page.headers["Retry-After"]) <= 61
    assert "less than a minute ago; wait" in text_of(page)
    assert len(relay.answers.asked) == 1


async def test_unknown_mailboxes_and_old_forms_have_pages_too(
    visit: tuple[Operated, Browser],
) -> None:
    _, browser = visit
    page = await browser.get("/mailboxes/revoke?mailbox=nobody@example.com")
    assert (page.status, "no mailbox nobody@example.com" in text_of(page)) == (404, True)
    page = await browser.send("/mailboxes/refresh", {"csrf": "0" * 64, "mailbox": FROM_FILE})
    assert (page.status, "has expired" in text_of(page)) == (403, True)
    page = await browser.get("/oauth/gmail/login?mailbox=nobody@example.com")
    assert page.status == 404
    assert 'href="/oauth/gmail/login?mailbox=nobody@example.com">Try again' in page.text


async def test_a_page_tells_what_revoking_did_not_end(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/"
    document = {
        "accounts": [gmail(FROM_FILE, provider="own")],
        "providers": {
            "own": {
                "refresher": "oidc",
                "upstream": {"host": "localhost", "port": 25},
                "oauth_token_url": f"{url}token",
                "authorization_url": f"{url}authorize",
            }
        },
    }
    async with administered(tmp_path, document) as (_, url), Browser(url) as browser:
        page = await browser.get(f"/mailboxes/revoke?mailbox={FROM_FILE}")
        assert "Revoke the sign-in" in page.text
        page = await send(browser, "/mailboxes/revoke", mailbox=FROM_FILE)
        assert page.status == 200
        assert "What you still have to do" in page.text
        assert "refresh token of its own" in text_of(page)


async def test_the_configuration_is_read_again_or_all_its_problems_shown(
    visit: tuple[Operated, Browser],
) -> None:
    relay, browser = visit
    relay.write({"accounts": [gmail(NEW)]})
    answer = await send(browser, "/configuration/reload")
    assert answer.headers["Location"] == "/?done=reloaded"
    assert set(relay.accounts) == {NEW}
    relay.write({"accounts": [gmail("nobody"), gmail("neither")]})
    page = await send(browser, "/configuration/reload")
    assert page.status == 400
    assert "accounts[0].email" in text_of(page)
    assert "accounts[1].email" in text_of(page)


async def test_two_thousand_mailboxes_are_searched_and_paged(tmp_path: Path) -> None:
    document = {"accounts": [gmail(f"m{number:04}@example.com") for number in range(2000)]}
    async with administered(tmp_path, document) as (_, url), Browser(url) as browser:
        page = await browser.get("/")
        assert text_of(page).count("@example.com") == 50
        assert "page 1 of 40" in text_of(page)
        assert 'href="/?page=2" rel="next">Next' in page.text
        page = await browser.get("/?page=40")
        assert "m1999@example.com" in text_of(page)
        assert "Next</a>" not in page.text
        page = await browser.get("/?q=m1234")
        assert text_of(page).count("m1234@example.com") == 1
        page = await browser.get("/?q=nothing")
        assert "No mailbox matches" in text_of(page)
        for query in ("page=x", "page=-1", "page=" + "9" * 5000, "state=made+up"):
            assert (await browser.get(f"/?{query}")).status == 200


async def test_providers_tell_what_to_register(visit: tuple[Operated, Browser]) -> None:
    _, browser = visit
    page = await browser.get("/providers")
    assert f"{browser.url}/oauth/gmail/callback" in text_of(page)
    assert "no client_id is configured" in text_of(page)
    first, _, collapsed = page.text.partition("<details>")
    assert "People can sign in" in first
    assert "no client_id is configured" not in first
    assert "no client_id is configured" in unescape(collapsed)


async def test_what_belongs_to_the_pages_comes_with_its_type(
    visit: tuple[Operated, Browser],
) -> None:
    _, browser = visit
    kinds = {"admin.css": "text/css", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = await browser.get(f"/static/{name}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    for name in ("nothing.css", "..%2Fserver.py"):
        assert (await browser.get(f"/static/{name}")).status == 404
