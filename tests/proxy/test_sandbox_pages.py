"""The pages that show what was received, as text to programs and as a browser sees them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.chromium import page as chromium
from tests.support.raw_smtp import MAILBOX, RawSmtp
from xoauth2_proxy.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOSTILE = "<script>document.title='owned'</script><img src=http://192.0.2.1/x onerror=alert(1)>"
MESSAGE = (
    f"Subject: Hello {HOSTILE}\r\n"
    "X-Odd: <b>&amp;</b>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: multipart/alternative; boundary=x\r\n\r\n"
    "--x\r\nContent-Type: text/plain\r\n\r\nplain & simple\r\n"
    f"--x\r\nContent-Type: text/html\r\n\r\n<p>{HOSTILE}</p>\r\n"
    "--x\r\nContent-Type: image/png; name=a.png\r\n\r\nno picture\r\n--x--\r\n"
).encode()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.http_url) as session:
        yield session


async def deliver(sandbox: Sandbox, *contents: bytes) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        for content in contents:
            assert (await client.deliver(content)).startswith("250 ")


async def text_of(http: aiohttp.ClientSession, path: str, status: int = 200) -> str:
    async with http.get(path) as response:
        assert (response.status, response.content_type) == (status, "text/html")
        return await response.text()


async def test_without_messages_it_says_so(http: aiohttp.ClientSession) -> None:
    assert "Nothing has been received yet" in await text_of(http, "/")


async def test_messages_are_listed_newest_first(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, *(b"Subject: number %d\r\n\r\n" % number for number in range(1, 53)))
    html = await text_of(http, "/")
    assert re.findall(r"number (\d+)", html) == [str(number) for number in range(52, 2, -1)]
    assert html.count(MAILBOX) == html.count("someone@example.com") == 50
    (older,) = re.findall(r'href="(/\?before=\d+)"', html)
    html = await text_of(http, older)
    assert re.findall(r"number (\d+)", html) == ["2", "1"]
    assert "before" not in html


async def test_a_message_is_shown_with_its_parts(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, MESSAGE)
    html = await text_of(http, "/messages/1")
    (message,) = sandbox.received
    for shown in (message.sha256, message.id, "plain &amp; simple", "a.png", "X-Odd"):
        assert shown in html
    assert "Not shown." in html
    assert 'href="/messages/1/content"' in html


@pytest.mark.parametrize("path", ["/", "/messages/1"])
async def test_what_was_sent_never_becomes_html(
    sandbox: Sandbox, http: aiohttp.ClientSession, path: str
) -> None:
    await deliver(sandbox, MESSAGE)
    html = await text_of(http, path)
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


async def test_a_message_that_is_gone_is_told_so(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, MESSAGE)
    assert "No such message" in await text_of(http, "/messages/2", 404)
    next(iter(sandbox.received)).content = None
    html = await text_of(http, "/messages/1")
    assert "no longer kept" in html
    assert MAILBOX in html
    assert "(no subject)" in await text_of(http, "/")


async def test_many_recipients_are_counted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        await client.command("MAIL FROM:<>")
        for number in range(100):
            await client.command(f"RCPT TO:<r{number}@example.com>")
        await client.command("DATA")
        client.send(b"\r\n.\r\n")
        assert (await client.reply()).startswith("250 ")
    assert "and 99 more" in await text_of(http, "/")
    html = await text_of(http, "/messages/1")
    assert html.count("@example.com") == 100
    assert "&lt;&gt;" in html


@pytest.mark.parametrize("path", ["/", "/messages/1", "/static/sandbox.css", "/stats", "/nowhere"])
async def test_every_answer_keeps_to_itself(
    sandbox: Sandbox, http: aiohttp.ClientSession, path: str
) -> None:
    await deliver(sandbox, MESSAGE)
    async with http.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_content_is_for_download(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox, MESSAGE)
    async with http.get("/messages/1/content") as response:
        assert response.headers["Content-Disposition"] == 'attachment; filename="message-1.eml"'


@pytest.mark.parametrize("path", ["/static/app.py", "/static/..%2Fapp.py", "/static/"])
async def test_nothing_else_is_served(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 404


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
async def test_a_browser_shows_it_without_complaint(
    sandbox: Sandbox, scheme: str, width: int, tmp_path: Path
) -> None:
    await deliver(
        sandbox, MESSAGE, b"Subject: " + b"long" * 60 + b"\r\n\r\n" + b"x" * 900 + b"\r\n"
    )
    async with chromium() as page:
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
            await page.get_by_role("link", name="Download as it came").click()
        path = await (await download.value).path()
        assert path.read_bytes() == MESSAGE
    assert complaints == []
    assert all(url.startswith(sandbox.http_url) for url in requested)
