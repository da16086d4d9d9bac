"""The admin pages in a real browser: by keyboard, on a telephone, in the dark, without a script."""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

from tests.support import chromium
from tests.support.operated import FROM_FILE, Operated, administered, gmail
from tests.support.waiting import until
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import current_grant
from xoauth2_proxy.oauth.stores import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, ConsoleMessage, Page, Request

pytestmark = [pytest.mark.outside, pytest.mark.asyncio(loop_scope="module")]

NEW = "new@example.com"
DEAD = "dead@example.com"
LONG = "a.very.long.local.part.that.does.not.fit.on.a.telephone@mail.department.example.org"
PATHS = ["/", "/mailboxes/new", "/providers", f"/mailboxes/revoke?mailbox={LONG}"]


@dataclass
class Desk:
    """A relay, and a browser that shows its pages."""

    relay: Operated
    url: str
    page: Page
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str = "/") -> None:
        await self.page.goto(self.url + path)

    async def focused(self) -> str:
        """What has the focus, in words: its role's element and its name."""
        found: str = await self.page.evaluate(
            "[document.activeElement.tagName, document.activeElement.getAttribute('aria-label')"
            " || document.activeElement.innerText || document.activeElement.id].join(' ')"
        )
        return found

    async def tab_to(self, words: str) -> None:
        """Press Tab until something of this name has the focus."""
        for _ in range(100):
            await self.page.keyboard.press("Tab")
            if words in await self.focused():
                return
        raise AssertionError(f"the keyboard does not reach {words!r}")


async def usual(relay: Operated) -> None:
    """Let one mailbox work and another be dead."""
    now = EpochSeconds(time.time())
    for key, failure in (
        (FROM_FILE, None),
        (DEAD, Failure(kind="revoked", oauth_error="invalid_grant", text="revoked", at=now)),
    ):
        grant = replace(
            current_grant(relay.accounts[key], None, now),
            refreshed_at=EpochSeconds(now - 600),
            access_token="x",
            access_token_expires_at=EpochSeconds(now + 3000),
            failure=failure,
        )
        await relay.store.save(key, grant)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium.browser() as started:
        yield started


@asynccontextmanager
async def desk_of(
    browser: Browser, directory: Path, document: dict[str, Any] | None = None
) -> AsyncIterator[Desk]:
    document = document or {"accounts": [gmail(FROM_FILE), gmail(DEAD), gmail(LONG)]}
    async with administered(directory, document) as (relay, url), chromium.page_in(browser) as page:
        desk = Desk(relay, url.replace("127.0.0.1", "localhost"), page)

        def said(message: ConsoleMessage) -> None:
            desk.complaints.append(f"{message.type}: {message.text}")

        def failed(request: Request) -> None:
            # A picture may still be on its way when the next page is opened.
            if "ERR_ABORTED" not in (request.failure or ""):
                desk.complaints.append(f"failed: {request.url}")

        page.on("console", said)
        page.on("pageerror", lambda error: desk.complaints.append(str(error)))
        page.on("requestfailed", failed)
        yield desk


@pytest_asyncio.fixture(loop_scope="module")
async def desk(browser: Browser, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_of(browser, tmp_path) as one:
        await usual(one.relay)
        yield one


async def test_pages_load_whole_and_without_a_word_in_the_console(desk: Desk) -> None:
    loaded: list[str] = []
    desk.page.on("response", lambda answer: loaded.append(f"{answer.status} {answer.url}"))
    for path in PATHS:
        await desk.open(path)
        assert await desk.page.evaluate("document.styleSheets.length") == 2
    assert desk.complaints == []
    assert not [one for one in loaded if not one.startswith(f"200 {desk.url}")]


async def test_the_security_policy_holds_in_the_browser(desk: Desk) -> None:
    await desk.open()
    for attempt in (
        "document.head.appendChild(document.createElement('style')).textContent = 'p{}'",
        "document.body.appendChild(document.createElement('script')).textContent = 'x = 1'",
        "document.body.appendChild(new Image()).src = 'http://127.0.0.1:9/x.png'",
    ):
        await desk.page.evaluate(attempt)
    for rule in ("style-src 'self'", "default-src 'none'", "img-src 'self'"):
        await until(lambda rule=rule: any(rule in one for one in desk.complaints))  # type: ignore[misc]
    assert not await desk.page.evaluate("'x' in window")


async def test_the_keyboard_reaches_everything_and_shows_where_it_is(desk: Desk) -> None:
    await desk.open()
    await desk.page.keyboard.press("Tab")
    assert "Skip to the content" in await desk.focused()
    await desk.page.keyboard.press("Enter")
    await desk.tab_to("Add a mailbox")
    await desk.tab_to(f"Refresh {FROM_FILE}")
    width = await desk.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(width.removesuffix("px")) >= 2
    await desk.page.keyboard.press("Enter")
    status = desk.page.get_by_role("status")
    await status.wait_for()
    assert FROM_FILE in await status.inner_text()
    assert desk.relay.answers.asked == [(FROM_FILE, f"refresh-of-{FROM_FILE}")]


async def test_a_mailbox_is_added_and_removed_by_keyboard_alone(desk: Desk) -> None:
    await desk.open("/mailboxes/new")
    keyboard = desk.page.keyboard
    await desk.tab_to("email")
    await keyboard.type(NEW)
    await desk.tab_to("provider")
    await keyboard.type("Google")
    await desk.tab_to("More settings")
    await keyboard.press("Enter")
    await desk.tab_to("client_id")
    await keyboard.type("a-client")
    await keyboard.press("Enter")
    await desk.page.get_by_role("heading", name="Mailbox added").wait_for()
    assert len(await desk.page.locator("#password").inner_text()) >= 24
    assert NEW in desk.relay.accounts
    await desk.open()
    await desk.tab_to(f"Remove {NEW}")
    await keyboard.press("Enter")
    await desk.page.get_by_role("heading", name=f"Remove {NEW}?").wait_for()
    assert NEW in desk.relay.accounts
    await desk.tab_to("Remove the mailbox")
    await keyboard.press("Enter")
    await desk.page.get_by_role("status").wait_for()
    assert NEW not in desk.relay.accounts
    assert desk.complaints == []


async def test_nothing_overflows_a_telephone(desk: Desk) -> None:
    await desk.page.set_viewport_size({"width": 320, "height": 700})
    for path in PATHS:
        await desk.open(path)
        needed, there = await desk.page.evaluate(
            "[document.documentElement.scrollWidth, innerWidth]"
        )
        assert needed <= there, path
    await desk.open()
    for button in await desk.page.locator(".actions .button, .actions button").all():
        box = await button.bounding_box()
        assert box is not None
        assert box["height"] >= 44  # what a thumb hits


async def test_a_screen_reader_is_told_rows_names_and_states(desk: Desk) -> None:
    await desk.page.set_viewport_size({"width": 360, "height": 740})
    await desk.open()
    row = desk.page.get_by_role("row").filter(has_text=DEAD)
    assert await row.get_by_role("rowheader").count() == 1
    assert await row.get_by_role("cell").count() == 4  # one is empty, and left out
    assert await desk.page.get_by_role("searchbox", name="Search address or provider").count() == 1
    names = await desk.page.get_by_role("link", name=re.compile("^Sign in .+@")).all()
    assert len(names) == 3
    await desk.open("/mailboxes/new")
    unnamed = await desk.page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), select')]"
        ".filter(one => !one.labels.length).length"
    )
    assert unnamed == 0


_CONTRAST = """() => {
  const channel = value => {
    value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const light = colour => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  for (const element of document.querySelectorAll('main *, header *, footer *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.offsetParent) continue;
    const [one, other] = [getComputedStyle(element).color, behind(element)].map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.className}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_is_readable_by_day_and_by_night(
    desk: Desk, scheme: Literal["light", "dark"]
) -> None:
    """WCAG 2.2 §1.4.3: a contrast of 4.5 to 1."""
    await desk.page.emulate_media(color_scheme=scheme)
    for path in PATHS:
        await desk.open(path)
        assert await desk.page.evaluate(_CONTRAST) == [], path


async def test_pictures_for_a_person_to_look_at(desk: Desk, tmp_path: Path) -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme, width in zip(schemes, (1280, 360), strict=True):
        await desk.page.emulate_media(color_scheme=scheme)
        await desk.page.set_viewport_size({"width": width, "height": 800})
        await desk.open()
        picture = tmp_path / f"mailboxes-{scheme}-{width}.png"
        await desk.page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000


async def test_thousands_of_mailboxes_are_found_by_a_word(browser: Browser, tmp_path: Path) -> None:
    document = {"accounts": [gmail(f"mailbox{number:04}@example.com") for number in range(2000)]}
    async with desk_of(browser, tmp_path, document) as desk:
        await desk.open()
        await desk.page.get_by_role("link", name="Page 40").click()
        await desk.page.get_by_text("mailbox1999").wait_for()
        await desk.page.get_by_label("Search address or provider").fill("mailbox1234")
        await desk.page.keyboard.press("Enter")
        await desk.page.get_by_text("1 mailbox", exact=True).wait_for()
        assert await desk.page.get_by_role("rowheader").count() == 1
