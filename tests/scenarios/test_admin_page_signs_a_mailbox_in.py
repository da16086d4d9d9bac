"""A mailbox is signed in from the admin page, at a real identity provider."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import chromium
from tests.support.admin_visits import TOKEN, Answer, Browser
from tests.support.logins import provider_entry
from tests.support.operated import Operated, administered
from tests.support.person import Person
from tests.support.sign_ins import ALICE, BOB
from xoauth2_proxy.errors import GrantRevoked
from xoauth2_proxy.oauth.mailbox_status import State
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

START = f"/oauth/school/login?mailbox={ALICE}"


@dataclass
class Office:
    """A relay with one mailbox to sign in, somebody's browser, and the mailbox's owner."""

    relay: Operated
    url: str
    browser: Browser
    owner: Person

    async def begin(self) -> str:
        """Follow the link; return the provider's address."""
        answer = await self.browser.get(START)
        assert answer.status == 302, answer.text
        return str(answer.headers["Location"])

    async def come_back(self, address: str, browser: Browser | None = None) -> Answer:
        """Open the address to which the provider sends the browser back."""
        parts = urlsplit(address)
        return await (browser or self.browser).get(
            f"{parts.path}?{parts.query}", **{"Sec-Fetch-Site": "cross-site"}
        )

    async def state(self) -> State:
        return (await self.relay.mailboxes.find(ALICE)).status.state


@asynccontextmanager
async def office_of(
    directory: Path, provider: IdentityProvider, *, token: str = "", **of_provider: object
) -> AsyncIterator[Office]:
    document = {
        "providers": {
            "school": provider_entry(provider, **of_provider),
            "other": provider_entry(provider),
        },
        "accounts": [{"email": ALICE, "provider": "school", "password": "opens sesame"}],
    }
    with ThreadPoolExecutor(4) as threads:
        refreshers = {"oidc": OidcRefresher(threads)}
        async with (
            administered(directory, document, token=token, refreshers=refreshers) as (relay, url),
            Browser(url) as browser,
            Person(provider) as owner,
        ):
            yield Office(relay, browser.url, browser, owner)


@pytest.fixture
async def office(tmp_path: Path, identity_provider: IdentityProvider) -> AsyncIterator[Office]:
    async with office_of(tmp_path, identity_provider) as one:
        yield one


async def test_the_owner_signs_in_and_the_mailbox_works(office: Office) -> None:
    assert await office.state() is State.SIGN_IN_NEEDED
    url = await office.begin()
    redirect_uri = parse_qs(urlsplit(url).query)["redirect_uri"][0]
    assert redirect_uri == f"{office.url}/oauth/school/callback"
    page = await office.come_back(await office.owner.sign_in(url, ALICE))
    assert page.status == 200, page.text
    assert f"{ALICE} is signed in" in page.text
    assert await office.state() is State.OK
    account = office.relay.accounts[ALICE]
    first = await office.relay.tokens.token_for(account)
    assert (await office.relay.tokens.refresh(account)).value != first.value


async def test_with_a_token_the_answer_needs_no_session(
    tmp_path: Path, identity_provider: IdentityProvider
) -> None:
    async with office_of(tmp_path, identity_provider, token=TOKEN) as office:
        assert (await office.browser.get(START)).headers["Location"] == "/login"
        entered = await office.browser.enter()
        url = await office.begin()
        address = await office.owner.sign_in(url, ALICE)
        # From the provider's site, the session's Strict cookie stays away; the Lax one comes.
        begun = [
            f"{cookie.key}={cookie.value}"
            for cookie in office.browser.cookies("/oauth/")
            if cookie.key not in entered.cookies and cookie["samesite"] == "Lax"
        ]
        assert len(begun) == 1
        async with Browser(office.url) as arriving:
            parts = urlsplit(address)
            page = await arriving.get(f"{parts.path}?{parts.query}", Cookie=begun[0])
        assert page.status == 200
        assert await office.state() is State.OK


async def test_somebody_else_cannot_sign_the_mailbox_in(office: Office) -> None:
    page = await office.come_back(await office.owner.sign_in(await office.begin(), BOB))
    assert page.status == 400
    assert BOB in page.text
    assert ALICE in page.text
    assert await office.state() is State.SIGN_IN_NEEDED


async def test_another_browser_cannot_finish_a_sign_in(office: Office) -> None:
    address = await office.owner.sign_in(await office.begin(), ALICE)
    async with Browser(office.url) as victim:
        page = await office.come_back(address, victim)
        assert page.status == 400
        assert "did not begin in this browser" in page.text
        # Not even one in which a sign-in of its own is under way.
        assert (await victim.get(START)).status == 302
        assert (await office.come_back(address, victim)).status == 400
    assert await office.state() is State.SIGN_IN_NEEDED
    assert (await office.come_back(address)).status == 200


async def test_an_answer_is_good_once(office: Office) -> None:
    address = await office.owner.sign_in(await office.begin(), ALICE)
    assert (await office.come_back(address)).status == 200
    assert (await office.come_back(address)).status == 400


async def test_an_answer_is_good_for_its_own_provider_only(office: Office) -> None:
    address = await office.owner.sign_in(await office.begin(), ALICE)
    page = await office.come_back(address.replace("/oauth/school/", "/oauth/other/"))
    assert page.status == 400
    assert await office.state() is State.SIGN_IN_NEEDED


async def test_two_sign_ins_at_a_time_in_one_browser_do_not_disturb_each_other(
    office: Office,
) -> None:
    first, second = await office.begin(), await office.begin()
    address = await office.owner.sign_in(first, ALICE)
    assert (await office.come_back(address)).status == 200
    assert (await office.come_back(await office.owner.sign_in(second, ALICE))).status == 200


async def test_who_says_no_is_told_so(office: Office) -> None:
    page = await office.come_back(await office.owner.refuse_to_sign_in(await office.begin()))
    assert page.status == 400
    assert "access_denied" in page.text
    assert await office.state() is State.SIGN_IN_NEEDED


async def test_an_answer_that_says_a_thing_twice_is_refused(office: Office) -> None:
    address = await office.owner.sign_in(await office.begin(), ALICE)
    assert (await office.come_back(f"{address}&code=another")).status == 400
    assert (await office.come_back(address)).status == 200


async def test_another_sites_page_cannot_begin_a_sign_in(office: Office) -> None:
    for site in ("cross-site", "same-site"):
        answer = await office.browser.get(START, **{"Sec-Fetch-Site": site})
        assert answer.status == 403
    assert (await office.browser.get(START, **{"Sec-Fetch-Site": "none"})).status == 302


async def test_a_provider_that_does_not_answer_is_told(
    tmp_path: Path, identity_provider: IdentityProvider
) -> None:
    nowhere = "https://127.0.0.1:9/t1/v2.0"
    async with office_of(tmp_path, identity_provider, issuer=nowhere) as office:
        page = await office.browser.get(START)
        assert page.status == 502
        assert "127.0.0.1:9" in page.text


async def test_without_a_name_the_mail_server_is_asked_whose_token_it_is(
    office: Office, identity_provider: IdentityProvider
) -> None:
    identity_provider.set(identity_in="none")
    page = await office.come_back(await office.owner.sign_in(await office.begin(), ALICE))
    assert page.status == 200
    assert [mailbox for mailbox, _ in office.relay.proved] == [ALICE]


async def test_revoking_ends_the_grant_at_the_provider(office: Office) -> None:
    assert (
        await office.come_back(await office.owner.sign_in(await office.begin(), ALICE))
    ).status == 200
    kept = await office.relay.store.load(ALICE)
    assert kept is not None
    csrf = (await office.browser.get("/")).csrf
    answer = await office.browser.send("/mailboxes/revoke", {"csrf": csrf, "mailbox": ALICE})
    assert (answer.status, "done=revoked" in answer.headers["Location"]) == (303, True)
    assert await office.state() is State.SIGN_IN_NEEDED
    await office.relay.store.save(ALICE, kept)
    with pytest.raises(GrantRevoked):
        await office.relay.tokens.refresh(office.relay.accounts[ALICE])


async def test_in_a_real_browser(tmp_path: Path, identity_provider: IdentityProvider) -> None:
    async with (
        office_of(tmp_path, identity_provider, token=TOKEN) as office,
        chromium.page() as page,
    ):
        await page.goto(f"{office.url}/")
        await page.get_by_label("Token of the admin server").fill(TOKEN)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name=f"Sign in {ALICE}").click()
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Allow").click()
        await page.get_by_text(f"{ALICE} is signed in").wait_for()
        await page.get_by_role("link", name="Back to the mailboxes").click()
        await page.get_by_text("Works", exact=False).first.wait_for()
        assert await office.state() is State.OK
