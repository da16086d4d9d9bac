"""The pages that show what was received, as text to programs and as a browser sees them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox

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
