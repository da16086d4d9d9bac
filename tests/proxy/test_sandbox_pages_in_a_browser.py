"""The sandbox's pages in a real browser: what was received and refused, by day and by night."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.proxy.test_sandbox_pages import HARMLESS, HTML_ONLY, SUBJECTS, deliver
from tests.support import chromium
from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

pytestmark = [pytest.mark.outside, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium.browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    async with chromium.page_in(browser) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path) as running:
        yield running


async def test_a_browser_searches_and_deletes(sandbox: Sandbox, page: Page) -> None:
    await deliver(sandbox, *(subject + b"\r\n\r\n" for subject in SUBJECTS), HTML_ONLY)
    await page.goto(sandbox.http_url)
    await page.get_by_label("Sender, recipient or subject").fill("Grüße")
    await page.get_by_role("button", name="Search").click()
    assert await page.get_by_role("row").count() == 2, "the heads of columns, and one message"
    await page.get_by_role("link", name="All messages").click()
    await page.get_by_text("Delete all messages").click()
    await page.get_by_role("button", name="Delete 4 messages for good").click()
    await page.get_by_text("No messages are stored here.").wait_for()
    assert len(sandbox.received) == 0


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
async def test_a_browser_shows_it_without_complaint(
    sandbox: Sandbox, page: Page, scheme: str, width: int, tmp_path: Path
) -> None:
    await deliver(
        sandbox, HARMLESS, b"Subject: " + b"long" * 60 + b"\r\n\r\n" + b"x" * 900 + b"\r\n"
    )
    complaints: list[str] = []
    requested: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requested.append(request.url))
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(f"{sandbox.http_url}/")
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    await page.get_by_role("link", name="Hello <script>").click()
    await page.wait_for_url("**/messages/1")
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    assert (await page.title()).startswith("Hello <script>")
    assert "plain & simple" in await page.inner_text("main")
    back = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(251, 251, 250)", "dark": "rgb(21, 25, 29)"}[scheme]
    picture = await page.screenshot(path=tmp_path / "message.png", full_page=True)
    assert picture.startswith(b"\x89PNG")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download the original").click()
    path = await (await download.value).path()
    assert path.read_bytes() == HARMLESS
    assert complaints == []
    assert all(url.startswith(sandbox.http_url) for url in requested)


class Elsewhere:
    """A server that a message wants its reader's browser to visit."""

    def __init__(self) -> None:
        self.visits = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Elsewhere:
        self._server = await asyncio.start_server(self._note, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _note(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


PIXEL = (
    "data:image/png;base64,"
    + base64.b64encode(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
            "0000000d49444154789c63f8cf00f01f000500010055a0d8c70000000049454e44ae426082"
        )
    ).decode()
)


def hostile(elsewhere: str, here: str) -> bytes:
    """Return a message that tries everything HTML can do to its reader."""
    html = f"""
        <html><head><base href="{elsewhere}/base/" target="_top">
        <meta http-equiv="refresh" content="0;url={elsewhere}/refresh">
        <meta http-equiv="Content-Security-Policy" content="default-src *">
        <link rel="preconnect" href="{elsewhere}"><link rel="dns-prefetch" href="{elsewhere}">
        <link rel="stylesheet" href="{elsewhere}/a.css"><link rel="icon" href="{elsewhere}/i">
        <style>@import url("{elsewhere}/b.css"); @font-face {{ font-family: f;
        src: url("{elsewhere}/f") }} p {{ font-family: f; background: url("{elsewhere}/bg") }}
        </style><script>alert(1)</script><script src="{elsewhere}/s.js"></script></head>
        <body onload="alert(2)" background="{elsewhere}/body">
        <p style="color: rgb(200, 0, 0); background-image: url({elsewhere}/p)">Dear reader</p>
        <img src="{elsewhere}/img" onerror="alert(3)"><img src=x onerror=alert(4)>
        <img srcset="{elsewhere}/set 1x"><img src="{here}/static/icon.svg"><img src="/stats">
        <img id="good" src="{PIXEL}" alt="" width="20" height="20">
        <svg onload="alert(5)"><image href="{elsewhere}/svg"/><use href="{elsewhere}/u#a"/></svg>
        <video src="{elsewhere}/v" poster="{elsewhere}/po" autoplay></video>
        <audio src="{elsewhere}/au" autoplay></audio><object data="{elsewhere}/o"></object>
        <embed src="{elsewhere}/e"><iframe src="{elsewhere}/if"></iframe>
        <iframe srcdoc="&lt;script&gt;alert(6)&lt;/script&gt;"></iframe>
        <a id="top" href="{elsewhere}/top" target="_top" ping="{elsewhere}/ping">Top</a>
        <a id="blank" href="{elsewhere}/blank" target="_blank">Blank</a>
        <a id="self" href="{elsewhere}/self" target="_self">Self</a>
        <a id="script" href="javascript:alert(7)" target="_self">Script</a>
        <form action="{elsewhere}/form" target="_top"><input name="a" value="b" autofocus
        onfocus="alert(8)"><button id="send">Send</button></form>
        &lt;/iframe&gt; "> '> </iframe><script>alert(9)</script></body></html>"""
    head = "Subject: Hostile\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    return (head + "\r\n".join(html.split("\n")) + "\r\n").encode()


@pytest.mark.parametrize("width", [1200, 390])
async def test_html_is_shown_as_it_looks_and_can_do_nothing(
    sandbox: Sandbox, page: Page, width: int, tmp_path: Path
) -> None:
    async with Elsewhere() as elsewhere:
        await deliver(sandbox, hostile(elsewhere.url, sandbox.http_url))
        dialogs: list[str] = []
        answered: list[str] = []
        opened: list[object] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.on("response", lambda response: answered.append(response.url))
        page.context.on("page", lambda one: opened.append(one))
        await page.set_viewport_size({"width": width, "height": 800})
        url = f"{sandbox.http_url}/messages/1"
        await page.goto(url, wait_until="networkidle")

        frame = page.frame_locator("iframe.mail")
        shown = frame.get_by_text("Dear reader")
        assert await shown.is_visible()
        assert await shown.evaluate("one => getComputedStyle(one).color") == "rgb(200, 0, 0)"
        assert await frame.locator("#good").evaluate("one => one.naturalWidth") == 1
        await page.screenshot(path=tmp_path / "html.png", full_page=True)
        for name in ("top", "blank", "script", "send", "self"):
            await frame.locator(f"#{name}").click(no_wait_after=True)
        assert "Dear reader" not in await page.locator("details pre").inner_text()
        await page.get_by_text("Source").click()
        assert "Dear reader" in await page.locator("details pre").inner_text()

        assert page.url == url
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert (dialogs, opened, elsewhere.visits) == ([], [], 0)
        assert {one.removeprefix(sandbox.http_url) for one in answered} <= {
            *("/messages/1", "/static/base.css", "/static/sandbox.css", "/static/icon.svg", PIXEL),
        }


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
async def test_a_browser_shows_what_was_refused(
    sandbox: Sandbox, page: Page, scheme: str, width: int
) -> None:
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(f"{sandbox.http_url}/")
    await page.get_by_role("link", name="Refused").click()
    assert "Nothing has been refused yet" in await page.inner_text("main")
    hostile = "<script>alert(1)</script>" + "x" * 200 + "@example.org"
    async with RawSmtp(sandbox) as client:
        await client.begin()
        await client.authenticate(hostile, sandbox.tokens.mint(MAILBOX))
    for number in range(51):
        sandbox.refusals.add("127.0.0.1:1", "", "MAIL", b"550 5.7.1 No\r\n", f"why {number}")
    await page.reload()
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    assert await page.get_by_role("rowheader").count() == 50
    await page.get_by_role("link", name="Older").click()
    text = await page.inner_text("main")
    assert f"the token is of {MAILBOX}, the login says <script>" in text
    assert "535 5.7.8" in text
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    assert complaints == []
