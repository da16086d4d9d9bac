"""A new user tries sign-in without an account, with the example's mailbox of the sandbox.

Proxy and commands are processes; people follow the pages' forms, one of them in Chromium.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from tests.support import chromium
from tests.support.admin_visits import Browser
from tests.support.command_line import CommandLine, said_here
from tests.support.person import LoopbackServer, Person, user_code_in
from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from xoauth2_proxy.smtp.protocol import Reply

pytestmark = pytest.mark.one_loop

MAILBOX = "you@sandbox.example"
PASSWORD = "secret"
EXAMPLE = json.loads((ROOT / "accounts.example.json").read_text())


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProxyProcess]:
    async with ProxyProcess(tmp_path, EXAMPLE, "--sandbox", "--workers", request.param) as proxy:
        yield proxy


@pytest.fixture
async def one_process(tmp_path: Path) -> AsyncIterator[ProxyProcess]:
    async with ProxyProcess(tmp_path, EXAMPLE, "--sandbox") as proxy:
        yield proxy


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "proxy.json", tmp_path)


async def sandbox_of(proxy: ProxyProcess) -> LoopbackServer:
    _, body = await proxy.get("/health")
    return LoopbackServer(json.loads(body)["sandbox"]["http"])


async def log_in(proxy: ProxyProcess) -> Reply:
    async with await proxy.connect() as client:
        await client.ehlo()
        return await client.auth_plain(MAILBOX, PASSWORD)


async def has_sent(proxy: ProxyProcess) -> bool:
    """Send a message; False if the login is refused: a worker looks at the store once a second."""
    async with await proxy.connect() as client:
        await client.ehlo()
        if (await client.auth_plain(MAILBOX, PASSWORD)).code == 535:
            return False
        answer = await client.send(b"Subject: a\r\n\r\nb\r\n", "someone@example.com")
        assert answer.code == 250, str(answer)
    return True


async def send(proxy: ProxyProcess) -> None:
    assert await has_sent(proxy)


async def received(sandbox: LoopbackServer) -> list[str]:
    """Return the mailboxes of the messages that the sandbox got."""
    async with aiohttp.ClientSession(sandbox.issuer) as http, http.get("/messages") as response:
        return [one["mailbox"] for one in (await response.json())["messages"]]


async def sign_in(command_line: CommandLine, sandbox: LoopbackServer) -> None:
    """Sign in by `login --web`, with a browser that is plain HTTP."""
    async with command_line.start("login", MAILBOX, "--web") as command:
        async with Person(sandbox) as person:
            redirect = await person.sign_in(await command.url(), MAILBOX)
            status, page = await person.visit(redirect)
        assert status == 200
        assert "Signed in" in page
        assert await command.ends() == 0, command.text
    assert f"Signed in: {MAILBOX}, as {MAILBOX}" in command.lines


async def test_login_mail_status_doctor_and_revocation(
    proxy: ProxyProcess, command_line: CommandLine
) -> None:
    sandbox = await sandbox_of(proxy)
    assert (await log_in(proxy)).code == 535
    assert (await command_line.ask("status")).code == 1

    await sign_in(command_line, sandbox)
    await until(lambda: has_sent(proxy))
    assert await received(sandbox) == [MAILBOX]
    status = await command_line.ask("status")
    assert status.code == 0, status.stdout
    doctor = await command_line.run("doctor", MAILBOX)
    assert doctor.code == 0, doctor.text
    assert f"{MAILBOX} is well." in doctor.stdout
    doctor = await command_line.run("doctor", "--all")
    assert doctor.lines[-1] == "5 of 5 mailboxes are well.", doctor.stdout
    assert doctor.code == 0
    grant = command_line.grant(MAILBOX)
    assert grant is not None

    assert (await command_line.ask("revoke", MAILBOX, "--url", proxy.admin_url)).code == 0
    async with aiohttp.ClientSession(sandbox.issuer) as http:
        form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
        form["client_id"] = "xoauth2-proxy"
        async with http.post("/oauth/token", data=form) as response:
            assert (response.status, (await response.json())["error"]) == (400, "invalid_grant")
        async with http.post("/test/tokens/explain", json={"token": grant["access_token"]}) as one:
            assert (await one.json())["reason"] == "revoked"
    await until(lambda: _is_refused(proxy))
    assert command_line.leaked(proxy.stdout, proxy.stderr) == []


async def _is_refused(proxy: ProxyProcess) -> bool:
    return (await log_in(proxy)).code == 535


async def test_a_sign_in_outlives_a_restart(tmp_path: Path, command_line: CommandLine) -> None:
    async with ProxyProcess(tmp_path, EXAMPLE, "--sandbox") as proxy:
        await sign_in(command_line, await sandbox_of(proxy))
        assert await proxy.stop() == 0
    async with ProxyProcess(tmp_path, EXAMPLE, "--sandbox") as proxy:
        await send(proxy)


async def test_on_another_device(one_process: ProxyProcess, command_line: CommandLine) -> None:
    sandbox = await sandbox_of(one_process)
    async with command_line.start("login", MAILBOX, "--device") as command:
        await until(lambda: "Waiting" in command.stdout)
        async with Person(sandbox) as person:
            page = f"{sandbox.issuer}/oauth/device"
            said = await person.approve_device(page, user_code_in(command.stdout), MAILBOX)
        assert "Device allowed" in said
        assert await command.ends() == 0, command.text
    await send(one_process)


async def test_a_refusal_is_told(one_process: ProxyProcess, command_line: CommandLine) -> None:
    sandbox = await sandbox_of(one_process)
    async with command_line.start("login", MAILBOX, "--web") as command:
        async with Person(sandbox) as person:
            redirect = await person.sign_in(await command.url(), MAILBOX, consents=False)
            status, page = await person.visit(redirect)
        assert status == 400
        assert "access_denied" in page
        assert await command.ends() == 1
    assert "access_denied" in command.stderr
    assert command_line.grant(MAILBOX) is None


async def test_somebody_else_is_not_let_in(
    one_process: ProxyProcess, command_line: CommandLine
) -> None:
    sandbox = await sandbox_of(one_process)
    async with command_line.start("login", MAILBOX, "--paste") as command:
        async with Person(sandbox) as person:
            await command.type(await person.sign_in(await command.url(), "me@sandbox.example"))
        assert await command.ends() == 1
    assert "me@sandbox.example signed in" in command.text
    assert command_line.grant(MAILBOX) is None


async def test_in_a_real_browser(one_process: ProxyProcess, command_line: CommandLine) -> None:
    async with chromium.page() as page, command_line.start("login", MAILBOX, "--web") as command:
        await page.goto(await command.url())
        assert await page.input_value("#login") == MAILBOX
        await page.fill("#password", "any")
        await page.click("button[value=login]")
        await page.click("button[value=allow]")
        await page.wait_for_url("http://127.0.0.1:*/*code=*")
        assert await page.inner_text("h1") == "Signed in"
        assert await command.ends() == 0, command.text
    await send(one_process)


async def test_in_a_real_browser_it_is_refused(
    one_process: ProxyProcess, command_line: CommandLine
) -> None:
    async with chromium.page() as page, command_line.start("login", MAILBOX, "--web") as command:
        await page.goto(await command.url())
        await page.click("button[value=deny]")
        await page.wait_for_url("http://127.0.0.1:*/*error=access_denied*")
        assert await page.inner_text("h1") == "Not signed in"
        assert await command.ends() == 1


async def test_from_the_admin_page(proxy: ProxyProcess) -> None:
    sandbox = await sandbox_of(proxy)
    async with Browser(proxy.admin_url) as browser, Person(sandbox) as person:
        begun = await browser.get(f"/oauth/sandbox/login?mailbox={MAILBOX}")
        assert begun.status == 302, begun.text
        address = str(begun.headers["Location"])
        assert parse_qs(urlsplit(address).query)["code_challenge_method"] == ["S256"]
        parts = urlsplit(await person.sign_in(address, MAILBOX))
        cross = {"Sec-Fetch-Site": "cross-site"}
        done = await browser.get(f"{parts.path}?{parts.query}", **cross)
    assert done.status in (200, 303), done.text
    await send(proxy)
    assert await received(sandbox) == [MAILBOX]


def settings_file(directory: Path, **token_endpoint: object) -> str:
    file = directory / "sandbox.json"
    file.write_text(json.dumps({"token_endpoint": token_endpoint}))
    return str(file)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "HS256", "secret": "a secret of thirty-two octets or more"},
        {"algorithm": "RS256"},
        {"algorithm": "ES256", "id_token_algorithm": "ES256", "requires_pkce": True},
        {"clock_skew_seconds": 60},
        {"clock_skew_seconds": -60},
    ],
    ids=["HS256", "RS256", "ES256", "a clock ahead", "a clock behind"],
)
async def test_mail_leaves_whatever_the_tokens_are_like(
    tmp_path: Path, command_line: CommandLine, settings: dict[str, object]
) -> None:
    options = ("--sandbox", "--sandbox-settings", settings_file(tmp_path, **settings))
    async with ProxyProcess(tmp_path, EXAMPLE, *options) as proxy:
        await sign_in(command_line, await sandbox_of(proxy))
        await send(proxy)


async def test_a_clock_that_is_far_ahead_is_told(tmp_path: Path, command_line: CommandLine) -> None:
    options = ("--sandbox", "--sandbox-settings", settings_file(tmp_path, clock_skew_seconds=600))
    async with ProxyProcess(tmp_path, EXAMPLE, *options) as proxy:
        sandbox = await sandbox_of(proxy)
        async with command_line.start("login", MAILBOX, "--paste") as command:
            async with Person(sandbox) as person:
                await command.type(await person.sign_in(await command.url(), MAILBOX))
            assert await command.ends() == 1
        assert "(iat)" in command.stderr


async def test_without_the_sandbox_login_says_so(tmp_path: Path, command_line: CommandLine) -> None:
    async with ProxyProcess(tmp_path, EXAMPLE, "--sandbox") as proxy:
        assert await proxy.stop() == 0
    said = await command_line.run("login", MAILBOX, "--paste")
    assert said.code == 1
    assert "127.0.0.1" in said.stderr
    assert "--sandbox" in said.stderr


async def test_twenty_sign_ins_at_once_end_each_as_its_own(one_process: ProxyProcess) -> None:
    sandbox = await sandbox_of(one_process)
    redirect_uri = "http://127.0.0.1:9/"
    url = f"{sandbox.issuer}/oauth/authorize?client_id=c&response_type=code&redirect_uri="

    async def code_of(number: int) -> tuple[int, dict[str, list[str]]]:
        async with Person(sandbox) as person:
            back = await person.sign_in(
                f"{url}{redirect_uri}&state={number}", f"user{number}@sandbox.example"
            )
        return number, parse_qs(urlsplit(back).query)

    async with aiohttp.ClientSession(sandbox.issuer) as http:
        for number, answer in await asyncio.gather(*map(code_of, range(20))):
            assert answer["state"] == [str(number)]
            form = {"grant_type": "authorization_code", "client_id": "c"}
            form |= {"code": answer["code"][0], "redirect_uri": redirect_uri}
            async with http.post("/oauth/token", data=form) as response:
                token = (await response.json())["access_token"]
            async with http.post("/test/tokens/explain", json={"token": token}) as response:
                assert (await response.json())["mailbox"] == f"user{number}@sandbox.example"


async def test_without_a_configuration_a_mailbox_is_added_and_signed_in(tmp_path: Path) -> None:
    here = ("--sandbox", "--state-dir", str(tmp_path))
    async with ProxyProcess(tmp_path, None, "--sandbox") as proxy:
        async with aiohttp.ClientSession(proxy.admin_url) as http:
            added = {"email": MAILBOX, "provider": "sandbox", "password": PASSWORD}
            headers = {"X-Requested-By": "a test"}
            async with http.post("/accounts", json=added, headers=headers) as response:
                assert response.status == 201, await response.text()
        said = await asyncio.to_thread(said_here, *here, "status")
        assert f"xoauth2-proxy --state-dir {tmp_path} --sandbox login {MAILBOX}" in said.text
        async with Browser(proxy.admin_url) as browser, Person(await sandbox_of(proxy)) as person:
            begun = await browser.get(f"/oauth/sandbox/login?mailbox={MAILBOX}")
            parts = urlsplit(await person.sign_in(str(begun.headers["Location"]), MAILBOX))
            await browser.get(f"{parts.path}?{parts.query}", **{"Sec-Fetch-Site": "cross-site"})
        await send(proxy)
