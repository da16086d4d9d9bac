"""The pages that show what was received, as text to programs and as a browser sees them."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import page as chromium
from tests.support.raw_smtp import MAILBOX, RawSmtp
from xoauth2_proxy.sandbox.app import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp

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

HARMLESS = MESSAGE.replace(f"<p>{HOSTILE}</p>".encode(), b"<p style='color: red'>harmless</p>")
HTML_ONLY = (
    b'Subject: News\r\nContent-Type: text/html\r\n\r\n<p style="color: red">Good news.</p>\r\n'
)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path) as sandbox:
        yield sandbox


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


SUBJECTS = (b"Subject: Invoice 1", b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", b"X-Subject: Invoice")


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ("invoice", [1]),
        ("GRÜSSE", [2]),
        ("Someone@Example.COM", [3, 2, 1]),
        (MAILBOX, [3, 2, 1]),
        ("nowhere to be found", []),
        ("  ", [3, 2, 1]),
    ],
)
async def test_messages_are_found_by_sender_recipient_and_subject(
    sandbox: Sandbox, http: aiohttp.ClientSession, query: str, seqs: list[int]
) -> None:
    await deliver(sandbox, *(subject + b"\r\n\r\nbody\r\n" for subject in SUBJECTS))
    async with http.get("/", params={"q": query}) as response:
        html = await response.text()
    assert [int(seq) for seq in re.findall(r'href="/messages/(\d+)"', html)] == seqs
    assert ("No message contains" in html) == (not seqs)


async def test_a_search_goes_on_where_the_page_ends(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, *(b"Subject: a&b %d\r\n\r\n" % number for number in range(1, 53)))
    html = await text_of(http, "/?q=a%26b")
    assert len(re.findall(r"/messages/\d+", html)) == 50
    (older,) = re.findall(r'href="(/\?q=[^"]*before=\d+)"', html)
    html = await text_of(http, older.replace("&amp;", "&"))
    assert re.findall(r"/messages/(\d+)", html) == ["2", "1"]


async def test_a_search_examines_only_so_many_messages_at_a_time(
    sandbox: Sandbox, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.sandbox.web.pages.MAX_EXAMINED", 2)
    await deliver(sandbox, *(subject + b"\r\n\r\n" for subject in SUBJECTS))
    html = await text_of(http, "/?q=invoice+1")
    assert "No message among the newest contains" in html
    assert "/messages/1" in await text_of(http, "/?q=invoice+1&before=2")


async def test_what_is_searched_for_never_becomes_html(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, b"Subject: a\r\n\r\n")
    async with http.get("/", params={"q": f'">{HOSTILE}'}) as response:
        html = await response.text()
    assert "<script" not in html
    assert 'value="&#34;&gt;&lt;script' in html


async def test_the_form_of_the_page_deletes_all_messages(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, MESSAGE, MESSAGE)
    async with http.post("/clear", headers={"Origin": sandbox.http_url}) as response:
        assert (response.status, response.url.path) == (200, "/")
        assert "No messages are stored here." in await response.text()
    assert len(sandbox.received) == 0


@pytest.mark.parametrize(
    "origin", ["null", "http://example.org", "http://127.0.0.1:1", "https://127.0.0.1", ""]
)
async def test_no_other_page_can_delete_messages(
    sandbox: Sandbox, http: aiohttp.ClientSession, origin: str
) -> None:
    await deliver(sandbox, MESSAGE)
    async with http.post("/clear", headers={"Origin": origin}) as response:
        assert response.status == 403
    assert len(sandbox.received) == 1


async def test_a_browser_searches_and_deletes(sandbox: Sandbox) -> None:
    await deliver(sandbox, *(subject + b"\r\n\r\n" for subject in SUBJECTS), HTML_ONLY)
    async with chromium() as page:
        await page.goto(sandbox.http_url)
        await page.get_by_label("Sender, recipient or subject").fill("Grüße")
        await page.get_by_role("button", name="Search").click()
        assert await page.get_by_role("row").count() == 2, "the heads of columns, and one message"
        await page.get_by_role("link", name="All messages").click()
        await page.get_by_text("Delete all messages").click()
        await page.get_by_role("button", name="Delete 4 messages for good").click()
        await page.get_by_text("No messages are stored here.").wait_for()
    assert len(sandbox.received) == 0


@pytest.mark.parametrize("path", ["/", "/messages/1"])
async def test_what_was_sent_never_becomes_html(
    sandbox: Sandbox, http: aiohttp.ClientSession, path: str
) -> None:
    await deliver(sandbox, MESSAGE)
    html = await text_of(http, path)
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


async def test_html_is_shown_in_a_frame_and_as_its_source(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, HTML_ONLY, b"Subject: a\r\n\r\nplain\r\n")
    html = await text_of(http, "/messages/1")
    (frame,) = re.findall("<iframe[^>]*>", html)
    assert ' sandbox="" ' in frame
    assert 'srcdoc="&lt;!DOCTYPE html&gt;&lt;meta http-equiv' in frame
    assert "&lt;p style=&#34;color: red&#34;&gt;" in frame
    (source,) = re.findall(r"<summary>Source</summary>\s*<pre[^>]*>([^<]*)</pre>", html)
    assert source.startswith("&lt;p style=")
    assert "<iframe" not in await text_of(http, "/messages/2")


async def test_only_a_page_with_html_allows_its_styles_and_pictures(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, HTML_ONLY, b"Subject: a\r\n\r\nplain\r\n")
    policies = []
    for path in ("/messages/1", "/messages/2", "/"):
        async with http.get(path) as response:
            policies.append(response.headers["Content-Security-Policy"])
    assert policies[1] == policies[2].replace("form-action 'self'", "form-action 'none'")
    rules = [dict(rule.strip().split(" ", 1) for rule in one.split(";")) for one in policies]
    differing = {name: rule for name, rule in rules[0].items() if rules[1][name] != rule}
    assert differing == {"style-src": "'self' 'unsafe-inline'", "img-src": "'self' data:"}


async def test_a_message_that_is_gone_is_told_so(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox, MESSAGE)
    assert "No such message" in await text_of(http, "/messages/2", 404)
    next(iter(sandbox.received)).content = None
    html = await text_of(http, "/messages/1")
    assert "no longer stored" in html
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
    await deliver(sandbox, b"Subject: a\r\n\r\nplain\r\n")
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


@pytest.mark.outside
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
async def test_a_browser_shows_it_without_complaint(
    sandbox: Sandbox, scheme: str, width: int, tmp_path: Path
) -> None:
    await deliver(
        sandbox, HARMLESS, b"Subject: " + b"long" * 60 + b"\r\n\r\n" + b"x" * 900 + b"\r\n"
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
            await page.get_by_role("link", name="Download the original").click()
        path = await (await download.value).path()
        assert path.read_bytes() == HARMLESS
    assert complaints == []
    assert all(url.startswith(sandbox.http_url) for url in requested)


# Rendered HTML, harmless and hostile.


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


@pytest.mark.outside
@pytest.mark.parametrize("width", [1200, 390])
async def test_html_is_shown_as_it_looks_and_can_do_nothing(
    sandbox: Sandbox, width: int, tmp_path: Path
) -> None:
    async with Elsewhere() as elsewhere, chromium() as page:
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
