"""What clients, programs and people do with the relay of `exposed`, and all that they are answered.

Each function walks good ways and bad ones, and returns what was said on them.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from tests.support.admin_visits import Browser
from tests.support.exposed import ECHOED, OIDC, POSTED, SCRIPTED, Exposed
from tests.support.person import Person
from tests.support.sign_ins import ALICE
from tests.support.treachery import TREACHERIES
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.support.admin_visits import Answer
    from tests.support.proxy_process import ProxyProcess

AT_ONCE = 8  # clients


# Mail clients.


async def send(proxy: ProxyProcess, mailbox: str, password: str) -> tuple[bool, str]:
    """Log in and send; return whether the message was taken, and all that was answered."""
    async with await proxy.connect() as client:
        await client.ehlo()
        answers = [await client.auth_plain(mailbox, password)]
        if answers[0].is_positive:
            lines = (f"MAIL FROM:<{mailbox}>", "RCPT TO:<to@example.net>", "DATA")
            answers += [await client.command(line) for line in lines]
            if answers[-1].code == 354:
                client.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
                answers.append(await client.reply())
        return answers[-1].code == 250, "\n".join(map(str, answers))


async def send_from_all(proxy: ProxyProcess, exposed: Exposed) -> list[str]:
    """Send from every mailbox, and with a wrong password; return what was answered."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(mailbox: str, password: str) -> tuple[bool, str]:
        async with places:
            return await send(proxy, mailbox, password)

    mailboxes = [*exposed.good, *exposed.bad]
    told = await asyncio.gather(
        *(one(mailbox, exposed.passwords[mailbox]) for mailbox in mailboxes),
        *(one(mailbox, exposed.planted.new("a wrong password")) for mailbox in mailboxes[:4]),
    )
    taken = {mailbox for mailbox, (is_taken, _) in zip(mailboxes, told, strict=False) if is_taken}
    assert taken == set(exposed.good), [text for _, text in told]
    return [text for _, text in told]


# The admin server.


PATHS = (
    *("/", "/?q=betrayed", "/?state=ok", "/providers", "/mailboxes/new", "/login", "/health"),
    *("/health/ready", "/metrics", "/accounts", "/oauth/providers", "/nowhere", "/static/none"),
)


async def look_at_everything(proxy: ProxyProcess, exposed: Exposed, token: str) -> list[str]:
    """Ask for every page with the right token, a wrong one and none."""
    wrong = exposed.planted.new("a wrong admin token", is_plain=True)
    mailboxes = [*exposed.passwords, "nobody@example.com"]
    asked = [*PATHS, *(f"/accounts/{quote(mailbox)}" for mailbox in mailboxes)]
    asked += [f"/mailboxes/revoke?mailbox={quote(mailbox)}" for mailbox in mailboxes[:3]]
    refused = [*PATHS, *asked[-4:]]  # whoever is refused sees the same of every mailbox
    async with Browser(proxy.admin_url) as browser:
        return [
            shown(await browser.get(path, Authorization=header))
            for header, paths in (
                (f"Bearer {token}", asked),
                *((other, refused) for other in (f"Bearer {wrong}", f"Basic {wrong}", "")),
            )
            for path in paths
        ]


async def post(proxy: ProxyProcess, exposed: Exposed, token: str) -> list[str]:
    """Add mailboxes, right and wrong ones; use, refresh, revoke and remove them."""
    planted, said = exposed.planted, []
    odd = planted.new("a misplaced secret")
    good = exposed.added(POSTED, "posted")
    wrong = [
        exposed.added("wrong@example.com", "posted", **changes)
        for changes in (
            {"client_secret": [odd]},
            {"client_secret": "${" + odd + "}"},
            {"refresh_token": {"file": odd}},
            {"parameters": {"client_secret": odd}},
            {"clientSecret": odd},
            {"tenant": odd},
            {"scopes": [odd, 1]},
            {"oauth_token_url": f"https://me:{odd}@example.com"},
            {"upstream": {"host": odd, "port": odd}},
            {"verify": odd},
        )
    ]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with Browser(proxy.admin_url) as browser:

        async def ask(method: str, path: str, body: object = None, expected: int = 0) -> None:
            text = body if isinstance(body, str) else json.dumps(body)
            answer = await browser.ask(method, path, data=text, headers=headers)
            assert answer.status == expected or not expected, answer.text
            said.append(shown(answer))

        await ask("POST", "/accounts", good, 201)
        await ask("POST", "/accounts", good, 409)
        for document in wrong:
            await ask("POST", "/accounts", document, 400)
            await ask("POST", "/accounts", json.dumps(document)[:-1], 400)
        await ask("POST", "/accounts", exposed.added("bad@example.com", "posted-badly"), 400)
        batch = [
            exposed.added(f"b{n}@example.com", name)
            for n, name in enumerate(("posted", "posted-badly"))
        ]
        await ask("POST", "/accounts/batch", batch, 206)
        await ask("POST", "/accounts/batch", wrong, 400)
        for mailbox in (POSTED, OIDC, "gmail@example.com", exposed.bad[0], ECHOED):
            await ask("POST", f"/accounts/{mailbox}/refresh")
        assert said[-5].startswith("200"), said[-5]
        for mailbox in (OIDC, POSTED):
            await ask("POST", f"/accounts/{mailbox}/revoke")
        await ask("DELETE", f"/accounts/{POSTED}", expected=200)
        await ask("DELETE", "/accounts/invalid", expected=200)
        await ask("POST", "/reload", expected=200)
        await browser.enter(planted.new("a wrong admin token", is_plain=True))
        assert (await browser.enter(token)).status == 303
        csrf = (await browser.get("/mailboxes/new")).csrf
        for email, provider in (("f1@example.com", "posted"), ("f2 example.com", odd)):
            form = {"csrf": csrf, "email": email, "provider": provider, "client_id": "id"}
            form["client_secret"] = planted.new("a typed client secret")
            said.append(shown(await browser.send("/mailboxes/new", form)))
    return said


async def sign_in(proxy: ProxyProcess, exposed: Exposed, token: str) -> list[str]:
    """Sign mailboxes in on the admin pages: well, with wrong codes, and where these are echoed."""
    planted, said = exposed.planted, []

    async def begin(provider: str, mailbox: str) -> str:
        answer = await browser.get(f"/oauth/{provider}/login?mailbox={mailbox}")
        assert answer.status == 302, answer.text
        url = str(answer.headers["Location"])
        asked = parse_qs(urlsplit(url).query)
        for name in ("state", "nonce"):
            if name in asked:
                planted.add(f"a {name}", asked[name][0])
        return url

    async def come_back(address: str, expected: int) -> None:
        parts = urlsplit(address)
        for name, values in parse_qs(parts.query).items():
            if name in ("code", "state"):
                planted.add(f"a {name}", values[0])
        answer = await browser.get(f"{parts.path}?{parts.query}")
        assert answer.status == expected, answer.text
        said.append(shown(answer))

    def answer_to(url: str, **answer: str) -> str:
        state = parse_qs(urlsplit(url).query)["state"][0]
        query = "&".join(f"{name}={quote(value)}" for name, value in answer.items())
        return f"/oauth/scripted/callback?state={state}&{query}"

    async with Browser(proxy.admin_url) as browser, Person(exposed.identity) as person:
        assert (await browser.enter(token)).status == 303
        address = await person.sign_in(await begin("school", ALICE), ALICE)
        wrong = planted.new("a code", is_plain=True)
        await come_back(address, 200)
        await come_back(address, 400)
        address = await person.sign_in(await begin("school", ALICE), ALICE)
        await come_back(re.sub("code=[^&]+", f"code={wrong}", address), 400)
        for treachery in TREACHERIES.values():
            exposed.betrays("/scripted/token", treachery)
            url = await begin("scripted", SCRIPTED)
            parts = urlsplit(answer_to(url, code=planted.new("a code")))
            answer = await browser.get(f"{parts.path}?{parts.query}")
            assert answer.status >= 400
            said.append(shown(answer))
        url = await begin("scripted", SCRIPTED)
        await come_back(answer_to(url, error="access_denied", error_description="no"), 400)
    return said


async def speak_no_http(proxy: ProxyProcess, exposed: Exposed) -> None:
    """Send the admin server secrets that it cannot even read; its answers go to who knows them."""
    parts = urlsplit(proxy.admin_url)
    for line in (
        "{} HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nAuthorization Bearer {}\r\n\r\n",
        "GET / HTTP/1.1\r\nAuthorization: Bearer {}\0\r\n\r\n",
        "GET / HTTP/{}\r\n\r\n",
        "POST /accounts HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(line.format(exposed.planted.new("what is no HTTP")).encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert b" 400 " in await reader.read(65_536)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def shown(answer: Answer) -> str:
    """Return all of an answer that is not the way to the provider, which holds the state."""
    headers = {name: value for name, value in answer.headers.items() if name != "Location"}
    return f"{answer.status} {headers}\n{answer.text}"
